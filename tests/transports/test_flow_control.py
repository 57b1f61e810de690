"""Pausing and resuming, in both directions, and the sizes that decide it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest
from peers import connected_pair, in_thread, receive_all, receive_exactly, until_it_blocks
from recorder import Recorder


@pytest.fixture
def connection(loop):
    """(transport, protocol, blocking peer), closed afterwards."""
    with connected_pair() as (ours, theirs):
        transport, protocol = loop.run_until_complete(
            loop.create_connection(lambda: Recorder(loop), sock=ours)
        )
        yield transport, protocol, theirs
        if not protocol.lost.done():
            transport.abort()
            loop.run_until_complete(protocol.lost)


async def test_default_limits_are_asyncios(loop, connection):
    transport, _, _ = connection
    assert transport.get_write_buffer_limits() == (16384, 65536)
    assert transport.get_write_buffer_size() == 0


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 1000, "low": 10}, (10, 1000)),
        ({"high": 0}, (0, 0)),
        ({}, (16384, 65536)),
    ],
    ids=str,
)
async def test_limits_can_be_set(loop, connection, given, limits):
    transport, _, _ = connection
    transport.set_write_buffer_limits(**given)
    assert transport.get_write_buffer_limits() == limits


@pytest.mark.parametrize("wrong", [{"high": -1}, {"high": 1, "low": 2}, {"low": -1, "high": 5}], ids=str)
async def test_wrong_limits_are_value_errors(loop, connection, wrong):
    transport, _, _ = connection
    with pytest.raises(ValueError, match="high"):
        transport.set_write_buffer_limits(**wrong)
    assert transport.get_write_buffer_limits() == (16384, 65536)


async def test_a_full_buffer_pauses_and_an_empty_one_resumes(loop, connection):
    transport, protocol, peer = connection
    data = os.urandom(32 << 20)
    transport.write(data)
    assert protocol.calls[-1] == "pause_writing"
    assert transport.get_write_buffer_size() > 65536
    received: list[bytes] = []
    with in_thread(lambda: received.append(receive_exactly(peer, len(data)))):
        async with asyncio.timeout(20):
            await protocol.writable.wait()
        assert transport.get_write_buffer_size() <= 16384
        # What is left by then leaves as long as the loop runs.
        while not received:
            await asyncio.sleep(0.001)
    assert received == [data]
    assert protocol.calls == ["connection_made", "pause_writing", "resume_writing"]


async def test_pausing_is_told_once(loop, connection):
    transport, protocol, _ = connection
    for _ in range(200):
        transport.write(bytes(1 << 20))
    assert protocol.calls.count("pause_writing") == 1
    assert protocol.calls.count("resume_writing") == 0


async def test_small_writes_do_not_pause(loop, connection):
    transport, protocol, peer = connection
    for _ in range(100):
        transport.write(b"x" * 100)
        assert await asyncio.to_thread(receive_exactly, peer, 0) == b""
        await asyncio.sleep(0)
    assert await asyncio.to_thread(receive_exactly, peer, 10_000) == b"x" * 10_000
    assert protocol.calls == ["connection_made"]


async def test_a_high_limit_of_zero_pauses_as_soon_as_something_waits(loop, connection):
    transport, protocol, peer = connection
    transport.set_write_buffer_limits(high=0)
    data = bytes(32 << 20)
    transport.write(data)
    assert protocol.calls[-1] == "pause_writing"
    with in_thread(receive_exactly, peer, len(data)):
        async with asyncio.timeout(20):
            await protocol.writable.wait()
        assert transport.get_write_buffer_size() == 0


async def test_a_close_during_a_pause_still_sends_everything(loop, connection):
    transport, protocol, peer = connection
    data = os.urandom(16 << 20)
    transport.write(data)
    assert protocol.paused.is_set()
    transport.close()
    received: list[bytes] = []
    with in_thread(lambda: received.append(receive_all(peer))):
        await protocol.lost
    assert received == [data]


async def test_paused_reading_receives_nothing(loop, connection):
    transport, protocol, peer = connection
    transport.pause_reading()
    assert not transport.is_reading()
    transport.pause_reading()
    peer.sendall(b"waiting")
    await asyncio.sleep(0.02)
    assert protocol.data == b""
    transport.resume_reading()
    assert transport.is_reading()
    transport.resume_reading()
    assert await protocol.received(7) == b"waiting"


async def test_paused_reading_pushes_back_on_the_peer(loop, connection):
    transport, protocol, peer = connection
    transport.pause_reading()
    peer.setblocking(False)
    sent = until_it_blocks(peer.send, bytes(65536))
    await asyncio.sleep(0.05)
    sent += until_it_blocks(peer.send, bytes(65536))
    assert protocol.data == b""
    transport.resume_reading()
    assert len(await protocol.received(sent)) == sent


async def test_pausing_inside_data_received_stops_at_once(loop, connection):
    transport, protocol, peer = connection
    received: list[bytes] = []

    def data_received(data):
        received.append(data)
        transport.pause_reading()

    protocol.data_received = data_received
    with in_thread(peer.sendall, bytes(1 << 20)):
        for expected in range(1, 4):
            async with asyncio.timeout(5):
                while len(received) < expected:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            assert len(received) == expected
            transport.resume_reading()
        total = sum(map(len, received))
        del protocol.data_received
        transport.resume_reading()
        await protocol.received((1 << 20) - total - sum(map(len, received[3:])))
    assert sum(map(len, received)) + len(protocol.data) == 1 << 20


async def test_pause_and_resume_at_every_turn_lose_nothing(loop, connection):
    transport, protocol, peer = connection
    data = os.urandom(4 << 20)

    def send():
        with contextlib.suppress(OSError):  # the end of a failed test
            peer.sendall(data)

    with in_thread(send):
        limit = loop.time() + 20
        while len(protocol.data) < len(data) and loop.time() < limit:
            transport.pause_reading()
            await asyncio.sleep(0)
            transport.resume_reading()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        arrived = bytes(protocol.data)
        transport.abort()
    assert arrived == data


async def test_the_end_waits_while_reading_is_paused(loop, connection):
    transport, protocol, peer = connection
    transport.pause_reading()
    peer.sendall(b"last")
    peer.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.02)
    assert protocol.calls == ["connection_made"]
    transport.resume_reading()
    await protocol.lost
    assert protocol.data == b"last"
    assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_reading_cannot_be_resumed_after_close(loop, connection):
    transport, protocol, _ = connection
    transport.close()
    assert not transport.is_reading()
    transport.pause_reading()
    transport.resume_reading()
    assert not transport.is_reading()
    await protocol.lost


async def test_a_writer_that_drains_never_holds_much(loop, connection):
    _, _, peer = connection
    transport, protocol, _ = connection
    data = os.urandom(16 << 20)
    received: list[bytes] = []
    largest = 0
    with in_thread(lambda: received.append(receive_exactly(peer, len(data)))):
        for start in range(0, len(data), 1 << 16):
            await protocol.writable.wait()
            transport.write(data[start : start + (1 << 16)])
            largest = max(largest, transport.get_write_buffer_size())
        while not received:
            await asyncio.sleep(0.001)
    assert received == [data]
    assert largest <= 65536 + (1 << 16)
