"""BufferedProtocol: data arrives in memory the protocol owns."""

from __future__ import annotations

import asyncio
import os

import pytest
from peers import connected_pair, in_thread
from recorder import BufferedRecorder, Recorder


@pytest.fixture
def peer_and_socket():
    """(our socket, the blocking peer)."""
    with connected_pair() as ends:
        yield ends


async def close(transport, protocol):
    """End the connection from this side."""
    transport.abort()
    await protocol.lost


@pytest.mark.parametrize("size", [1, 7, 4096, 65536, 1 << 20])
async def test_data_arrives_exactly_in_buffers_of_any_size(loop, peer_and_socket, size):
    ours, peer = peer_and_socket
    transport, protocol = await loop.create_connection(lambda: BufferedRecorder(loop, size), sock=ours)
    data = os.urandom(min(size * 100, 4 << 20))
    with in_thread(peer.sendall, data):
        assert await protocol.received(len(data)) == data
    assert max(protocol.counts) <= size
    assert min(protocol.counts) >= 1
    assert all(isinstance(hint, int) for hint in protocol.hints)
    await close(transport, protocol)


async def test_a_part_of_a_buffer_may_be_given(loop, peer_and_socket):
    ours, peer = peer_and_socket
    protocol = BufferedRecorder(loop, 100)
    whole = protocol.buffer
    protocol.get_buffer = lambda hint: memoryview(whole)[10:20]
    received = bytearray()

    def buffer_updated(count):
        received.extend(whole[10 : 10 + count])

    protocol.buffer_updated = buffer_updated
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    peer.sendall(b"0123456789" * 5)
    while len(received) < 50:
        await asyncio.sleep(0.001)
    assert received == b"0123456789" * 5
    assert whole[:10] == bytes(10)
    assert whole[20:] == bytes(80)
    await close(transport, protocol)


async def test_the_end_is_told(loop, peer_and_socket):
    ours, peer = peer_and_socket
    transport, protocol = await loop.create_connection(lambda: BufferedRecorder(loop, 100), sock=ours)
    peer.sendall(b"last")
    peer.close()
    await protocol.eof
    assert await protocol.lost is None
    assert protocol.data == b"last"
    assert transport.is_closing()


async def test_a_buffer_can_be_resized_between_calls(loop, peer_and_socket):
    ours, peer = peer_and_socket
    protocol = BufferedRecorder(loop, 10)
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    peer.sendall(b"one")
    await protocol.received(3)
    protocol.buffer = bytearray(50)
    peer.sendall(b"two")
    assert await protocol.received(6) == b"onetwo"
    await close(transport, protocol)


@pytest.mark.parametrize("wrong", [b"", bytearray(), b"read only", "text", None, 42], ids=repr)
async def test_a_wrong_buffer_ends_the_connection_and_is_reported(loop, reported, peer_and_socket, wrong):
    ours, peer = peer_and_socket
    protocol = BufferedRecorder(loop, 10)
    protocol.get_buffer = lambda hint: wrong
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    peer.sendall(b"data")
    error = await protocol.lost
    assert error is not None
    assert transport.is_closing()
    context = reported.pop()
    assert context["exception"] is error
    assert context["protocol"] is protocol


@pytest.mark.parametrize("method", ["get_buffer", "buffer_updated"])
async def test_a_protocol_that_fails_ends_the_connection(loop, reported, peer_and_socket, method):
    def fail(*_):
        raise LookupError("wrong")

    ours, peer = peer_and_socket
    protocol = BufferedRecorder(loop, 10)
    setattr(protocol, method, fail)
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    peer.sendall(b"data")
    assert isinstance(await protocol.lost, LookupError)
    assert isinstance(reported.pop()["exception"], LookupError)
    assert transport.is_closing()


async def test_pausing_keeps_the_buffer_untouched(loop, peer_and_socket):
    ours, peer = peer_and_socket
    transport, protocol = await loop.create_connection(lambda: BufferedRecorder(loop, 100), sock=ours)
    await asyncio.sleep(0.005)
    transport.pause_reading()
    peer.sendall(b"data")
    await asyncio.sleep(0.01)
    assert protocol.buffer == bytearray(100)
    transport.resume_reading()
    assert await protocol.received(4) == b"data"
    await close(transport, protocol)


async def test_protocols_of_both_kinds_can_follow_each_other(loop, peer_and_socket):
    ours, peer = peer_and_socket
    transport, first = await loop.create_connection(lambda: Recorder(loop), sock=ours)
    peer.sendall(b"one")
    assert await first.received(3) == b"one"
    second = BufferedRecorder(loop, 100)
    transport.set_protocol(second)
    peer.sendall(b"two")
    assert await second.received(3) == b"two"
    third = Recorder(loop)
    transport.set_protocol(third)
    peer.sendall(b"three")
    assert await third.received(5) == b"three"
    assert (first.data, second.data) == (b"one", b"two")
    await close(transport, third)
    first.lost.cancel()
    second.lost.cancel()
