"""add_reader, add_writer and their removal."""

from __future__ import annotations

import asyncio
import os
import socket
import weakref

import pytest
from peers import until_it_blocks


@pytest.fixture
def pair():
    """Two connected sockets that do not block."""
    first, second = socket.socketpair()
    first.setblocking(False)
    second.setblocking(False)
    with first, second:
        yield first, second


async def test_a_reader_is_called_while_there_is_something_to_read(loop, pair):
    first, second = pair
    calls: list[tuple] = []
    done = loop.create_future()

    def read(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            done.set_result(first.recv(10))

    loop.add_reader(first, read, 1, "two")
    await asyncio.sleep(0.005)
    assert calls == []
    second.send(b"data")
    assert await done == b"data"
    await asyncio.sleep(0.005)
    assert calls == [(1, "two")] * 3
    assert loop.remove_reader(first) is True
    assert loop.remove_reader(first) is False


async def test_what_is_sent_reaches_a_reader_within_a_few_turns(loop, pair):
    """Programs count on that which give way with sleep(0): the loop always has something to run then."""
    first, second = pair
    received: list[bytes] = []
    loop.add_reader(first, lambda: received.append(first.recv(10)))
    await asyncio.sleep(0.001)
    turns = []
    for number in range(6):
        second.send(b"%d" % number)
        turns.append(0)
        while len(received) <= number and turns[-1] < 100:
            await asyncio.sleep(0)
            turns[-1] += 1
    assert max(turns) <= 5, turns
    loop.remove_reader(first)


async def test_the_port_of_a_socket_that_was_watched_can_be_taken_at_once(loop):
    """Also where the kernel itself watches, and has to be told that nobody wants to know any more."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = listening.getsockname()
        loop.add_reader(listening, int)
        await asyncio.sleep(0.001)
        loop.remove_reader(listening)
    with socket.socket() as again:
        again.bind(address)


async def test_a_writer_is_called_while_there_is_room(loop, pair):
    first, _ = pair
    calls: list[tuple] = []
    done = loop.create_future()

    def write(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            loop.remove_writer(first)
            done.set_result(None)

    loop.add_writer(first, write, 1)
    await done
    await asyncio.sleep(0.005)
    assert calls == [(1,)] * 3
    assert loop.remove_writer(first) is False


async def test_a_writer_waits_until_a_full_socket_drains(loop, pair):
    first, second = pair
    until_it_blocks(first.send, bytes(65536))
    writable = asyncio.Event()
    loop.add_writer(first, writable.set)
    await asyncio.sleep(0.01)
    assert not writable.is_set()
    until_it_blocks(second.recv, 65536)
    async with asyncio.timeout(5):
        await writable.wait()
    loop.remove_writer(first)


async def test_reader_and_writer_of_one_file_are_independent(loop, pair):
    first, second = pair
    readable, writable = asyncio.Event(), asyncio.Event()
    loop.add_reader(first, readable.set)
    loop.add_writer(first, writable.set)
    await writable.wait()
    assert not readable.is_set()
    assert loop.remove_writer(first) is True
    second.send(b"x")
    async with asyncio.timeout(5):
        await readable.wait()
    assert loop.remove_reader(first) is True


async def test_a_second_callback_replaces_the_first(loop, pair):
    first, second = pair
    called = loop.create_future()

    def never():
        raise AssertionError("replaced")

    def read():
        first.recv(1)
        called.set_result("second")

    loop.add_reader(first, never)
    loop.add_reader(first, read)
    second.send(b"x")
    assert await called == "second"
    loop.remove_reader(first)


async def test_a_removed_reader_is_not_called_even_when_ready(loop, pair):
    first, second = pair
    called: list[str] = []
    loop.add_reader(first, called.append, "removed")
    second.send(b"x")
    loop.remove_reader(first)
    await asyncio.sleep(0.01)
    assert called == []


async def test_a_reader_added_again_sees_what_is_still_there(loop, pair):
    first, second = pair
    second.send(b"x")
    for _ in range(3):
        readable = asyncio.Event()
        loop.add_reader(first, readable.set)
        async with asyncio.timeout(5):
            await readable.wait()
        loop.remove_reader(first)


async def test_a_hang_up_makes_a_file_readable(loop, pair):
    first, second = pair
    readable = asyncio.Event()
    loop.add_reader(first, readable.set)
    second.close()
    async with asyncio.timeout(5):
        await readable.wait()
    loop.remove_reader(first)


async def test_a_hang_up_is_seen_by_a_writer(loop):
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    until_it_blocks(os.write, write_end, bytes(65536))
    writable = asyncio.Event()
    loop.add_writer(write_end, writable.set)
    os.close(read_end)
    async with asyncio.timeout(5):
        await writable.wait()
    loop.remove_writer(write_end)
    os.close(write_end)


async def test_pipes_can_be_watched(loop):
    read_end, write_end = os.pipe()
    received = loop.create_future()
    loop.add_reader(read_end, lambda: received.set_result(os.read(read_end, 10)))
    os.write(write_end, b"pipe")
    assert await received == b"pipe"
    loop.remove_reader(read_end)
    os.close(read_end)
    os.close(write_end)


async def test_numbers_and_objects_mean_the_same_file(loop, pair):
    first, _ = pair
    loop.add_reader(first, int)
    assert loop.remove_reader(first.fileno()) is True
    loop.add_writer(first.fileno(), int)
    assert loop.remove_writer(first) is True


async def test_a_number_used_again_by_a_new_file_starts_afresh(loop):
    for _ in range(20):
        first, second = socket.socketpair()
        with first, second:
            readable = asyncio.Event()
            loop.add_reader(first, readable.set)
            second.send(b"x")
            async with asyncio.timeout(5):
                await readable.wait()
            loop.remove_reader(first)


async def test_many_files_at_once(loop):
    pairs = [socket.socketpair() for _ in range(500)]
    received: set[int] = set()
    done = loop.create_future()

    def read(number):
        pairs[number][0].recv(1)
        received.add(number)
        if len(received) == len(pairs):
            done.set_result(None)

    for number, (first, _) in enumerate(pairs):
        loop.add_reader(first, read, number)
    for _, second in pairs:
        second.send(b"x")
    async with asyncio.timeout(10):
        await done
    for first, second in pairs:
        assert loop.remove_reader(first)
        first.close()
        second.close()


@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
@pytest.mark.parametrize("wrong", ["text", None, object(), -1])
def test_what_is_no_file_is_refused(loop, method, wrong):
    arguments = (int,) if method.startswith("add") else ()
    with pytest.raises((ValueError, TypeError)):
        getattr(loop, method)(wrong, *arguments)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_closed_file_is_refused(loop, method):
    first, second = socket.socketpair()
    number = first.fileno()
    first.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        getattr(loop, method)(number, int)
    with pytest.raises(ValueError, match="Invalid file"):
        getattr(loop, method)(first, int)
    second.close()


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_regular_file_cannot_be_watched(loop, method, tmp_path):
    with open(tmp_path / "file", "w+b") as file, pytest.raises(PermissionError):
        getattr(loop, method)(file, int)


async def test_the_socket_of_a_transport_cannot_be_watched(loop, pair):
    first, _ = pair
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=first)
    for method in (loop.add_reader, loop.add_writer):
        with pytest.raises(RuntimeError, match="is used by transport"):
            method(first.fileno(), int)
    for method in (loop.remove_reader, loop.remove_writer):
        with pytest.raises(RuntimeError, match="is used by transport"):
            method(first.fileno())
    transport.close()
    await asyncio.sleep(0.001)


@pytest.mark.parametrize("side", ["reader", "writer"])
async def test_a_file_closed_while_it_is_watched_is_still_found(loop, side):
    add, remove = (getattr(loop, f"{verb}_{side}") for verb in ("add", "remove"))
    first, second = socket.socketpair()
    add(first, int)
    first.close()
    assert remove(first) is True
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        remove(first)
    with second:  # nothing holds the closed end any more
        second.settimeout(20)
        await asyncio.sleep(0)
        assert second.recv(1) == b""


async def test_a_watched_file_is_kept_open(loop):
    first, second = socket.socketpair()
    called = loop.create_future()
    loop.add_reader(first, lambda: called.done() or called.set_result(None))
    kept = weakref.ref(first)
    del first
    with second:
        second.send(b"to nobody's variable")
        await called
    with kept() as first:
        assert loop.remove_reader(first) is True


def test_a_closed_loop_watches_nothing(loop, pair):
    first, _ = pair
    loop.add_reader(first, int)
    loop.close()
    assert loop.remove_reader(first) is False
    assert loop.remove_writer(first) is False
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(first, int)


def test_watchers_left_at_close_are_released(loop, pair):
    import gc
    import weakref

    class Callback:
        def __call__(self):
            """Never called."""

    callback = Callback()
    alive = weakref.ref(callback)
    loop.add_reader(pair[0], callback)
    loop.close()
    del callback
    gc.collect()
    assert alive() is None
