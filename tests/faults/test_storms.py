"""More connections than a backlog holds, peers gone before they are accepted, and peers that never read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading

import pytest
from peers import connected_pair, in_thread, receive_exactly, reset
from recorder import Recorder


class Counting(asyncio.Protocol):
    """Counts connections made and lost, and what they were lost of."""

    def __init__(self, counts):
        self.counts = counts

    def connection_made(self, transport):
        self.counts["made"] += 1
        self.counts["open"].add(transport)
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, error):
        self.counts["lost"].append(error)
        self.counts["open"].discard(self.transport)


@pytest.fixture
def counts():
    return {"made": 0, "lost": [], "open": set()}


async def until(condition, limit=30):
    """Wait until a condition holds."""
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.002)


async def close(server):
    server.close()
    await server.wait_closed()


@pytest.mark.timeout(90)
async def test_a_storm_beyond_the_backlog_is_served(loop, counts):
    server = await loop.create_server(lambda: Counting(counts), "127.0.0.1", 0, backlog=1)
    address = server.sockets[0].getsockname()

    async def ask(message):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(message)
            return await reader.readexactly(len(message))
        finally:
            writer.transport.abort()

    async def client(number):
        message = b"%08d" % number
        while True:
            # The kernel drops what a full queue has no room for, and tells nobody: clients ask again.
            try:
                async with asyncio.timeout(2):
                    assert await ask(message) == message
                    return
            except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
                continue

    async with asyncio.timeout(60):
        await asyncio.gather(*(client(number) for number in range(40)))
    assert counts["made"] >= 40
    server.close()
    for transport in list(counts["open"]):
        transport.abort()
    await until(lambda: not counts["open"])
    await server.wait_closed()


async def test_clients_that_were_gone_before_they_were_accepted(loop, counts):
    server = await loop.create_server(lambda: Counting(counts), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in range(50):  # while the loop is busy here
        reset(socket.create_connection(address))
    for _ in range(50):
        socket.create_connection(address).close()
    with socket.create_connection(address) as last:
        last.sendall(b"hello")
        assert await asyncio.to_thread(receive_exactly, last, 5) == b"hello"
    await until(lambda: not counts["open"])
    assert counts["made"] == len(counts["lost"])
    assert all(error is None or isinstance(error, ConnectionResetError) for error in counts["lost"])
    await close(server)


async def test_a_server_closed_in_the_middle_of_a_storm(loop, counts):
    with contextlib.ExitStack() as stack:
        server = await loop.create_server(lambda: Counting(counts), "127.0.0.1", 0, backlog=512)
        address = server.sockets[0].getsockname()
        stop = threading.Event()

        def knock():
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    stack.enter_context(socket.create_connection(address))
                    if counts["made"] > 100:
                        return

        with in_thread(knock):
            await until(lambda: counts["made"] > 20)
            server.close()
            stop.set()
            for transport in list(counts["open"]):
                transport.abort()
            await asyncio.sleep(0.01)
        for transport in list(counts["open"]):
            transport.abort()
        await until(lambda: not counts["open"])
        await server.wait_closed()
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the kernel likes
        await loop.create_connection(asyncio.Protocol, *address)


async def test_a_client_whose_server_resets_instead_of_greeting(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for _ in range(20):
                connection, _ = listener.accept()
                reset(connection)

        with in_thread(serve):
            for _ in range(20):
                try:
                    transport, protocol = await loop.create_connection(
                        lambda: Recorder(loop), *listener.getsockname()
                    )
                except ConnectionResetError:
                    continue
                error = await protocol.lost
                assert error is None or isinstance(error, ConnectionResetError)
                assert transport.is_closing()


ABORTING = """
import asyncio, gc, os, socket, sys
import aioxide

def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

class Lost(asyncio.Protocol):
    def connection_lost(self, error):
        self.lost.set_result(error)

async def main():
    loop = asyncio.get_running_loop()
    size = 64 << 20
    for _ in range(3):
        ours, theirs = socket.socketpair()
        transport, protocol = await loop.create_connection(Lost, sock=ours)
        protocol.lost = loop.create_future()
        before = resident()
        transport.write(bytearray(size))
        assert transport.get_write_buffer_size() > size // 2
        assert resident() - before > size // 2
        transport.abort()
        assert await protocol.lost is None
        assert transport.get_write_buffer_size() == 0
        gc.collect()
        assert resident() - before < size // 4
        theirs.close()

name = sys.argv[1]
factory = asyncio.SelectorEventLoop if name == "asyncio" else lambda: aioxide.EventLoop(name)
aioxide.run(main(), loop_factory=factory)
"""


def test_aborting_a_connection_whose_peer_never_reads_gives_the_memory_back(loop_name, loop_factory):
    # In a process of its own: what an allocator keeps depends on what was there before.
    done = subprocess.run(
        [sys.executable, "-c", ABORTING, loop_name], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


async def test_closing_a_connection_whose_peer_never_reads_waits_for_it(loop):
    size = 16 << 20
    with connected_pair() as (ours, peer):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        transport.write(bytes(size))
        transport.close()
        await asyncio.sleep(0.02)
        assert not protocol.lost.done()
        with in_thread(receive_exactly, peer, size):
            assert await protocol.lost is None


async def test_closing_a_connection_whose_peer_never_reads_and_resets(loop):
    with connected_pair() as (ours, peer):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        transport.write(bytes(16 << 20))
        transport.close()
        await asyncio.sleep(0.01)
        assert not protocol.lost.done()
        reset(peer)
        assert isinstance(await protocol.lost, (ConnectionResetError, BrokenPipeError))


async def test_a_thousand_peers_that_never_read(loop):
    with contextlib.ExitStack() as stack:
        protocols = []
        for _ in range(200):
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
            transport.write(bytes(1 << 20))
            protocols.append(protocol)
        await asyncio.sleep(0.01)
        assert not any(protocol.lost.done() for protocol in protocols)
        for protocol in protocols:
            protocol.transport.abort()
        assert await asyncio.gather(*(protocol.lost for protocol in protocols)) == [None] * len(protocols)


async def test_a_peer_that_closes_only_its_reading_half_is_still_heard(loop):
    ours, peer = socket.socketpair()
    with peer:
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        peer.shutdown(socket.SHUT_RD)
        peer.sendall(b"still talking")
        assert await protocol.received(13) == b"still talking"
        transport.write(b"nobody reads this")
        assert isinstance(await protocol.lost, (BrokenPipeError, ConnectionResetError))


async def test_a_half_closed_peer_that_never_reads_is_aborted(loop):
    with connected_pair() as (ours, peer):
        protocol = Recorder(loop, keep_open_on_eof=True)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        transport.write(bytes(16 << 20))
        peer.shutdown(socket.SHUT_WR)
        await protocol.eof
        transport.write(b"more")
        transport.abort()
        assert await protocol.lost is None
