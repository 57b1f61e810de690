"""Peers that reset, vanish, stall or flood, and loops that end in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading

import pytest
from peers import connected_pair, reset
from recorder import BufferedRecorder, Recorder


@pytest.mark.parametrize("kind", ["protocol", "buffered"])
async def test_a_reset_while_reading_is_told(loop, kind):
    with connected_pair() as (ours, peer):
        protocol = Recorder(loop) if kind == "protocol" else BufferedRecorder(loop, 100)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        await asyncio.sleep(0.005)
        reset(peer)
        assert isinstance(await protocol.lost, ConnectionResetError)
        assert transport.is_closing()
        assert not protocol.eof.done()


async def test_a_reset_in_the_middle_of_a_write_is_told(loop):
    with connected_pair() as (ours, peer):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        transport.write(bytes(64 << 20))
        await asyncio.sleep(0.005)
        reset(peer)
        assert isinstance(await protocol.lost, (ConnectionResetError, BrokenPipeError))
        assert transport.get_write_buffer_size() == 0


async def test_writing_after_the_peer_left_ends_the_connection(loop):
    with connected_pair() as (ours, peer):
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop, keep_open_on_eof=True), sock=ours
        )
        peer.close()
        await protocol.eof
        async with asyncio.timeout(10):
            while not protocol.lost.done():
                transport.write(b"x" * 1000)
                await asyncio.sleep(0.001)
        assert isinstance(protocol.lost.result(), (ConnectionResetError, BrokenPipeError))


async def test_writing_to_a_lost_connection_is_logged_and_harmless(loop, caplog):
    with connected_pair() as (ours, peer):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        reset(peer)
        await protocol.lost
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(20):
                transport.write(b"x")
        assert "socket.send() raised exception" in caplog.text


async def test_writing_after_close_does_not_raise(loop):
    with connected_pair() as (ours, _):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        transport.close()
        transport.write(b"x")
        await protocol.lost
        transport.write(b"x")
        transport.close()


async def test_data_sent_before_a_reset_of_the_writer_is_no_crash(loop):
    for _ in range(50):
        with connected_pair() as (ours, peer):
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
            peer.sendall(b"x" * 100_000)
            reset(peer)
            error = await protocol.lost
            assert error is None or isinstance(error, ConnectionResetError)
            assert transport.is_closing()


async def test_a_storm_of_resets_leaves_a_server_serving(loop):
    connected = 0

    class Counting(asyncio.Protocol):
        def connection_made(self, transport):
            nonlocal connected
            connected += 1

    server = await loop.create_server(Counting, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for number in range(500):
        reset(socket.create_connection(address))
        if number % 20 == 19:  # a full backlog would block this thread
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.02)
    before = connected
    client = socket.create_connection(address)
    async with asyncio.timeout(10):
        while connected == before:
            await asyncio.sleep(0.001)
    client.close()
    server.close()
    await server.wait_closed()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_closed_with_open_connections_lets_go_of_them(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio leaves them to the garbage collector")

    async def main():
        ours, theirs = socket.socketpair()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        transport.write(bytes(16 << 20))
        return server, transport, theirs

    server, transport, theirs = loop.run_until_complete(main())
    loop.close()
    theirs.close()
    del server, transport


async def test_a_peer_that_is_slow_does_not_slow_the_others(loop):
    with connected_pair() as (slow, _slow_peer), connected_pair() as (fast, fast_peer):
        slow_transport, slow_protocol = await loop.create_connection(lambda: Recorder(loop), sock=slow)
        slow_transport.write(bytes(64 << 20))
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=fast)
        for number in range(500):
            fast_peer.sendall(b"%04d" % number)
            assert await protocol.received(4 * (number + 1))
            transport.write(b"answer")
        slow_transport.abort()
        transport.abort()
        await asyncio.gather(protocol.lost, slow_protocol.lost)


async def test_a_flooding_connection_starves_neither_timers_nor_others(loop):
    with connected_pair() as (flood, flood_peer), connected_pair() as (calm, calm_peer):
        flooded, flood_protocol = await loop.create_connection(lambda: Recorder(loop), sock=flood)
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=calm)
        flood_protocol.data_received = lambda data: None
        stop = threading.Event()

        def send():
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    flood_peer.sendall(bytes(1 << 18))

        thread = threading.Thread(target=send)
        thread.start()
        async with asyncio.timeout(20):
            for number in range(20):
                await asyncio.sleep(0.001)
                calm_peer.sendall(b"x")
                await protocol.received(number + 1)
        stop.set()
        flooded.abort()
        transport.abort()
        await asyncio.gather(protocol.lost, flood_protocol.lost)
        await asyncio.to_thread(thread.join)
