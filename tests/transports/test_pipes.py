"""connect_read_pipe and connect_write_pipe on all they accept: pipes, FIFOs, sockets, terminals, devices."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import pty
import socket
import subprocess
import sys
import threading
import tty
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from peers import in_thread, until_it_blocks
from recorder import BufferedRecorder, Recorder

Ends = tuple[int, int]


def make_pipe(_folder) -> Ends:
    """(reading end, writing end) of a pipe."""
    return os.pipe()


def make_fifo(folder) -> Ends:
    """(reading end, writing end) of a named pipe."""
    path = folder / "fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY)
    os.set_blocking(reading, True)
    return reading, writing


def make_sockets(_folder) -> Ends:
    """(reading end, writing end): two connected sockets."""
    first, second = socket.socketpair()
    return first.detach(), second.detach()


def make_terminal(_folder) -> Ends:
    """(controlling end, terminal) of a terminal that changes nothing of what passes."""
    controller, terminal = pty.openpty()
    tty.setraw(terminal)
    return controller, terminal


def make_keyboard(folder) -> Ends:
    """(terminal, controlling end): the other way round."""
    controller, terminal = make_terminal(folder)
    return terminal, controller


ONE_WAY = {"pipe": make_pipe, "fifo": make_fifo, "sockets": make_sockets}
ALL = {**ONE_WAY, "terminal": make_terminal, "keyboard": make_keyboard}


@pytest.fixture(params=ALL)
def ends(request, tmp_path) -> Iterator[Ends]:
    """(reading end, writing end), as numbers, of everything; a test that takes one over marks it."""
    yield from opened(ALL[request.param], tmp_path)


@pytest.fixture(params=ONE_WAY)
def one_way(request, tmp_path) -> Iterator[Ends]:
    """(reading end, writing end) of what has an end of file."""
    yield from opened(ONE_WAY[request.param], tmp_path)


@pytest.fixture
def terminal(tmp_path) -> Iterator[Ends]:
    """(controlling end, terminal)."""
    yield from opened(make_terminal, tmp_path)


def opened(make: Callable[[Any], Ends], folder) -> Iterator[Ends]:
    numbers = make(folder)
    identities = [identity(number) for number in numbers]
    yield numbers
    for number, before in zip(numbers, identities, strict=True):
        if identity(number) == before:
            os.close(number)


def identity(number: int) -> tuple[int, int] | None:
    """Tell one open file from another that has its number."""
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_open(number: int) -> bool:
    return identity(number) is not None


async def connect_reading(loop, number: int, protocol: Any = None) -> tuple[Any, Any]:
    protocol = protocol or PipeRecorder(loop)
    return await loop.connect_read_pipe(lambda: protocol, open(number, "rb", buffering=0))


async def connect_writing(loop, number: int, protocol: Any = None) -> tuple[Any, Any]:
    protocol = protocol or PipeRecorder(loop)
    return await loop.connect_write_pipe(lambda: protocol, open(number, "wb", buffering=0))


class PipeRecorder(Recorder):
    """A Recorder that also tells how much of a pipe's life the transport had behind it at the end of file."""

    was_closing: bool | None = None

    def eof_received(self) -> bool:
        self.was_closing = self.transport.is_closing()
        return super().eof_received()


def read_exactly(number: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.read(number, min(count, 1 << 16))
        if not part:
            raise EOFError(f"{count} bytes are missing")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


# Reading.


async def test_what_is_written_is_read_in_order(loop, ends):
    reading, writing = ends
    transport, protocol = await connect_reading(loop, reading)
    data = os.urandom(1 << 20)
    with in_thread(write_all, writing, data):
        async with asyncio.timeout(20):
            assert await protocol.received(len(data)) == data
    assert transport.is_reading()
    transport.close()
    assert await protocol.lost is None
    assert protocol.calls == ["connection_made", "data_received", "connection_lost"]
    assert not is_open(reading)


async def test_the_end_of_a_pipe_closes_its_transport(loop, one_way):
    reading, writing = one_way
    transport, protocol = await connect_reading(loop, reading)
    os.write(writing, b"last words")
    os.close(writing)
    assert await protocol.lost is None
    assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
    assert protocol.data == b"last words"
    assert protocol.was_closing
    assert transport.is_closing()
    assert not transport.is_reading()
    await asyncio.sleep(0)
    assert not is_open(reading)
    transport.close()


async def test_an_end_of_file_ends_a_pipe_whatever_the_protocol_answers(loop, one_way):
    reading, writing = one_way
    _, protocol = await connect_reading(loop, reading, PipeRecorder(loop, keep_open_on_eof=True))
    os.close(writing)
    assert await protocol.lost is None


async def test_a_pipe_is_made_non_blocking_and_is_at_hand(loop, ends):
    reading, writing = ends
    reader, first = await connect_reading(loop, reading)
    writer, second = await connect_writing(loop, writing)
    for transport, number in ((reader, reading), (writer, writing)):
        assert not os.get_blocking(number)
        assert transport.get_extra_info("pipe").fileno() == number
        assert transport.get_extra_info("socket", "nothing") == "nothing"
        assert transport.get_extra_info("peername") is None
        assert not transport.is_closing()
        transport.close()
    await asyncio.gather(first.lost, second.lost)


async def test_a_mock_in_place_of_asyncios_get_extra_info_is_asked_of_pipes(loop, one_way):
    reading, writing = one_way
    reader, first = await connect_reading(loop, reading)
    writer, second = await connect_writing(loop, writing)
    with mock.patch("asyncio.BaseTransport.get_extra_info", return_value="mocked") as asked:
        assert (reader.get_extra_info("pipe"), writer.get_extra_info("pipe")) == ("mocked", "mocked")
        asked.assert_has_calls([mock.call("pipe"), mock.call("pipe")])
    writer.close()
    await asyncio.gather(first.lost, second.lost)


async def test_transports_of_pipes_are_asyncios(loop, one_way):
    reading, writing = one_way
    reader, first = await connect_reading(loop, reading)
    writer, second = await connect_writing(loop, writing)
    assert isinstance(reader, asyncio.ReadTransport)
    assert not isinstance(reader, asyncio.WriteTransport)
    assert isinstance(writer, asyncio.WriteTransport)
    for method in ("is_reading", "pause_reading", "resume_reading"):
        with pytest.raises(NotImplementedError):
            getattr(writer, method)()
    with pytest.raises(AttributeError):
        reader.write(b"x")
    with pytest.raises(AttributeError):
        reader.writelines([b"x"])
    with pytest.raises(AttributeError):
        reader.write_eof()
    assert reader.get_protocol() is first
    assert writer.get_protocol() is second
    writer.close()
    await asyncio.gather(first.lost, second.lost)


async def test_nothing_is_read_while_reading_is_paused(loop, ends):
    reading, writing = ends
    transport, protocol = await connect_reading(loop, reading)
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    os.write(writing, b"held back")
    await asyncio.sleep(0.02)
    assert protocol.data == b""
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    assert await protocol.received(9) == b"held back"
    transport.close()
    await protocol.lost


async def test_an_end_of_file_waits_for_a_paused_reader(loop, one_way):
    reading, writing = one_way
    transport, protocol = await connect_reading(loop, reading)
    transport.pause_reading()
    os.write(writing, b"held back")
    os.close(writing)
    await asyncio.sleep(0.02)
    assert protocol.calls == ["connection_made"]
    transport.resume_reading()
    await protocol.lost
    assert protocol.data == b"held back"


async def test_a_protocol_can_be_paused_from_its_first_call(loop, one_way):
    reading, writing = one_way
    os.write(writing, b"early")

    class Paused(PipeRecorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    transport, protocol = await connect_reading(loop, reading, Paused(loop))
    await asyncio.sleep(0.02)
    assert protocol.data == b""
    transport.resume_reading()
    assert await protocol.received(5) == b"early"
    transport.close()
    await protocol.lost


async def test_another_protocol_takes_over(loop, one_way):
    reading, writing = one_way
    transport, first = await connect_reading(loop, reading)
    os.write(writing, b"one")
    assert await first.received(3) == b"one"
    second = Recorder(loop)
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    os.write(writing, b"two")
    assert await second.received(3) == b"two"
    os.close(writing)
    await second.lost
    assert first.calls == ["connection_made", "data_received"]


async def test_a_failing_protocol_is_reported_and_the_pipe_is_read_on(loop, one_way, reported):
    reading, writing = one_way

    class Failing(PipeRecorder):
        def data_received(self, data):
            super().data_received(data)
            raise LookupError(bytes(data))

    transport, protocol = await connect_reading(loop, reading, Failing(loop))
    for word in (b"one", b"two"):
        os.write(writing, word)
        await protocol.received(len(protocol.data) + 3)
    assert protocol.data == b"onetwo"
    await asyncio.sleep(0)
    assert [context["exception"].args for context in reported] == [(b"one",), (b"two",)]
    reported.clear()
    assert not transport.is_closing()
    transport.close()
    await protocol.lost


async def test_a_protocol_that_fails_at_the_end_of_file_is_reported(loop, one_way, reported):
    reading, writing = one_way

    class Failing(PipeRecorder):
        def eof_received(self):
            super().eof_received()
            raise LookupError("eof")

    _, protocol = await connect_reading(loop, reading, Failing(loop))
    os.close(writing)
    assert await protocol.lost is None
    assert [context["exception"].args for context in reported] == [("eof",)]
    reported.clear()


async def test_closing_twice_is_closing_once(loop, one_way):
    reading, writing = one_way
    for connect, number in ((connect_reading, reading), (connect_writing, writing)):
        transport, protocol = await connect(loop, number)
        transport.close()
        transport.close()
        assert transport.is_closing()
        await protocol.lost
        await asyncio.sleep(0)
        transport.close()
        assert protocol.calls == ["connection_made", "connection_lost"]


async def test_a_buffered_protocol_reads_into_its_own_memory(loop, is_aioxide, one_way):
    if not is_aioxide:
        pytest.skip("asyncio's pipes know no BufferedProtocol")
    reading, writing = one_way
    _, protocol = await connect_reading(loop, reading, BufferedRecorder(loop, 7))
    os.write(writing, b"seven at a time")
    assert await protocol.received(15) == b"seven at a time"
    assert protocol.counts == [7, 7, 1]
    os.close(writing)
    await protocol.lost


# Writing.


async def test_what_a_transport_writes_arrives_in_order(loop, ends):
    reading, writing = ends
    transport, protocol = await connect_writing(loop, writing)
    data = os.urandom(1 << 20)
    received: list[bytes] = []
    with in_thread(lambda: received.append(read_exactly(reading, len(data)))):
        transport.write(data[:10])
        transport.writelines([data[10:20], bytearray(data[20:30]), memoryview(data)[30:40]])
        transport.write(memoryview(data)[40:])
        async with asyncio.timeout(20):
            await protocol.writable.wait()
            while transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
    assert received == [data]
    transport.close()
    assert await protocol.lost is None
    assert protocol.calls[-1] == "connection_lost"


@pytest.mark.parametrize("method", ["close", "write_eof"])
async def test_closing_lets_everything_leave_first(loop, one_way, method):
    reading, writing = one_way
    transport, protocol = await connect_writing(loop, writing)
    assert transport.can_write_eof()
    data = os.urandom(1 << 20)
    transport.write(data)
    getattr(transport, method)()
    assert transport.is_closing()
    transport.write(b"too late")
    received: list[bytes] = []
    with in_thread(lambda: received.append(b"".join(iter(lambda: os.read(reading, 1 << 16), b"")))):
        async with asyncio.timeout(20):
            assert await protocol.lost is None
        await asyncio.sleep(0)
        assert not is_open(writing)
    assert received == [data]


async def test_abort_drops_what_has_not_left(loop, one_way):
    reading, writing = one_way
    transport, protocol = await connect_writing(loop, writing)
    taken = until_it_blocks(os.write, writing, b"x" * 4096)
    transport.write(b"y" * 100_000)
    transport.abort()
    assert await protocol.lost is None
    await asyncio.sleep(0)
    assert len(read_exactly(reading, taken)) == taken
    assert os.read(reading, 1) == b""


async def test_a_full_pipe_pauses_its_protocol(loop, one_way):
    reading, writing = one_way
    transport, protocol = await connect_writing(loop, writing)
    transport.set_write_buffer_limits(high=1000, low=100)
    taken = until_it_blocks(os.write, writing, b"x" * 4096)
    transport.write(b"y" * 1001)
    assert protocol.calls[-1] == "pause_writing"
    assert transport.get_write_buffer_size() == 1001
    read_exactly(reading, taken)
    async with asyncio.timeout(20):
        await protocol.writable.wait()
    assert read_exactly(reading, 1001) == b"y" * 1001
    transport.close()
    await protocol.lost


async def test_a_reader_that_goes_away_is_noticed_at_once(loop, one_way):
    reading, writing = one_way
    transport, protocol = await connect_writing(loop, writing)
    os.close(reading)
    assert await protocol.lost is None
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert not is_open(writing)


async def test_a_reader_that_goes_away_with_bytes_unread_breaks_the_pipe(loop, one_way):
    reading, writing = one_way
    transport, protocol = await connect_writing(loop, writing)
    until_it_blocks(os.write, writing, b"x" * 4096)
    transport.write(b"nobody will read this")
    os.close(reading)
    assert isinstance(await protocol.lost, (BrokenPipeError, ConnectionResetError))


async def test_a_reader_that_goes_away_while_the_writer_closes_breaks_the_pipe(loop, one_way):
    reading, writing = one_way
    transport, protocol = await connect_writing(loop, writing)
    until_it_blocks(os.write, writing, b"x" * 4096)
    transport.write(b"nobody will read this")
    transport.close()
    os.close(reading)
    assert isinstance(await protocol.lost, (BrokenPipeError, ConnectionResetError))


async def test_writing_to_nobody_breaks_the_pipe_and_is_logged_when_it_goes_on(loop, caplog):
    reading, writing = os.pipe()
    transport, protocol = await connect_writing(loop, writing)
    os.close(reading)
    transport.write(b"x" * 10_000)
    assert isinstance(await protocol.lost, BrokenPipeError)
    for _ in range(10):
        transport.write(b"x")
    assert "pipe closed by peer" in caplog.text


async def test_a_fifo_ends_when_its_last_writer_goes(loop, tmp_path):
    reading, first = make_fifo(tmp_path)
    second = os.open(tmp_path / "fifo", os.O_WRONLY)
    _, protocol = await connect_reading(loop, reading)
    os.write(first, b"one")
    os.close(first)
    assert await protocol.received(3) == b"one"
    await asyncio.sleep(0.01)
    assert not protocol.eof.done()
    os.write(second, b"two")
    os.close(second)
    await protocol.lost
    assert protocol.data == b"onetwo"


async def test_a_fifo_opened_both_ways_never_ends(loop, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    both = os.open(tmp_path / "fifo", os.O_RDWR)
    transport, protocol = await connect_reading(loop, both)
    for word in (b"one", b"two"):
        writer = os.open(tmp_path / "fifo", os.O_WRONLY)
        os.write(writer, word)
        os.close(writer)
        await protocol.received(len(protocol.data) + 3)
    assert protocol.data == b"onetwo"
    assert not protocol.eof.done()
    transport.close()
    await protocol.lost


# Terminals and other devices.


async def test_a_terminal_hangs_up_with_eio(loop, terminal):
    controller, end = terminal
    transport, protocol = await connect_reading(loop, controller)
    os.write(end, b"last words")
    assert await protocol.received(10) == b"last words"
    os.close(end)
    error = await protocol.lost
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO
    assert not protocol.eof.done()
    assert transport.is_closing()


async def test_typing_does_not_disturb_who_writes_to_a_terminal(loop, terminal):
    controller, end = terminal
    transport, protocol = await connect_writing(loop, end)
    os.write(controller, b"typed")
    await asyncio.sleep(0.01)
    assert not transport.is_closing()
    transport.write(b"shown")
    assert await loop.run_in_executor(None, read_exactly, controller, 5) == b"shown"
    assert os.read(end, 5) == b"typed"
    transport.close()
    assert await protocol.lost is None


async def test_a_terminal_is_read_and_written_through_one_descriptor(loop, terminal):
    controller, end = terminal
    pipe = open(controller, "r+b", buffering=0)  # noqa: SIM115
    reader, incoming = await loop.connect_read_pipe(lambda: PipeRecorder(loop), pipe)
    writer, outgoing = await loop.connect_write_pipe(lambda: PipeRecorder(loop), pipe)
    for _ in range(3):
        writer.write(b"question")
        assert await loop.run_in_executor(None, read_exactly, end, 8) == b"question"
        os.write(end, b"answer")
        await incoming.received(len(incoming.data) + 6)
    assert incoming.data == b"answer" * 3
    reader.close()
    await incoming.lost
    writer.close()
    await outgoing.lost


async def test_lines_of_a_terminal_arrive_one_by_one(loop):
    controller, end = pty.openpty()
    try:
        _transport, protocol = await connect_reading(loop, end)
        os.write(controller, b"one\ntwo")
        assert await protocol.received(4) == b"one\n"
        await asyncio.sleep(0.01)
        assert protocol.data == b"one\n"
        os.write(controller, b"\n\x04")  # and the end of file as one types it
        await protocol.lost
        assert protocol.data == b"one\ntwo\n"
        assert protocol.calls[-2:] == ["eof_received", "connection_lost"]
    finally:
        os.close(controller)


async def test_a_device_that_swallows_is_written(loop):
    transport, protocol = await connect_writing(loop, os.open(os.devnull, os.O_WRONLY))
    transport.write(b"small")
    transport.write(bytes(1 << 20))
    assert transport.get_write_buffer_size() == 0
    transport.close()
    assert await protocol.lost is None


async def test_a_full_device_ends_the_connection_with_its_error(loop):
    transport, protocol = await connect_writing(loop, os.open("/dev/full", os.O_WRONLY))
    transport.write(b"x")
    error = await protocol.lost
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC


async def test_the_empty_device_ends_at_once(loop, is_aioxide, reported):
    """asyncio cannot poll it: the error goes to the exception handler and the end of file never comes."""
    transport, protocol = await connect_reading(loop, os.open(os.devnull, os.O_RDONLY))
    if is_aioxide:
        assert await protocol.lost is None
        assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]
        return
    assert [type(context["exception"]) for context in reported] == [PermissionError]
    reported.clear()
    transport.close()
    await protocol.lost


async def test_an_endless_device_is_read_without_starving_the_loop(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio cannot read what epoll refuses")
    transport, protocol = await connect_reading(loop, os.open("/dev/zero", os.O_RDONLY))
    await protocol.received(1 << 20)
    for _ in range(5):  # each pause and resume must leave one chain of reads
        transport.pause_reading()
        transport.resume_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    await asyncio.sleep(0)
    size = len(protocol.data)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(protocol.data) == size
    transport.resume_reading()
    await protocol.received(size + 1)
    size = len(protocol.data)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(protocol.data) <= size + 4 * 256 * 1024
    transport.close()
    assert await protocol.lost is None


# What is refused, and what is left behind.


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
async def test_a_regular_file_is_refused_and_left_open(loop, tmp_path, method):
    with (tmp_path / "file").open("w+b") as file:
        with pytest.raises(ValueError, match="ipe transport is"):
            await getattr(loop, method)(lambda: Recorder(loop), file)
        assert not file.closed
        assert os.get_blocking(file.fileno())
        file.write(b"still there")


# asyncio's half-made transport cannot be deleted without an error.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
async def test_a_closed_pipe_is_refused(loop, method):
    reading, writing = os.pipe()
    os.close(writing)
    pipe = open(reading, "rb")  # noqa: SIM115
    pipe.close()
    with pytest.raises(ValueError, match="closed"):
        await getattr(loop, method)(lambda: Recorder(loop), pipe)


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
async def test_a_cancelled_connect_closes_the_pipe(loop, method):
    reading, writing = os.pipe()
    number, mode, other = (
        (reading, "rb", writing) if method == "connect_read_pipe" else (writing, "wb", reading)
    )
    protocol = Recorder(loop)
    pipe = open(number, mode, buffering=0)  # noqa: SIM115
    task = asyncio.ensure_future(getattr(loop, method)(lambda: protocol, pipe))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await protocol.lost is None
    await asyncio.sleep(0)
    assert pipe.closed
    os.close(other)


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
async def test_a_factory_that_fails_opens_nothing(loop, method):
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:
        with pytest.raises(ZeroDivisionError):
            await getattr(loop, method)(lambda: 1 / 0, reader if method == "connect_read_pipe" else writer)
        assert os.get_blocking(reading)


@pytest.mark.parametrize("connect", [connect_reading, connect_writing])
def test_a_transport_that_nobody_closed_warns_and_closes_its_pipe(loop_factory, connect):
    loop = loop_factory()
    reading, writing = os.pipe()
    number, other = (reading, writing) if connect is connect_reading else (writing, reading)
    loop.run_until_complete(connect(loop, number))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        del loop
        gc.collect()
    unclosed = [warning for warning in caught if "unclosed transport" in str(warning.message)]
    assert [warning.category for warning in unclosed] == [ResourceWarning], caught
    assert not is_open(number)
    os.close(other)


def test_a_closed_loop_refuses_pipes_and_leaves_them_open(loop_factory, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio makes a transport first and closes the pipe when that is deleted")
    loop, other = loop_factory(), loop_factory()
    loop.close()
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:
        for call in (
            lambda: loop.connect_read_pipe(asyncio.Protocol, reader),
            lambda: loop.connect_write_pipe(asyncio.Protocol, writer),
        ):
            with pytest.raises(RuntimeError, match="closed"):
                other.run_until_complete(call())
        assert os.get_blocking(reading)
    other.close()


# Streams.


async def test_a_stream_reader_reads_lines_of_a_pipe(loop, ends):
    reading, writing = ends
    reader = asyncio.StreamReader()
    transport, _ = await connect_reading(loop, reading, asyncio.StreamReaderProtocol(reader))
    os.write(writing, b"one\ntwo\nrest")
    assert await reader.readline() == b"one\n"
    assert await reader.readuntil(b"\n") == b"two\n"
    assert await reader.readexactly(4) == b"rest"
    transport.close()
    await asyncio.sleep(0.01)


async def test_a_stream_reader_holds_back_a_fast_writer(loop, one_way):
    reading, writing = one_way
    reader = asyncio.StreamReader(limit=1000)
    await connect_reading(loop, reading, asyncio.StreamReaderProtocol(reader))
    data = os.urandom(1 << 20)
    with in_thread(lambda: (write_all(writing, data), os.close(writing))):
        parts = []
        async with asyncio.timeout(20):
            while part := await reader.read(10_000):
                parts.append(part)
    assert b"".join(parts) == data
    await asyncio.sleep(0.01)


async def test_a_stream_writer_drains_into_a_pipe(loop, ends):
    reading, writing = ends
    transport, protocol = await connect_writing(loop, writing, asyncio.streams.FlowControlMixin())
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    data = os.urandom(1 << 19)
    received: list[bytes] = []
    with in_thread(lambda: received.append(read_exactly(reading, len(data)))):
        async with asyncio.timeout(20):
            for start in range(0, len(data), 10_000):
                writer.write(data[start : start + 10_000])
                await writer.drain()
            while transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
    assert received == [data]
    transport.close()
    await asyncio.sleep(0.01)


CONSOLE = """
import asyncio, sys

async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await loop.connect_read_pipe(lambda: protocol, sys.stdin)
    transport, mixin = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, mixin, reader, loop)
    writer.write(b"ready\\n")
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
        if line == b"quit\\n":
            break
    writer.close()

asyncio.Runner(loop_factory=LOOP).run(main())
"""

FACTORIES = {
    "asyncio": "asyncio.SelectorEventLoop",
    "uring": "lambda: __import__('aioxide').EventLoop(driver='uring')",
    "epoll": "lambda: __import__('aioxide').EventLoop(driver='epoll')",
}


@pytest.mark.parametrize("kind", ["pipes", "terminal"])
def test_a_program_talks_over_its_own_standard_streams(loop_name, loop_factory, kind):
    """As consoles do that wrap sys.stdin and sys.stdout."""
    program = CONSOLE.replace("LOOP", FACTORIES[loop_name])
    if kind == "pipes":
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
    else:
        ours_in, theirs_in = make_terminal(None)
        ours_out, theirs_out = os.dup(ours_in), os.dup(theirs_in)
    try:
        with subprocess.Popen([sys.executable, "-c", program], stdin=theirs_in, stdout=theirs_out) as child:
            assert read_exactly(ours_out, 6) == b"ready\n"
            os.write(ours_in, b"one\ntwo\n")
            assert read_exactly(ours_out, 8) == b"ONE\nTWO\n"
            os.write(ours_in, b"quit\n")
            assert read_exactly(ours_out, 5) == b"QUIT\n"
        assert child.returncode == 0
    finally:
        for number in (ours_in, theirs_in, ours_out, theirs_out):
            os.close(number)


def test_two_threads_each_pass_words_over_pipes(loop_factory):
    """A loop in each thread, joined by pipes both ways."""
    there, back = os.pipe(), os.pipe()
    heard: list[bytes] = []

    async def answer():
        loop = asyncio.get_running_loop()
        _reader, incoming = await connect_reading(loop, there[0])
        writer, outgoing = await connect_writing(loop, back[1])
        await incoming.received(100_000)
        writer.write(bytes(incoming.data))
        writer.close()
        await asyncio.gather(incoming.lost, outgoing.lost)

    async def ask():
        loop = asyncio.get_running_loop()
        _reader, incoming = await connect_reading(loop, back[0])
        writer, outgoing = await connect_writing(loop, there[1])
        writer.write(b"w" * 100_000)
        heard.append(await incoming.received(100_000))
        writer.close()
        await asyncio.gather(incoming.lost, outgoing.lost)

    def run(main):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    other = threading.Thread(target=run, args=(answer,))
    other.start()
    run(ask)
    other.join(20)
    assert heard == [b"w" * 100_000]
