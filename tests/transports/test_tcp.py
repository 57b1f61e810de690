"""TCP connections through create_connection: making them, their transports and their ends."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import os
import socket
from unittest import mock

import pytest
from peers import connected_pair, in_thread, listening, receive_all, receive_exactly, unused_port
from recorder import Recorder


async def connect(loop, **options):
    """Return (transport, protocol, blocking peer) of a new connection."""
    with listening() as server:
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop, **options), *server.getsockname()
        )
        peer, _ = server.accept()
    peer.settimeout(20)
    return transport, protocol, peer


async def end(transport, protocol, peer):
    """Close both ends and wait until the protocol knows."""
    peer.close()
    transport.abort()
    await protocol.lost


async def test_a_protocol_is_called_in_order(loop):
    transport, protocol, peer = await connect(loop)
    assert protocol.transport is transport
    peer.sendall(b"hello")
    assert await protocol.received(5) == b"hello"
    transport.write(b"world")
    assert await asyncio.to_thread(receive_exactly, peer, 5) == b"world"
    peer.close()
    assert await protocol.lost is None
    assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]


async def test_a_transport_is_asyncios(loop):
    transport, protocol, peer = await connect(loop)
    assert isinstance(transport, asyncio.Transport)
    assert not transport.is_closing()
    assert transport.is_reading()
    assert transport.get_protocol() is protocol
    assert transport.can_write_eof() is True
    await end(transport, protocol, peer)


async def test_extra_info_tells_the_addresses(loop):
    transport, protocol, peer = await connect(loop)
    assert transport.get_extra_info("peername") == peer.getsockname()
    assert transport.get_extra_info("sockname") == peer.getpeername()
    assert transport.get_extra_info("missing") is None
    assert transport.get_extra_info("missing", "default") == "default"
    sock = transport.get_extra_info("socket")
    assert sock.family == socket.AF_INET
    assert sock.type == socket.SOCK_STREAM
    assert sock.getsockname() == peer.getpeername()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    await end(transport, protocol, peer)


@pytest.mark.parametrize("class_name", ["BaseTransport", "ReadTransport", "Transport"])
async def test_a_mock_in_place_of_asyncios_get_extra_info_is_asked(loop, class_name):
    transport, protocol, peer = await connect(loop)
    with mock.patch.object(getattr(asyncio, class_name), "get_extra_info", return_value="mocked") as asked:
        assert transport.get_extra_info("peername") == "mocked"
        asked.assert_called_once_with("peername")
        assert transport.get_extra_info("missing", "default") == "mocked"
        asked.assert_called_with("missing", "default")
    assert transport.get_extra_info("peername") == peer.getsockname()
    await end(transport, protocol, peer)


async def test_a_function_in_place_of_asyncios_get_extra_info_is_a_method(loop, monkeypatch):
    transport, protocol, peer = await connect(loop)

    def get_extra_info(transport, name, default=None):
        return transport, name, default

    monkeypatch.setattr(asyncio.BaseTransport, "get_extra_info", get_extra_info)
    assert transport.get_extra_info("peername") == (transport, "peername", None)
    monkeypatch.setattr(asyncio.Transport, "get_extra_info", staticmethod(lambda name: name), raising=False)
    assert transport.get_extra_info("peername") == "peername"
    monkeypatch.undo()
    await end(transport, protocol, peer)


async def test_close_sends_what_was_written_first(loop):
    transport, protocol, peer = await connect(loop)
    data = os.urandom(4 << 20)
    received: list[bytes] = []
    with in_thread(lambda: received.append(receive_all(peer))):
        transport.write(data)
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert await protocol.lost is None
    peer.close()
    assert received == [data]


async def test_abort_drops_what_was_written(loop):
    transport, protocol, peer = await connect(loop)
    transport.write(bytes(64 << 20))
    assert transport.get_write_buffer_size() > 0
    transport.abort()
    transport.abort()
    assert await protocol.lost is None
    assert protocol.calls[-1] == "connection_lost"
    assert transport.is_closing()
    peer.close()


async def test_connection_lost_is_called_on_a_later_turn(loop):
    transport, protocol, peer = await connect(loop)
    for stop in (transport.close, transport.abort):
        stop()
        assert not protocol.lost.done()
    await protocol.lost
    assert protocol.calls.count("connection_lost") == 1
    peer.close()


async def test_nothing_is_received_after_close(loop):
    transport, protocol, peer = await connect(loop)
    transport.close()
    peer.sendall(b"late")
    await protocol.lost
    await asyncio.sleep(0.01)
    assert protocol.data == b""
    peer.close()


async def test_write_eof_closes_one_half_only(loop):
    transport, protocol, peer = await connect(loop)
    transport.write(b"last")
    transport.write_eof()
    transport.write_eof()
    assert await asyncio.to_thread(receive_all, peer) == b"last"
    with pytest.raises(RuntimeError, match=r"Cannot call write.. after write_eof"):
        transport.write(b"more")
    peer.sendall(b"answer")
    assert await protocol.received(6) == b"answer"
    await end(transport, protocol, peer)


async def test_write_eof_waits_for_the_buffer(loop):
    transport, protocol, peer = await connect(loop)
    data = os.urandom(4 << 20)
    transport.write(data)
    transport.write_eof()
    received: list[bytes] = []
    with in_thread(lambda: received.append(receive_all(peer))):
        while not received:
            await asyncio.sleep(0.001)
    assert received == [data]
    await end(transport, protocol, peer)


async def test_a_half_closed_peer_still_receives_when_the_protocol_wants_it(loop):
    transport, protocol, peer = await connect(loop, keep_open_on_eof=True)
    peer.sendall(b"question")
    peer.shutdown(socket.SHUT_WR)
    await protocol.eof
    assert protocol.data == b"question"
    assert not transport.is_closing()
    data = os.urandom(1 << 20)
    received: list[bytes] = []
    with in_thread(lambda: received.append(receive_all(peer))):
        transport.write(data)
        transport.close()
        assert await protocol.lost is None
    assert received == [data]
    peer.close()


async def test_a_half_closed_peer_ends_the_connection_otherwise(loop):
    _transport, protocol, peer = await connect(loop)
    peer.shutdown(socket.SHUT_WR)
    assert await protocol.lost is None
    assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]
    assert await asyncio.to_thread(receive_all, peer) == b""
    peer.close()


async def test_data_and_end_together_arrive_in_order(loop):
    for _ in range(20):
        transport, protocol, peer = await connect(loop)
        peer.sendall(b"data")
        peer.close()
        await protocol.lost
        assert protocol.data == b"data"
        assert protocol.calls == ["connection_made", "data_received", "eof_received", "connection_lost"]
        assert transport.is_closing()


async def test_a_bytearray_changed_after_write_does_not_change_what_is_sent(loop):
    transport, protocol, peer = await connect(loop)
    expected = b""
    for size in (10, 5000, 70_000, 2_000_000):
        data = bytearray(os.urandom(size))
        expected += bytes(data)
        transport.write(data)
        data[:] = bytes(size)
        view = memoryview(bytearray(b"view"))
        transport.write(view)
        view[:] = b"...."
        expected += b"view"
    received: list[bytes] = []
    with in_thread(lambda: received.append(receive_exactly(peer, len(expected)))):
        while not received:
            await asyncio.sleep(0.001)
    assert received == [expected]
    await end(transport, protocol, peer)


async def test_a_bytearray_can_be_resized_after_write(loop):
    transport, protocol, peer = await connect(loop)
    data = bytearray(b"hello")
    transport.write(data)
    data.clear()
    data += b"resized to something longer"
    assert await asyncio.to_thread(receive_exactly, peer, 5) == b"hello"
    await end(transport, protocol, peer)


async def test_many_small_writes_arrive_in_order(loop):
    transport, protocol, peer = await connect(loop)
    pieces = [b"%d," % number for number in range(20_000)]
    for piece in pieces:
        transport.write(piece)
    received: list[bytes] = []
    expected = b"".join(pieces)
    with in_thread(lambda: received.append(receive_exactly(peer, len(expected)))):
        while not received:
            await asyncio.sleep(0.001)
    assert received == [expected]
    await end(transport, protocol, peer)


async def test_small_and_large_writes_arrive_in_order(loop):
    transport, protocol, peer = await connect(loop)
    pieces = [os.urandom(size) for size in (1, 100_000, 3, 8192, 8191, 500_000, 2, 16384, 1)] * 5
    received: list[bytes] = []
    expected = b"".join(pieces)
    with in_thread(lambda: received.append(receive_exactly(peer, len(expected)))):
        for number, piece in enumerate(pieces):
            transport.write(piece)
            if number % 3 == 0:
                await asyncio.sleep(0)
        while not received:
            await asyncio.sleep(0.001)
    assert received == [expected]
    await end(transport, protocol, peer)


async def test_writelines_sends_every_piece(loop):
    transport, protocol, peer = await connect(loop)
    pieces = [os.urandom(size) for size in range(0, 3000, 7)]
    transport.writelines(pieces)
    transport.writelines([])
    transport.writelines(bytearray(piece) for piece in pieces)
    expected = b"".join(pieces) * 2
    received: list[bytes] = []
    with in_thread(lambda: received.append(receive_exactly(peer, len(expected)))):
        while not received:
            await asyncio.sleep(0.001)
    assert received == [expected]
    await end(transport, protocol, peer)


async def test_an_empty_write_is_nothing(loop):
    transport, protocol, peer = await connect(loop)
    transport.write(b"")
    transport.write(bytearray())
    assert transport.get_write_buffer_size() == 0
    transport.write(b"x")
    assert await asyncio.to_thread(receive_exactly, peer, 1) == b"x"
    await end(transport, protocol, peer)


@pytest.mark.parametrize("wrong", ["text", 42, None, [1], object()])
async def test_what_is_no_bytes_cannot_be_written(loop, wrong):
    transport, protocol, peer = await connect(loop)
    with pytest.raises(TypeError):
        transport.write(wrong)
    transport.write(b"fine")
    assert await asyncio.to_thread(receive_exactly, peer, 4) == b"fine"
    await end(transport, protocol, peer)


async def test_a_view_of_other_items_is_written_as_its_bytes(loop):
    import array

    transport, protocol, peer = await connect(loop)
    numbers = array.array("I", [1, 2, 3])
    transport.write(memoryview(numbers).cast("B"))
    assert await asyncio.to_thread(receive_exactly, peer, 12) == numbers.tobytes()
    await end(transport, protocol, peer)


async def test_another_protocol_can_take_over(loop):
    transport, first, peer = await connect(loop)
    peer.sendall(b"one")
    await first.received(3)
    second = Recorder(loop)
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    peer.sendall(b"two")
    assert await second.received(3) == b"two"
    assert first.data == b"one"
    peer.close()
    await second.lost
    assert not first.lost.done()
    first.lost.cancel()


async def test_a_protocol_can_hand_over_while_it_receives(loop):
    transport, first, peer = await connect(loop)
    second = Recorder(loop)
    first.data_received = lambda data: (transport.set_protocol(second), second.data_received(data))
    peer.sendall(b"one")
    await second.received(3)
    peer.sendall(b"two")
    assert await second.received(6) == b"onetwo"
    await end(transport, second, peer)


async def test_a_large_transfer_is_exact_in_both_directions(loop):
    transport, protocol, peer = await connect(loop)
    data = os.urandom(16 << 20)

    def echo():
        remaining = len(data)
        while remaining:
            part = peer.recv(1 << 16)
            peer.sendall(part)
            remaining -= len(part)

    with in_thread(echo):
        for start in range(0, len(data), 1 << 18):
            await protocol.writable.wait()
            transport.write(data[start : start + (1 << 18)])
        assert await protocol.received(len(data)) == data
    await end(transport, protocol, peer)


async def test_a_connection_from_a_socket(loop):
    with connected_pair() as (ours, theirs):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        transport.write(b"hello")
        assert await asyncio.to_thread(receive_exactly, theirs, 5) == b"hello"
        transport.close()
        await protocol.lost
        assert ours.fileno() == -1


async def test_connect_accepted_socket(loop):
    with connected_pair() as (ours, theirs):
        transport, protocol = await loop.connect_accepted_socket(lambda: Recorder(loop), ours)
        theirs.sendall(b"hello")
        assert await protocol.received(5) == b"hello"
        assert transport.get_extra_info("peername") == theirs.getsockname()
        transport.close()
        await protocol.lost


async def test_a_local_address_is_bound(loop):
    with listening() as server:
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), *server.getsockname(), local_addr=("127.0.0.1", 0)
        )
        connection, address = server.accept()
        assert address == transport.get_extra_info("sockname")
        await end(transport, protocol, connection)


async def test_a_local_address_of_others_cannot_be_bound(loop):
    with listening() as server, pytest.raises(OSError, match=r"bind|assign"):
        await loop.create_connection(asyncio.Protocol, *server.getsockname(), local_addr=("192.0.2.1", 0))


async def test_a_dead_port_is_refused(loop):
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", unused_port())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_error_of_a_refused_connection_names_the_address(loop, host):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind((host, 0))
        address = taken.getsockname()
        with pytest.raises(ConnectionRefusedError) as refused:
            await loop.create_connection(asyncio.Protocol, *address[:2])
    assert refused.value.args == (errno.ECONNREFUSED, f"Connect call failed {address}")


async def test_a_connection_is_made_in_the_callers_context(loop):
    variable = contextvars.ContextVar("variable")
    seen = []

    class Curious(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(variable.get())

    async with asyncio.timeout(10):
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        variable.set("ours")
        transport, _ = await loop.create_connection(Curious, *server.sockets[0].getsockname())
        assert seen == ["ours"]
        transport.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)


async def test_who_replaces_pythons_sockets_sees_every_connection(loop, monkeypatch):
    class Refusing(socket.socket):
        def connect(self, address):
            raise OSError(errno.EPERM, "no network in tests")

    with listening() as server:
        monkeypatch.setattr(socket, "socket", Refusing)
        with pytest.raises(OSError, match="no network in tests"):
            await loop.create_connection(asyncio.Protocol, *server.getsockname())


async def test_every_address_is_tried(loop):
    port = unused_port()
    with listening() as server:

        async def getaddrinfo(host, port_, **hints):
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", server.getsockname()),
            ]

        loop.getaddrinfo = getaddrinfo
        for delay in (None, 0.1):
            transport, protocol = await loop.create_connection(
                lambda: Recorder(loop), "name.invalid", 1, happy_eyeballs_delay=delay
            )
            connection, _ = server.accept()
            await end(transport, protocol, connection)
        del loop.getaddrinfo


async def test_all_errors_are_told_when_asked_for(loop):
    import sys

    if sys.version_info < (3, 12):
        pytest.skip("all_errors came with Python 3.12")
    ports = [unused_port(), unused_port()]

    async def getaddrinfo(host, port, **hints):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(ExceptionGroup) as caught:
        await loop.create_connection(asyncio.Protocol, "name.invalid", 1, all_errors=True)
    assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError] * 2
    with pytest.raises(OSError, match=r"refused|Multiple"):
        await loop.create_connection(asyncio.Protocol, "name.invalid", 1)
    del loop.getaddrinfo


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"host": "127.0.0.1", "port": 1, "sock": "socket"},
        {"host": "127.0.0.1", "port": 1, "server_hostname": "name"},
        {"host": "127.0.0.1", "port": 1, "ssl_handshake_timeout": 1},
        {"host": "127.0.0.1", "port": 1, "ssl_shutdown_timeout": 1},
    ],
    ids=str,
)
async def test_wrong_options_are_value_errors(loop, options):
    with socket.socket() as sock:
        if "sock" in options:
            options = {**options, "sock": sock}
        with pytest.raises(ValueError, match=r"."):
            await loop.create_connection(asyncio.Protocol, **options)


async def test_a_datagram_socket_is_no_stream(loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ValueError, match="Stream Socket"):
            await loop.create_connection(asyncio.Protocol, sock=datagram)
        with pytest.raises(ValueError, match="Stream Socket"):
            await loop.connect_accepted_socket(asyncio.Protocol, datagram)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_factory_that_fails_leaves_no_connection(loop):
    def factory():
        raise LookupError("no protocol")

    with listening() as server:
        with pytest.raises(LookupError):
            await loop.create_connection(factory, *server.getsockname())
        gc.collect()  # asyncio leaves the socket to the garbage collector
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(1) == b""


@pytest.mark.parametrize("turns", range(12))
async def test_a_connection_cancelled_at_every_await_leaves_nothing(loop, turns):
    with listening() as server:
        task = asyncio.ensure_future(
            loop.create_connection(lambda: Recorder(loop), "localhost", server.getsockname()[1])
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            transport, protocol = await task
        except asyncio.CancelledError:
            return
        transport.abort()
        await protocol.lost


async def test_closing_inside_connection_made(loop):
    class Closing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"bye")
            transport.close()

    with listening() as server:
        _, protocol = await loop.create_connection(lambda: Closing(loop), *server.getsockname())
        connection, _ = server.accept()
        with connection:
            assert await asyncio.to_thread(receive_all, connection) == b"bye"
        await protocol.lost


async def test_closing_while_receiving_stops_the_data(loop):
    transport, protocol, peer = await connect(loop)
    protocol.data_received = lambda data: (Recorder.data_received(protocol, data), transport.abort())
    peer.sendall(b"x")
    await protocol.lost
    assert protocol.data == b"x"
    peer.close()


async def test_ipv6(loop):
    try:
        server_context = listening(socket.AF_INET6)
        server = server_context.__enter__()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    try:
        transport, protocol = await loop.create_connection(
            lambda: Recorder(loop), "::1", server.getsockname()[1]
        )
        connection, _ = server.accept()
        assert transport.get_extra_info("peername") == server.getsockname()
        assert len(transport.get_extra_info("sockname")) == 4
        await end(transport, protocol, connection)
    finally:
        server_context.__exit__(None, None, None)


async def test_repr_tells_that_a_transport_is_closed(loop):
    transport, protocol, peer = await connect(loop)
    assert "clos" not in repr(transport)
    transport.close()
    await protocol.lost
    assert "clos" in repr(transport)
    peer.close()


async def test_the_socket_of_a_closing_transport_may_be_watched(loop):
    near, far = socket.socketpair()
    near.setblocking(False)
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop.add_reader(near, print)
    transport.close()
    loop.add_reader(near, print)
    assert loop.remove_reader(near)
    far.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("size", [5, 20_000])
async def test_what_one_end_writes_reaches_the_other_within_two_turns(loop, size):
    """Programs whose both ends are in one loop count on it: tests, above all."""
    ends = [await loop.create_connection(lambda: Recorder(loop), sock=sock) for sock in socket.socketpair()]
    (transport, protocol), (other_transport, other) = ends
    for _ in range(3):
        transport.write(bytes(size))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(other.data) >= min(size, 4096)
        await other.received(size)
        other.data.clear()
    os.write(other_transport.get_extra_info("socket").fileno(), b"from outside")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bytes(protocol.data) == b"from outside"
    for transport, protocol in ends:
        transport.close()
        await protocol.lost
