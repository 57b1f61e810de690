"""The garbage collector may run at any moment of a transport's life."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest


@pytest.fixture
def eager_collector():
    """Collect at every allocation that can start a collection."""
    before = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)


async def test_a_collection_while_a_transport_is_made_is_harmless(loop, eager_collector):
    transports = []
    for _ in range(50):
        near, far = socket.socketpair()
        near.setblocking(False)
        # Dictionaries that were freed before would be used again without the allocator.
        hoard = [{} for _ in range(200)]
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
        far.close()
        transports.append(transport)
        del hoard
    for transport in transports:
        transport.close()
    await asyncio.sleep(0)


async def test_a_cycle_through_a_closed_transport_is_collected(loop):
    class Holder(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

    near, far = socket.socketpair()
    near.setblocking(False)
    transport, protocol = await loop.connect_accepted_socket(Holder, near)
    alive = weakref.ref(protocol)
    transport.set_protocol(protocol)
    transport.close()
    far.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del transport, protocol
    gc.collect()
    assert alive() is None
