"""loop.sendfile and loop.sock_sendfile: exactly the bytes asked for, whatever happens on the way."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from interrupting import MOMENTS, interrupt_everywhere
from peers import connected_pair, in_thread, receive_all, receive_exactly, reset, until_it_blocks
from recorder import Recorder

SIZE = 3_000_017
CONTENT = random.Random(7).randbytes(SIZE)
PIECE = 256 * 1024


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A file of random bytes."""
    path = tmp_path_factory.mktemp("sendfile") / "content"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def file(path):
    with path.open("rb") as file:
        yield file


@contextlib.asynccontextmanager
async def connection(loop, *, small: bool = False) -> AsyncIterator[tuple[Any, Recorder, socket.socket]]:
    """(transport, protocol, blocking peer); the kernel keeps little for the peer where `small`."""
    with connected_pair() as (ours, theirs):
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        yield transport, protocol, theirs
        transport.abort()
        await protocol.lost
        await asyncio.sleep(0)


def duplicate(transport: Any) -> socket.socket:
    """Return a non-blocking socket of the transport's connection."""
    sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    sock.setblocking(False)
    return sock


async def until_it_sends_no_more(loop) -> None:
    """Let a file go as far as the kernel takes it while nobody reads."""
    for _ in range(200):
        await asyncio.sleep(0.0005)


def ranges() -> list[tuple[int, int | None]]:
    """Pairs of offset and count: the edges of the file and of a piece, and some in between."""
    chosen = random.Random(11)
    edges = [
        (0, None),
        (0, 1),
        (0, SIZE),
        (0, SIZE + 1),
        (0, PIECE),
        (1, PIECE),
        (PIECE, PIECE + 1),
        (SIZE - 1, None),
        (SIZE - 1, 5),
        (SIZE, None),
        (SIZE, 5),
        (SIZE + 5, 5),
        (SIZE - PIECE, None),
    ]
    between = [(chosen.randrange(SIZE), chosen.choice([None, chosen.randrange(1, SIZE)])) for _ in range(5)]
    return edges + between


def expected(offset: int, count: int | None) -> bytes:
    return CONTENT[offset:] if count is None else CONTENT[offset : offset + count]


def position(offset: int, sent: bytes) -> int:
    """Return where the file stands afterwards: since 3.14 it moves also where nothing was sent."""
    return offset + len(sent) if sent or sys.version_info >= (3, 14) else 0


@pytest.mark.parametrize(("offset", "count"), ranges())
async def test_exactly_the_bytes_of_a_range_are_sent(loop, file, offset, count):
    wanted = expected(offset, count)
    received: list[bytes] = []
    async with connection(loop) as (transport, _, peer):
        with in_thread(lambda: received.append(receive_all(peer))):
            assert await loop.sendfile(transport, file, offset, count) == len(wanted)
            transport.write_eof()
            await asyncio.sleep(0)
    assert received == [wanted]
    assert file.tell() == position(offset, wanted)


@pytest.mark.parametrize(("offset", "count"), ranges())
async def test_exactly_the_bytes_of_a_range_are_sent_on_a_socket(loop, file, offset, count):
    wanted = expected(offset, count)
    received: list[bytes] = []
    with connected_pair() as (ours, theirs), in_thread(lambda: received.append(receive_all(theirs))):
        assert await loop.sock_sendfile(ours, file, offset, count) == len(wanted)
        ours.shutdown(socket.SHUT_WR)
    assert received == [wanted]
    assert file.tell() == position(offset, wanted)


@pytest.mark.parametrize(("offset", "count"), ranges()[:6] + ranges()[-2:])
@pytest.mark.parametrize("on_transport", [True, False])
async def test_files_of_memory_are_read_and_written(loop, is_aioxide, offset, count, on_transport):
    wanted = expected(offset, count)
    received: list[bytes] = []
    file = io.BytesIO(CONTENT)
    async with connection(loop) as (transport, protocol, peer):
        with in_thread(lambda: received.append(receive_exactly(peer, len(wanted)))):
            if on_transport:
                sent = await loop.sendfile(transport, file, offset, count)
            else:
                with duplicate(transport) as sock:
                    sent = await loop.sock_sendfile(sock, file, offset, count)
            assert sent == len(wanted)
            async with asyncio.timeout(20):
                while transport.get_write_buffer_size():
                    await asyncio.sleep(0.001)
        assert transport.is_reading()
        assert transport.get_protocol() is protocol
    if is_aioxide or not on_transport:  # asyncio sends something else where the kernel is full
        assert received == [wanted]
    assert file.tell() == offset + len(wanted)


async def test_the_fallback_sends_what_it_read(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip(
            "asyncio's transport keeps views of the memory that the fallback reads the next piece into"
        )
    received: list[bytes] = []
    async with connection(loop) as (transport, _, peer):
        with duplicate(transport) as ours:
            taken = until_it_blocks(ours.send, bytes(4096))
        transport.set_write_buffer_limits(high=1 << 20)
        assert await loop.sendfile(transport, io.BytesIO(CONTENT[:100_000])) == 100_000
        with in_thread(lambda: received.append(receive_exactly(peer, taken + 100_000))):
            while transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
    assert received[0][taken:] == CONTENT[:100_000]


async def test_what_can_only_be_read_is_sent(loop):
    class Reader:
        left = 100_000

        def readinto(self, memory):
            length = min(self.left, len(memory))
            memory[:length] = b"r" * length
            self.left -= length
            return length

    async with connection(loop) as (transport, _, peer):
        with in_thread(receive_exactly, peer, 100_000):
            assert await loop.sendfile(transport, Reader()) == 100_000


async def test_without_the_fallback_files_of_memory_are_refused(loop):
    async with connection(loop) as (transport, _, peer):
        with pytest.raises(asyncio.SendfileNotAvailableError):
            await loop.sendfile(transport, io.BytesIO(b"x"), fallback=False)
        assert transport.is_reading()
        transport.write(b"usable")
        assert await loop.run_in_executor(None, receive_exactly, peer, 6) == b"usable"
    with connected_pair() as (ours, _), pytest.raises(asyncio.SendfileNotAvailableError):
        await loop.sock_sendfile(ours, io.BytesIO(b"x"), fallback=False)


@pytest.mark.parametrize("name", ["empty", "/proc/self/status", os.devnull])
async def test_what_is_empty_or_says_so_sends_nothing(loop, tmp_path, name):
    (tmp_path / "empty").touch()
    with (tmp_path / name).open("rb") as file:
        async with connection(loop) as (transport, _, _):
            assert await loop.sendfile(transport, file) == 0
            assert not transport.is_closing()
        with connected_pair() as (ours, _):
            assert await loop.sock_sendfile(ours, file) == 0


async def test_a_huge_file_is_sent_from_far_behind(loop, tmp_path):
    start = 6 << 30
    path = tmp_path / "sparse"
    with path.open("w+b") as file:
        file.seek(start + 1_000_000)
        file.write(b"end")
    received: list[bytes] = []
    with path.open("rb") as file:
        async with connection(loop) as (transport, _, peer):
            with in_thread(lambda: received.append(receive_exactly(peer, 1_000_003))):
                assert await loop.sendfile(transport, file, start) == 1_000_003
        assert file.tell() == start + 1_000_003
    assert received == [bytes(1_000_000) + b"end"]


@pytest.mark.parametrize("size", [10, 100_000, 2_000_000])
async def test_what_is_written_before_and_after_keeps_its_place(loop, file, size):
    before, after = os.urandom(size), os.urandom(size)
    received: list[bytes] = []
    async with connection(loop) as (transport, _, peer):
        with in_thread(lambda: received.append(receive_all(peer))):
            transport.write(before[:5])
            transport.write(before[5:])
            assert await loop.sendfile(transport, file) == SIZE
            transport.write(after)
            transport.write_eof()
            async with asyncio.timeout(20):
                while transport.get_write_buffer_size():
                    await asyncio.sleep(0.001)
    assert received == [before + CONTENT + after]


async def test_nothing_is_written_into_a_file(loop, file):
    received: list[bytes] = []
    async with connection(loop, small=True) as (transport, _, peer):
        task = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.write(b"in between")
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.writelines([b"in", b"between"])
        with in_thread(lambda: received.append(receive_exactly(peer, SIZE + 5))):
            assert await task == SIZE
            transport.write(b"after")
            await asyncio.sleep(0)
        assert received == [CONTENT + b"after"]


async def test_a_second_file_must_wait_for_the_first(loop, is_aioxide, file):
    if not is_aioxide:
        pytest.skip("asyncio fails with a KeyError")
    received: list[bytes] = []
    async with connection(loop, small=True) as (transport, _, peer):
        task = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            await loop.sendfile(transport, file)
        with in_thread(lambda: received.append(receive_exactly(peer, SIZE))):
            assert await task == SIZE
        assert received == [CONTENT]


async def test_two_connections_send_one_file(loop, path):
    received: list[bytes] = []
    async with connection(loop) as (first, _, one), connection(loop) as (second, _, two):
        with (
            path.open("rb") as file,
            in_thread(lambda: received.append(receive_exactly(one, SIZE))),
            in_thread(lambda: received.append(receive_exactly(two, SIZE))),
        ):
            assert await asyncio.gather(loop.sendfile(first, file), loop.sendfile(second, file)) == [
                SIZE,
                SIZE,
            ]
    assert received == [CONTENT, CONTENT]


async def test_reading_rests_while_a_file_is_sent(loop, file):
    async with connection(loop, small=True) as (transport, protocol, peer):
        task = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0)
        assert not transport.is_reading()
        peer.sendall(b"meanwhile")
        await asyncio.sleep(0.02)
        assert protocol.data == b""
        with in_thread(receive_exactly, peer, SIZE):
            await task
        assert transport.is_reading()
        assert await protocol.received(9) == b"meanwhile"


async def test_who_paused_reading_stays_paused(loop, file):
    async with connection(loop) as (transport, _, peer):
        transport.pause_reading()
        with in_thread(receive_exactly, peer, SIZE):
            await loop.sendfile(transport, file)
        assert not transport.is_reading()


async def test_a_file_goes_over_unix_sockets_from_a_server(loop, file, tmp_path):
    sent: asyncio.Future[int] = loop.create_future()

    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            self.task = loop.create_task(self.answer(transport))

        async def answer(self, transport):
            sent.set_result(await loop.sendfile(transport, file))
            transport.close()

    server = await loop.create_unix_server(Server, tmp_path / "socket")
    reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
    assert await reader.read() == CONTENT
    assert await sent == SIZE
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


# Cancellation.


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
@pytest.mark.parametrize("kind", ["sendfile", "sock_sendfile", "fallback"])
async def test_a_cancelled_file_leaves_a_connection_in_order(loop, is_aioxide, path, steps, kind):
    """After some turns, in each of which the peer takes a little."""
    if kind == "fallback" and not is_aioxide:
        pytest.skip("asyncio sends something else where the kernel is full")
    received = bytearray()
    with path.open("rb") as file:
        async with connection(loop, small=True) as (transport, protocol, peer):
            if kind == "sock_sendfile":
                transport.pause_reading()
                sock = duplicate(transport)
                sending = loop.sock_sendfile(sock, file)
            else:
                sock = None
                sending = loop.sendfile(transport, file if kind == "sendfile" else io.BytesIO(CONTENT))
            task = asyncio.create_task(sending)
            peer.setblocking(False)
            for _ in range(steps):
                await asyncio.sleep(0)
                with contextlib.suppress(BlockingIOError):
                    received += peer.recv(5000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if sock is not None:
                sock.close()
            else:
                assert transport.is_reading()
                assert transport.get_protocol() is protocol
            peer.setblocking(True)
            with in_thread(lambda: received.extend(receive_all(peer))):
                transport.write(b"afterwards")
                transport.write_eof()
                async with asyncio.timeout(20):
                    while transport.get_write_buffer_size():
                        await asyncio.sleep(0.001)
        assert received.endswith(b"afterwards")
        sent = len(received) - len(b"afterwards")
        assert received[:sent] == CONTENT[:sent]
        if is_aioxide and kind != "fallback":  # asyncio leaves the position where it was
            assert file.tell() == sent


async def test_a_file_cancelled_behind_earlier_writes_leaves_a_connection_in_order(loop, is_aioxide, file):
    if not is_aioxide:
        pytest.skip("asyncio's transport cannot be written nor read afterwards")
    received: list[bytes] = []
    async with connection(loop, small=True) as (transport, _, peer):
        transport.write(bytes(8_000_000))
        task = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.is_reading()
        assert file.tell() == 0
        transport.write(b"afterwards")
        with in_thread(lambda: received.append(receive_exactly(peer, 8_000_010))):
            async with asyncio.timeout(20):
                while transport.get_write_buffer_size():
                    await asyncio.sleep(0.001)
    assert received == [bytes(8_000_000) + b"afterwards"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("on_transport", [True, False])
async def test_a_file_cancelled_at_any_suspension_was_sent_as_far_as_its_position_says(
    loop, is_aioxide, file, moment, on_transport
):
    if not is_aioxide:
        pytest.skip("asyncio leaves the position where it was")
    received: list[bytes] = []
    positions = []
    async with connection(loop, small=True) as (transport, _, peer):
        with in_thread(lambda: received.append(receive_all(peer))), duplicate(transport) as sock:

            async def operation():
                file.seek(0)
                try:
                    if on_transport:
                        await loop.sendfile(transport, file, 0, 300_000)
                    else:
                        await loop.sock_sendfile(sock, file, 0, 300_000)
                finally:
                    positions.append(file.tell())

            assert await interrupt_everywhere(operation, moment)
            assert transport.is_reading()
            transport.write_eof()
    assert received == [b"".join(CONTENT[:position] for position in positions)]


async def test_a_peer_that_never_reads_holds_nobody_else(loop, file):
    async with connection(loop, small=True) as (transport, _, _), connection(loop) as (other, _, peer):
        task = asyncio.create_task(loop.sendfile(transport, file))
        other.write(b"alive")
        assert await loop.run_in_executor(None, receive_exactly, peer, 5) == b"alive"
        await until_it_sends_no_more(loop)
        assert not task.done()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await task


async def test_a_fast_peer_does_not_starve_the_loop(loop, is_aioxide, tmp_path):
    if not is_aioxide:
        pytest.skip("asyncio sends as much at once as the peer takes")
    size = 64 << 20
    with (tmp_path / "sparse").open("w+b") as file:
        file.truncate(size)
        turns = 0

        def count():
            nonlocal turns
            turns += 1
            if not task.done():
                loop.call_soon(count)

        async with connection(loop) as (transport, _, peer):
            with in_thread(receive_exactly, peer, size):
                task = asyncio.create_task(loop.sendfile(transport, file))
                loop.call_soon(count)
                assert await task == size
                await asyncio.sleep(0)
    assert turns >= size // PIECE


# Connections that end.


async def test_a_peer_that_resets_ends_the_file(loop, file):
    async with connection(loop, small=True) as (transport, protocol, peer):
        task = asyncio.create_task(loop.sendfile(transport, file))
        received = await loop.run_in_executor(None, receive_exactly, peer, 100_000)
        reset(peer)
        with pytest.raises(ConnectionError):
            await task
        assert received == CONTENT[:100_000]
        assert 100_000 <= file.tell() < SIZE
        await asyncio.wait_for(asyncio.shield(protocol.lost), 10)
        assert transport.is_closing()


async def test_a_peer_that_resets_ends_the_file_of_a_socket(loop, file):
    with connected_pair() as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        task = asyncio.create_task(loop.sock_sendfile(ours, file))
        await loop.run_in_executor(None, receive_exactly, theirs, 100_000)
        reset(theirs)
        with pytest.raises(ConnectionError):
            await task
        assert 100_000 <= file.tell() < SIZE


async def test_a_peer_that_resets_ends_the_fallback(loop):
    file = io.BytesIO(CONTENT * 4)
    async with connection(loop, small=True) as (transport, protocol, peer):
        task = asyncio.create_task(loop.sendfile(transport, file))
        await loop.run_in_executor(None, receive_exactly, peer, 100_000)
        reset(peer)
        with pytest.raises(ConnectionError):
            await task
        await asyncio.wait_for(asyncio.shield(protocol.lost), 10)
        assert protocol.calls[-1] == "connection_lost"


async def test_aborting_ends_the_file(loop, is_aioxide, file):
    if not is_aioxide:
        pytest.skip("with asyncio the file waits for ever")
    async with connection(loop, small=True) as (transport, _, _):
        task = asyncio.create_task(loop.sendfile(transport, file))
        await until_it_sends_no_more(loop)
        transport.abort()
        with pytest.raises(ConnectionError):
            await task
        assert 0 < file.tell() < SIZE


@pytest.mark.parametrize("method", ["close", "write_eof"])
@pytest.mark.parametrize("earlier", [0, 5_000_000])
async def test_closing_waits_for_the_file(loop, is_aioxide, file, method, earlier):
    if not is_aioxide:
        pytest.skip("with asyncio the file breaks off, or waits for ever")
    received: list[bytes] = []
    async with connection(loop, small=True) as (transport, protocol, peer):
        transport.write(bytes(earlier))
        task = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0.01)
        getattr(transport, method)()
        assert transport.is_closing() == (method == "close")
        with in_thread(lambda: received.append(receive_all(peer))):
            assert await task == SIZE
            if method == "close":
                assert await protocol.lost is None
    assert received == [bytes(earlier) + CONTENT]


async def test_a_file_cancelled_on_a_closing_connection_lets_it_close(loop, is_aioxide, file):
    if not is_aioxide:
        pytest.skip("asyncio closes at once, and the file waits for ever")
    async with connection(loop, small=True) as (transport, protocol, _):
        task = asyncio.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0.01)
        transport.close()
        await asyncio.sleep(0.01)
        assert not protocol.lost.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await protocol.lost is None


async def test_a_file_that_shrinks_meanwhile_ends_early(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    received: list[bytes] = []
    with path.open("rb") as file:
        async with connection(loop, small=True) as (transport, _, peer):
            task = asyncio.create_task(loop.sendfile(transport, file))
            await until_it_sends_no_more(loop)
            os.truncate(path, 1)
            with in_thread(lambda: received.append(receive_all(peer))):
                sent = await task
                transport.write_eof()
                await asyncio.sleep(0)
        assert 0 < sent < SIZE
        assert file.tell() == sent
    assert len(received[0]) == sent


async def test_a_file_that_grows_meanwhile_is_sent_to_its_end(loop, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    received: list[bytes] = []
    with path.open("rb") as file:
        async with connection(loop, small=True) as (transport, _, peer):
            task = asyncio.create_task(loop.sendfile(transport, file))
            await until_it_sends_no_more(loop)
            with path.open("ab") as end:
                end.write(b"and more")
            with in_thread(lambda: received.append(receive_exactly(peer, SIZE + 8))):
                assert await task == SIZE + 8
    assert received == [CONTENT + b"and more"]


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"offset": -1}, ValueError),
        ({"offset": "1"}, TypeError),
        ({"offset": 1.0}, TypeError),
        ({"count": 0}, ValueError),
        ({"count": -1}, ValueError),
        ({"count": 1.0}, TypeError),
        ({"count": "1"}, TypeError),
    ],
    ids=str,
)
async def test_wrong_ranges_are_refused_and_change_nothing(loop, file, arguments, error):
    async with connection(loop) as (transport, _, peer):
        with pytest.raises(error):
            await loop.sendfile(transport, file, **arguments)
        assert transport.is_reading()
        transport.write(b"usable")
        assert await loop.run_in_executor(None, receive_exactly, peer, 6) == b"usable"
    with connected_pair() as (ours, _), pytest.raises(error):
        await loop.sock_sendfile(ours, file, **arguments)
    assert file.tell() == 0


async def test_text_files_are_refused(loop, path):
    with path.open(encoding="latin-1") as text, connected_pair() as (ours, _):
        async with connection(loop) as (transport, _, _):
            with pytest.raises(ValueError, match="binary"):
                await loop.sendfile(transport, text)
            assert transport.is_reading()
        with pytest.raises(ValueError, match="binary"):
            await loop.sock_sendfile(ours, text)


async def test_closed_files_are_refused(loop, path):
    file = path.open("rb")
    file.close()
    async with connection(loop) as (transport, _, _):
        with pytest.raises(ValueError, match="closed"):
            await loop.sendfile(transport, file)
        assert transport.is_reading()


async def test_closing_connections_are_refused(loop, file):
    async with connection(loop) as (transport, _, _):
        transport.close()
        with pytest.raises(RuntimeError, match="closing"):
            await loop.sendfile(transport, file)
    assert file.tell() == 0


async def test_pipes_are_refused(loop, file):
    reading, writing = os.pipe()
    with open(reading, "rb") as reader:
        pipe = open(writing, "wb", buffering=0)  # noqa: SIM115
        transport, protocol = await loop.connect_write_pipe(lambda: Recorder(loop), pipe)
        with pytest.raises(RuntimeError, match="not supported"):
            await loop.sendfile(transport, file)
        transport.close()
        await protocol.lost
        await asyncio.sleep(0)
        assert reader.read() == b""


async def test_sockets_that_are_no_streams_are_refused(loop, file):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        with pytest.raises(ValueError, match="SOCK_STREAM"):
            await loop.sock_sendfile(datagrams, file)


async def test_blocking_sockets_are_refused_in_debug_mode(loop, file):
    loop.set_debug(True)
    with connected_pair() as (_, theirs), pytest.raises(ValueError, match="non-blocking"):
        await loop.sock_sendfile(theirs, file)


async def test_the_socket_of_a_transport_is_not_sent_on_behind_its_back(loop, file):
    async with connection(loop, small=True) as (transport, _, _):
        with pytest.raises(RuntimeError, match="used by transport"):
            await loop.sock_sendfile(transport.get_extra_info("socket"), file)


# Streams.


@pytest.mark.parametrize("in_memory", [False, True])
async def test_a_stream_writer_goes_on_after_a_file(loop, is_aioxide, path, in_memory):
    if in_memory and not is_aioxide:
        pytest.skip("asyncio sends something else where the kernel is full")
    received: list[bytes] = []
    with connected_pair() as (ours, theirs):
        reader, writer = await asyncio.open_connection(sock=ours)
        with (
            io.BytesIO(CONTENT) if in_memory else path.open("rb") as file,
            in_thread(lambda: received.append(receive_all(theirs))),
        ):
            for _ in range(3):
                file.seek(0)
                writer.write(b"head")
                await writer.drain()
                assert await loop.sendfile(writer.transport, file) == SIZE
                writer.write(b"tail" * 50_000)
                await writer.drain()
            writer.close()
            await writer.wait_closed()
    assert received == [(b"head" + CONTENT + b"tail" * 50_000) * 3]
    assert await reader.read() == b""


async def test_a_protocol_is_paused_while_the_end_of_a_file_waits(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio resumes a protocol that it did not pause")
    if sys.version_info >= (3, 14):
        pytest.skip("asyncio's fallback, which is ours, waits for the end to leave")
    async with connection(loop) as (transport, protocol, peer):
        with duplicate(transport) as ours:
            taken = until_it_blocks(ours.send, bytes(4096))
        transport.set_write_buffer_limits(high=1000, low=0)
        assert await loop.sendfile(transport, io.BytesIO(bytes(5000))) == 5000
        assert protocol.calls == ["connection_made", "pause_writing"]
        with in_thread(receive_exactly, peer, taken + 5000):
            await protocol.writable.wait()
        assert protocol.calls == ["connection_made", "pause_writing", "resume_writing"]


async def test_a_paused_protocol_stays_paused_until_there_is_room(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio resumes a protocol that has to wait")
    async with connection(loop) as (transport, protocol, peer):
        transport.set_write_buffer_limits(high=1000, low=0)
        with duplicate(transport) as ours:
            taken = until_it_blocks(ours.send, bytes(4096))
        transport.write(bytes(2000))
        assert protocol.calls == ["connection_made", "pause_writing"]
        task = asyncio.create_task(loop.sendfile(transport, io.BytesIO(bytes(5000))))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with in_thread(receive_exactly, peer, taken + 2000):
            async with asyncio.timeout(20):
                while transport.get_write_buffer_size():
                    await asyncio.sleep(0.001)
        assert protocol.calls.count("pause_writing") == protocol.calls.count("resume_writing")
        assert protocol.calls[-1] == "resume_writing"
