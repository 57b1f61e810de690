"""asyncio's StreamReader and StreamWriter, and aioxide's own, on the loop under test."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys

import aioxide
import pytest
from peers import connected_pair, in_thread, receive_all, reset, unused_port
from tls_peers import NAME, client_context, server_context


@pytest.fixture(params=["asyncio", "aioxide"])
def streams(request):
    """asyncio's streams, and aioxide's own, which are asyncio's on a loop of asyncio's."""
    return importlib.import_module(request.param)


async def close(writer):
    """Close a stream completely."""
    writer.close()
    await writer.wait_closed()


async def test_lines_records_and_the_rest(loop, streams):
    with connected_pair() as (ours, peer):
        reader, writer = await streams.open_connection(sock=ours)
        peer.sendall(b"line\nsecond;record" + b"12345" + b"rest")
        assert await reader.readline() == b"line\n"
        assert await reader.readuntil(b";") == b"second;"
        assert await reader.readexactly(6) == b"record"
        assert await reader.read(5) == b"12345"
        peer.close()
        assert await reader.read() == b"rest"
        assert reader.at_eof()
        assert await reader.readline() == b""
        await close(writer)


async def test_an_end_in_the_middle_is_an_incomplete_read(loop, streams):
    with connected_pair() as (ours, peer):
        reader, writer = await streams.open_connection(sock=ours)
        peer.sendall(b"half")
        peer.close()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(8)
        assert caught.value.partial == b"half"
        await close(writer)


async def test_a_line_over_the_limit_is_an_error(loop, streams):
    with connected_pair() as (ours, peer):
        reader, writer = await streams.open_connection(sock=ours, limit=100)
        peer.sendall(b"x" * 300 + b"\n")
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
        await close(writer)


async def test_drain_waits_for_the_peer(loop, streams):
    with connected_pair() as (ours, peer):
        _, writer = await streams.open_connection(sock=ours)
        data = os.urandom(16 << 20)
        writer.write(data)
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0.01)
        assert not draining.done()
        received: list[bytes] = []
        with in_thread(lambda: received.append(receive_all(peer))):
            await draining
            await close(writer)
        assert received == [data]


async def test_drain_tells_that_the_peer_is_gone(loop, streams):
    with connected_pair() as (ours, peer):
        _, writer = await streams.open_connection(sock=ours)
        writer.write(bytes(64 << 20))
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0.005)
        reset(peer)
        with pytest.raises(ConnectionError):
            await draining
        writer.close()
        with pytest.raises(ConnectionError):
            await writer.wait_closed()


async def test_a_reader_gets_the_reset(loop, streams):
    with connected_pair() as (ours, peer):
        reader, writer = await streams.open_connection(sock=ours)
        reading = asyncio.create_task(reader.read(100))
        await asyncio.sleep(0.005)
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await reading
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()


async def test_a_reader_pauses_at_twice_its_limit(loop, streams):
    with connected_pair() as (ours, peer):
        reader, writer = await streams.open_connection(sock=ours, limit=1000)
        data = os.urandom(4 << 20)
        with in_thread(peer.sendall, data):
            await asyncio.sleep(0.02)
            assert not writer.transport.is_reading()
            received = bytearray()
            while len(received) < len(data):
                received += await reader.read(700)
            assert received == data
        await close(writer)


async def test_write_eof_lets_the_answer_come(loop, streams):
    async def serve(reader, writer):
        writer.write((await reader.read())[::-1])
        await close(writer)

    server = await streams.start_server(serve, "127.0.0.1", 0)
    reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
    assert writer.can_write_eof()
    writer.writelines([b"que", b"stion"])
    writer.write_eof()
    assert await reader.read() == b"noitseuq"
    await close(writer)
    server.close()
    await server.wait_closed()


async def test_a_hundred_clients_are_served_at_once(loop, streams):
    async def serve(reader, writer):
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        await close(writer)

    server = await streams.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def client(number):
        reader, writer = await streams.open_connection(*address)
        for turn in range(20):
            writer.write(b"client %d turn %d\n" % (number, turn))
            await writer.drain()
            assert await reader.readline() == b"CLIENT %d TURN %d\n" % (number, turn)
        await close(writer)

    await asyncio.gather(*(client(number) for number in range(100)))
    server.close()
    await server.wait_closed()
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)


async def test_an_exception_in_a_handler_is_reported(loop, streams, reported):
    async def serve(reader, writer):
        raise LookupError("in the handler")

    server = await streams.start_server(serve, "127.0.0.1", 0)
    reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
    async with asyncio.timeout(5):
        while not reported:
            await asyncio.sleep(0.001)
    assert isinstance(reported.pop()["exception"], LookupError)
    await close(writer)
    server.close()
    del reader
    if hasattr(server, "close_clients"):
        server.close_clients()
        await server.wait_closed()
    await asyncio.sleep(0.01)


async def test_extra_info_is_passed_on(loop, streams):
    with connected_pair() as (ours, peer):
        _, writer = await streams.open_connection(sock=ours)
        assert writer.get_extra_info("peername") == peer.getsockname()
        assert not writer.is_closing()
        writer.close()
        assert writer.is_closing()
        await writer.wait_closed()


async def test_a_dead_port_is_refused(loop, streams):
    with pytest.raises(ConnectionRefusedError):
        await streams.open_connection("127.0.0.1", unused_port())


@pytest.mark.parametrize("turns", range(8))
async def test_a_reader_cancelled_at_every_await_loses_no_data(loop, streams, turns):
    with connected_pair() as (ours, peer):
        reader, writer = await streams.open_connection(sock=ours)
        task = asyncio.create_task(reader.readexactly(10))
        peer.sendall(b"01234")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        peer.sendall(b"56789")
        async with asyncio.timeout(5):
            assert await reader.readexactly(10) == b"0123456789"
        await close(writer)


async def test_a_large_transfer_is_exact(loop, streams):
    data = os.urandom(32 << 20)

    async def serve(reader, writer):
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
        await close(writer)

    async def send(writer):
        for start in range(0, len(data), 1 << 17):
            writer.write(data[start : start + (1 << 17)])
            await writer.drain()
        writer.write_eof()

    server = await streams.start_server(serve, "127.0.0.1", 0)
    reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
    received, _ = await asyncio.gather(reader.read(), send(writer))
    assert received == data
    await close(writer)
    server.close()
    await server.wait_closed()


async def test_methods_replaced_on_an_instance_are_called(loop):
    with connected_pair() as (ours, peer):
        reader, writer = await asyncio.open_connection(sock=ours)
        protocol, seen = writer.transport.get_protocol(), []

        def feed_data(data):
            seen.append(("reader", bytes(data)))
            asyncio.StreamReader.feed_data(reader, data)

        def data_received(data):
            seen.append(("protocol", bytes(data)))
            asyncio.StreamReaderProtocol.data_received(protocol, data)

        reader.feed_data = feed_data
        peer.sendall(b"one")
        assert await reader.readexactly(3) == b"one"
        protocol.data_received = data_received
        peer.sendall(b"two")
        assert await reader.readexactly(3) == b"two"
        assert seen == [("reader", b"one"), ("protocol", b"two"), ("reader", b"two")]
        del reader.feed_data, protocol.data_received  # a cycle
        await close(writer)


async def test_methods_replaced_on_the_class_are_called(loop, monkeypatch):
    with connected_pair() as (ours, peer):
        reader, writer = await asyncio.open_connection(sock=ours)
        seen, original = [], asyncio.StreamReader.feed_data

        def feed_data(self, data):
            seen.append(bytes(data))
            original(self, data)

        monkeypatch.setattr(asyncio.StreamReader, "feed_data", feed_data)
        peer.sendall(b"data")
        assert await reader.readexactly(4) == b"data"
        assert seen == [b"data"]
        await close(writer)


async def test_reader_and_protocol_classes_of_ones_own(loop):
    class Reader(asyncio.StreamReader):
        fed = 0

        def feed_data(self, data):
            self.fed += len(data)
            super().feed_data(data)

    class Protocol(asyncio.StreamReaderProtocol):
        received = 0

        def data_received(self, data):
            self.received += len(data)
            super().data_received(data)

    for reader_class, protocol_class in (
        (Reader, asyncio.StreamReaderProtocol),
        (asyncio.StreamReader, Protocol),
        (Reader, Protocol),
    ):
        with connected_pair() as (ours, peer):
            reader = reader_class(loop=loop)
            protocol = protocol_class(reader, loop=loop)
            transport, _ = await loop.create_connection(lambda protocol=protocol: protocol, sock=ours)
            peer.sendall(b"data")
            assert await reader.readexactly(4) == b"data"
            assert getattr(reader, "fed", 4) == getattr(protocol, "received", 4) == 4
            transport.close()
            await protocol._get_close_waiter(None)


async def test_a_reader_that_was_dropped_keeps_the_connection(loop, streams):
    with connected_pair() as (ours, peer):
        reader, writer = await streams.open_connection(sock=ours)
        del reader
        writer._reader = None
        peer.sendall(b"nobody reads this")
        writer.write(b"but this is written")
        assert await loop.run_in_executor(None, peer.recv, 100) == b"but this is written"
        await close(writer)


async def test_a_slow_reader_pauses_the_peer_and_gets_everything(loop, streams):
    with connected_pair() as (ours, peer):
        reader, writer = await streams.open_connection(sock=ours, limit=1000)
        data = os.urandom(4 << 20)
        with in_thread(lambda: peer.sendall(data)):
            while writer.transport.is_reading():
                await asyncio.sleep(0)
            assert len(reader._buffer) > 2000
            received = bytearray()
            while len(received) < len(data):
                received += await reader.read(700)
        assert received == data
        await close(writer)


async def test_what_the_reader_shows_of_its_buffer_is_a_copy(loop):
    reader = aioxide.StreamReader(loop=loop)
    reader.feed_data(b"data")
    shown = reader._buffer
    assert shown == b"data"
    shown.clear()
    assert await reader.readexactly(4) == b"data"


async def test_methods_set_on_own_streams_are_passed_by(loop, is_aioxide):
    class Reader(aioxide.StreamReader):
        fed = 0

        def feed_data(self, data):
            self.fed += len(data)
            super().feed_data(data)

    for reader, passed_by in ((aioxide.StreamReader(loop=loop), True), (Reader(loop=loop), False)):
        with connected_pair() as (ours, peer):
            protocol = aioxide._streams.StreamReaderProtocol(reader, loop=loop)
            transport, _ = await loop.create_connection(lambda protocol=protocol: protocol, sock=ours)
            calls = []
            if passed_by:
                original = reader.feed_data
                reader.feed_data = lambda data: (calls.append(data), original(data))  # noqa: B023
            peer.sendall(b"data")
            assert await reader.readexactly(4) == b"data"
            if passed_by:
                assert calls == ([] if is_aioxide else [b"data"])
                del reader.feed_data
            else:
                assert reader.fed == 4
            transport.close()
            await protocol._get_close_waiter(None)


async def test_a_callback_that_fails_closes_the_connection(loop, reported, is_aioxide):
    served = []

    def connected(reader, writer):
        served.append(writer)
        raise LookupError("in the callback")

    server = await aioxide.start_server(connected, "127.0.0.1", 0)
    reader, writer = await aioxide.open_connection(*server.sockets[0].getsockname())
    async with asyncio.timeout(5):
        while not reported:
            await asyncio.sleep(0)
        (report,) = reported
        reported.clear()
        assert isinstance(report["exception"], LookupError)
        if is_aioxide:
            assert report["message"] == "Unhandled exception in client_connected_cb"
            assert served[0].is_closing()
        else:  # asyncio closes it since Python 3.14
            served[0].close()
        assert await reader.read() == b""
    await close(writer)
    await served.pop().wait_closed()
    server.close()
    await server.wait_closed()


async def test_a_writer_that_nobody_closed_warns(loop, is_aioxide):
    if not is_aioxide and sys.version_info < (3, 13):
        pytest.skip("asyncio warns since Python 3.13")
    with connected_pair() as (ours, peer):
        reader, writer = await aioxide.open_connection(sock=ours)
        protocol = writer._protocol
        with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
            del writer
        assert await loop.run_in_executor(None, peer.recv, 1) == b""
        await protocol._get_close_waiter(None)
        del reader


async def test_many_waiting_drains(loop, streams):
    with connected_pair() as (ours, peer):
        _, writer = await streams.open_connection(sock=ours)
        data = os.urandom(16 << 20)
        writer.write(data)
        drains = [asyncio.create_task(writer.drain()) for _ in range(5)]
        await asyncio.sleep(0)
        drains[2].cancel()
        await asyncio.sleep(0)
        assert [drain.done() for drain in drains] == [False, False, True, False, False]
        assert drains[2].cancelled()
        received: list[bytes] = []
        with in_thread(lambda: received.append(receive_all(peer))):
            await asyncio.gather(*drains, return_exceptions=True)
            await writer.drain()
            await close(writer)
        assert received == [data]


async def test_tls(loop, streams):
    async def serve(reader, writer):
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        await close(writer)

    server = await streams.start_server(serve, "127.0.0.1", 0, ssl=server_context(), limit=1 << 21)
    reader, writer = await streams.open_connection(
        *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=NAME
    )
    for number in range(20):
        writer.write(b"line %d\n" % number)
        await writer.drain()
        assert await reader.readline() == b"LINE %d\n" % number
    data = os.urandom(1 << 20).replace(b"\n", b" ") + b"\n"
    writer.write(data)
    assert await reader.readexactly(len(data)) == data.upper()
    await close(writer)
    server.close()
    await server.wait_closed()


async def test_start_tls(loop, streams):
    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(server_context())
        writer.write((await reader.readline()).upper())
        await writer.drain()
        await close(writer)

    server = await streams.start_server(serve, "127.0.0.1", 0)
    reader, writer = await streams.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    assert await reader.readline() == b"go\n"
    await writer.start_tls(client_context(), server_hostname=NAME)
    assert writer.get_extra_info("ssl_object") is not None
    writer.write(b"secret\n")
    assert await reader.readline() == b"SECRET\n"
    assert await reader.read() == b""
    await close(writer)
    server.close()
    await server.wait_closed()


async def test_a_subclass_that_waits_for_data_itself(loop, streams):
    class Reader(streams.StreamReader):
        async def peek(self):
            while not self._buffer and not self.at_eof():
                await self._wait_for_data("peek")
            return bytes(self._buffer)

    reader = Reader(loop=loop)
    peeking = asyncio.create_task(reader.peek())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another coroutine is already waiting"):
        await reader.read(1)
    reader.feed_data(b"data")
    assert await peeking == b"data"
    assert await reader.readexactly(4) == b"data"
