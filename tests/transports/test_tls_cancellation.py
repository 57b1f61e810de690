"""Connecting, upgrading and talking over TLS, cancelled at every suspension."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from interrupting import MOMENTS, interrupt_everywhere
from recorder import Recorder
from tls_peers import NAME, client_context, server_context

pytestmark = pytest.mark.usefixtures("tls_engine")


@pytest.fixture(autouse=True)
def reports(loop, reported):
    """Forget what debug mode reports of handshakes that clients gave up."""
    yield
    given_up = [context for context in reported if isinstance(context.get("exception"), OSError)]
    assert loop.get_debug() or not given_up
    reported[:] = [context for context in reported if context not in given_up]


@contextlib.asynccontextmanager
async def echoing(loop):
    """A TLS server of this loop that sends back what it gets."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            transports.add(transport)

        def data_received(self, data):
            self.transport.write(data)

        def connection_lost(self, error):
            transports.discard(self.transport)

    transports: set[asyncio.Transport] = set()
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context(), start_serving=False)
    await server.start_serving()
    yield server.sockets[0].getsockname(), transports
    server.close()
    for transport in list(transports):
        transport.abort()
    await server.wait_closed()


def nobody_left(transports):
    """Return a coroutine function that waits until the server has seen the end of every connection."""

    async def settled():
        async with asyncio.timeout(10):
            while transports:
                await asyncio.sleep(0.001)

    return settled


@pytest.mark.parametrize("moment", MOMENTS)
async def test_create_connection(loop, moment):
    context = client_context()
    async with echoing(loop) as (address, transports):

        async def operation():
            transport, protocol = await loop.create_connection(
                lambda: Recorder(loop), *address, ssl=context, server_hostname=NAME
            )
            try:
                transport.write(b"hello")
                assert await protocol.received(5) == b"hello"
            finally:
                transport.abort()

        assert await interrupt_everywhere(operation, moment, nobody_left(transports))


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_failing_handshake(loop, moment):
    context = client_context()
    async with echoing(loop) as (address, transports):

        async def operation():
            try:
                await loop.create_connection(asyncio.Protocol, *address, ssl=context, server_hostname="wrong")
            except OSError:  # the certificate is another's
                return
            raise AssertionError("the name is wrong")

        assert await interrupt_everywhere(operation, moment, nobody_left(transports))


@pytest.mark.parametrize("moment", MOMENTS)
async def test_streams(loop, moment):
    context = client_context()
    data = b"0123456789" * 20_000
    async with echoing(loop) as (address, transports):

        async def operation():
            reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=NAME)
            try:
                writer.write(data)
                await writer.drain()
                assert await reader.readexactly(len(data)) == data
                writer.close()
                await writer.wait_closed()
            finally:
                writer.transport.abort()

        assert await interrupt_everywhere(operation, moment, nobody_left(transports))


@pytest.mark.parametrize("moment", MOMENTS)
async def test_start_tls(loop, moment):
    ours, theirs = client_context(), server_context()

    async def operation():
        near, far = socket.socketpair()
        ends = []
        try:
            client, client_protocol = await loop.create_connection(lambda: Recorder(loop), sock=near)
            ends.append(client)
            server, server_protocol = await loop.connect_accepted_socket(lambda: Recorder(loop), far)
            ends.append(server)
            answering = loop.create_task(loop.start_tls(server, server_protocol, theirs, server_side=True))
            try:
                upgraded = await loop.start_tls(client, client_protocol, ours, server_hostname=NAME)
                ends.append(upgraded)
                upgraded.write(b"hello")
                ends.append(await asyncio.shield(answering))
                assert await server_protocol.received(5) == b"hello"
            finally:
                answering.cancel()
                await asyncio.wait([answering])
                if not answering.cancelled() and answering.exception() is None:
                    ends.append(answering.result())
        finally:
            for end in ends:
                end.abort()
            for sock in (near, far):  # after the transports, if there are any, have done so
                loop.call_later(0.001, sock.close)

    assert await interrupt_everywhere(operation, moment)
