"""Transports used while their loop does not run, and on other threads than the one that runs it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from peers import connected_pair, receive_exactly
from recorder import Recorder


def test_what_is_written_in_the_last_turn_and_after_it_leaves_without_another_one(loop):
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(3):
            ours, theirs = stack.enter_context(connected_pair())
            theirs.settimeout(5)
            transport, protocol = loop.run_until_complete(
                loop.create_connection(lambda: Recorder(loop), sock=ours)
            )
            connections.append((transport, protocol, theirs))

        def write_last():
            for transport, _, _ in connections:
                transport.write(b"last turn, ")
            loop.stop()

        loop.call_soon(write_last)
        loop.run_forever()
        for transport, _, peer in connections:
            transport.write(b"outside")
            assert receive_exactly(peer, 18) == b"last turn, outside"
            transport.close()
        loop.run_until_complete(asyncio.gather(*(protocol.lost for _, protocol, _ in connections)))


@pytest.mark.parametrize("method", ["close", "abort", "pause_reading", "resume_reading", "write_eof"])
async def test_a_method_refused_to_another_thread_changes_nothing(loop, is_aioxide, method):
    if not is_aioxide:
        pytest.skip("asyncio does not look at the thread")
    with connected_pair() as (ours, theirs):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        with pytest.raises(RuntimeError, match="Non-thread-safe"):
            await loop.run_in_executor(None, getattr(transport, method))
        assert not transport.is_closing()
        assert transport.is_reading()
        theirs.sendall(b"still")
        assert await protocol.received(5) == b"still"
        transport.write(b"there")
        assert await loop.run_in_executor(None, receive_exactly, theirs, 5) == b"there"
        transport.close()
        assert await protocol.lost is None


@pytest.mark.parametrize("size", [1, 8_000_000])
async def test_what_another_thread_writes_leaves(loop, size):
    """asyncio does not promise it, and it works, except that the protocol may learn of it late."""
    with connected_pair() as (ours, theirs):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        receiving = loop.run_in_executor(None, receive_exactly, theirs, size)
        await loop.run_in_executor(None, transport.write, b"o" * size)
        assert await receiving == b"o" * size
        transport.close()
        await protocol.lost
