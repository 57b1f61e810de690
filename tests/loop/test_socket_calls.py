"""loop.sock_*: the socket module's calls, awaited."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from peers import connected_pair, in_thread, listening, receive_all, receive_exactly, reset, unused_port


@pytest.fixture
def pair():
    """Two ends of a TCP connection: ours does not block, theirs does."""
    with connected_pair() as ends:
        yield ends


@pytest.fixture
def datagrams():
    """Two UDP sockets that do not block."""
    first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with first, second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
        yield first, second


async def test_recv_returns_what_is_there(loop, pair):
    ours, theirs = pair
    theirs.send(b"hello")
    assert await loop.sock_recv(ours, 3) == b"hel"
    assert await loop.sock_recv(ours, 100) == b"lo"


async def test_recv_waits(loop, pair):
    ours, theirs = pair
    task = asyncio.create_task(loop.sock_recv(ours, 100))
    await asyncio.sleep(0.01)
    assert not task.done()
    theirs.send(b"late")
    assert await task == b"late"


async def test_recv_returns_nothing_at_the_end(loop, pair):
    ours, theirs = pair
    theirs.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(ours, 100) == b""


async def test_recv_into_fills_the_callers_memory(loop, pair):
    ours, theirs = pair
    theirs.send(b"hello")
    buffer = bytearray(b"." * 8)
    assert await loop.sock_recv_into(ours, memoryview(buffer)[1:6]) == 5
    assert buffer == b".hello.."
    task = asyncio.create_task(loop.sock_recv_into(ours, buffer))
    await asyncio.sleep(0.01)
    theirs.send(b"later")
    assert await task == 5
    assert buffer == b"later.."[:5] + b"o.."


@pytest.mark.parametrize("buffer", [b"read only", "text", 42])
async def test_recv_into_needs_writable_memory(loop, pair, buffer):
    ours, theirs = pair
    theirs.send(b"data")
    with pytest.raises((TypeError, BufferError)):
        await loop.sock_recv_into(ours, buffer)


async def test_a_cancelled_recv_takes_no_data(loop, pair):
    ours, theirs = pair
    for _ in range(10):
        task = asyncio.create_task(loop.sock_recv(ours, 100))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    theirs.send(b"kept")
    assert await loop.sock_recv(ours, 100) == b"kept"


async def test_a_cancelled_recv_into_writes_nothing_later(loop, pair):
    ours, theirs = pair
    buffer = bytearray(4)
    task = asyncio.create_task(loop.sock_recv_into(ours, buffer))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    theirs.send(b"data")
    await asyncio.sleep(0.01)
    assert buffer == bytes(4)
    assert await loop.sock_recv(ours, 100) == b"data"


async def test_sendall_sends_everything(loop, pair):
    ours, theirs = pair
    data = os.urandom(8 << 20)
    received: list[bytes] = []
    with in_thread(lambda: received.append(receive_exactly(theirs, len(data)))):
        assert await loop.sock_sendall(ours, data) is None
        while not received:
            await asyncio.sleep(0.001)
    assert received == [data]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_sendall_takes_every_kind_of_memory(loop, pair, kind):
    ours, theirs = pair
    await loop.sock_sendall(ours, kind(b"hello"))
    assert receive_exactly(theirs, 5) == b"hello"


async def test_sendall_of_nothing_returns(loop, pair):
    async with asyncio.timeout(5):
        await loop.sock_sendall(pair[0], b"")


async def test_a_cancelled_sendall_stops(loop, pair):
    ours, theirs = pair
    task = asyncio.create_task(loop.sock_sendall(ours, bytes(64 << 20)))
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ours.shutdown(socket.SHUT_WR)
    assert 0 < len(receive_all(theirs)) < 64 << 20


async def test_a_reset_peer_is_a_connection_error(loop, pair):
    ours, theirs = pair
    reset(theirs)
    with pytest.raises(ConnectionResetError):
        await loop.sock_recv(ours, 100)


async def test_sendall_to_a_reset_peer_is_a_connection_error(loop, pair):
    ours, theirs = pair
    task = asyncio.create_task(loop.sock_sendall(ours, bytes(64 << 20)))
    await asyncio.sleep(0.01)
    reset(theirs)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await task


async def test_accept_returns_a_socket_that_does_not_block(loop):
    with listening() as server:
        server.setblocking(False)
        task = asyncio.create_task(loop.sock_accept(server))
        await asyncio.sleep(0.001)
        with socket.create_connection(server.getsockname()) as client:
            connection, address = await task
            with connection:
                assert address == client.getsockname()
                assert connection.gettimeout() == 0
                assert not os.get_inheritable(connection.fileno())
                client.send(b"hello")
                assert await loop.sock_recv(connection, 10) == b"hello"


async def test_a_cancelled_accept_loses_no_connection(loop):
    with listening() as server:
        server.setblocking(False)
        for _ in range(5):
            task = asyncio.create_task(loop.sock_accept(server))
            await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with socket.create_connection(server.getsockname()):
            async with asyncio.timeout(5):
                connection, _ = await loop.sock_accept(server)
            connection.close()


async def test_connect(loop):
    with listening() as server, socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, server.getsockname())
        connection, _ = server.accept()
        with connection:
            connection.send(b"hello")
            assert await loop.sock_recv(client, 10) == b"hello"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_connect_resolves_names(loop, family):
    try:
        server_context = listening(family)
        with server_context as server, socket.socket(family) as client:
            client.setblocking(False)
            host = "localhost" if family == socket.AF_INET else "::1"
            await loop.sock_connect(client, (host, server.getsockname()[1]))
            assert client.getpeername()[1] == server.getsockname()[1]
    except OSError as error:
        if family == socket.AF_INET6 and error.errno is not None and "address" in str(error):
            pytest.skip(f"no IPv6 here: {error}")
        raise


async def test_connect_to_a_unix_path(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.setblocking(False)
        await loop.sock_connect(client, path)
        assert client.getpeername() == path


async def test_connect_to_a_dead_port_is_refused(loop):
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_connect(client, ("127.0.0.1", unused_port()))


async def test_connect_to_a_missing_path_is_file_not_found(loop, tmp_path):
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        with pytest.raises(FileNotFoundError):
            await loop.sock_connect(client, str(tmp_path / "missing"))


async def test_a_cancelled_connect_leaves_the_socket_to_its_owner(loop):
    with socket.socket() as client:
        client.setblocking(False)
        task = asyncio.create_task(loop.sock_connect(client, ("127.0.0.1", unused_port())))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert client.fileno() != -1


@pytest.mark.skipif(not hasattr(asyncio.AbstractEventLoop, "sock_recvfrom"), reason="needs Python 3.11")
async def test_datagrams(loop, datagrams):
    first, second = datagrams
    assert await loop.sock_sendto(first, b"hello", second.getsockname()) == 5
    assert await loop.sock_recvfrom(second, 100) == (b"hello", first.getsockname())
    buffer = bytearray(10)
    await loop.sock_sendto(second, b"back", first.getsockname())
    assert await loop.sock_recvfrom_into(first, buffer) == (4, second.getsockname())
    assert buffer[:4] == b"back"


async def test_recvfrom_waits_and_cuts_long_datagrams(loop, datagrams):
    first, second = datagrams
    task = asyncio.create_task(loop.sock_recvfrom(second, 3))
    await asyncio.sleep(0.01)
    assert not task.done()
    first.sendto(b"hello", second.getsockname())
    assert await task == (b"hel", first.getsockname())


async def test_recvfrom_into_heeds_the_count(loop, datagrams):
    first, second = datagrams
    first.sendto(b"hello", second.getsockname())
    buffer = bytearray(10)
    assert await loop.sock_recvfrom_into(second, buffer, 2) == (2, first.getsockname())
    assert buffer == b"he" + bytes(8)


async def test_an_empty_datagram_is_a_datagram(loop, datagrams):
    first, second = datagrams
    assert await loop.sock_sendto(first, b"", second.getsockname()) == 0
    assert await loop.sock_recvfrom(second, 100) == (b"", first.getsockname())
    receiving = asyncio.create_task(loop.sock_recvfrom_into(second, bytearray(10)))
    await asyncio.sleep(0)
    assert await loop.sock_sendto(first, b"", second.getsockname()) == 0
    assert await receiving == (0, first.getsockname())
    receiving = asyncio.create_task(loop.sock_recv(second, 10))
    await asyncio.sleep(0)
    assert await loop.sock_sendto(first, b"", second.getsockname()) == 0
    assert await receiving == b""


async def test_datagrams_of_a_connected_socket(loop, datagrams):
    first, second = datagrams
    await loop.sock_connect(first, second.getsockname())
    await loop.sock_sendall(first, b"question")
    assert await loop.sock_recv(second, 100) == b"question"
    second.sendto(b"answer", first.getsockname())
    assert await loop.sock_recvfrom(first, 100) == (b"answer", second.getsockname())


async def test_what_the_network_answers_to_a_datagram(loop, datagrams):
    first, second = datagrams
    with pytest.raises(OSError, match="too long"):
        await loop.sock_sendto(first, bytes(65508), second.getsockname())
    await loop.sock_connect(first, second.getsockname())
    receiving = asyncio.create_task(loop.sock_recvfrom(first, 100))
    await asyncio.sleep(0)
    second.close()
    first.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        await receiving


async def test_a_cancelled_recvfrom_takes_no_datagram(loop, datagrams):
    first, second = datagrams
    receiving = asyncio.create_task(loop.sock_recvfrom(second, 100))
    await asyncio.sleep(0)
    first.sendto(b"x", second.getsockname())
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert await loop.sock_recvfrom(second, 100) == (b"x", first.getsockname())


async def test_a_thousand_datagrams_keep_their_borders(loop, datagrams):
    first, second = datagrams
    for number in range(1000):
        await loop.sock_sendto(first, b"%d" % number, second.getsockname())
        assert (await loop.sock_recvfrom(second, 100))[0] == b"%d" % number


@pytest.mark.parametrize(
    "call",
    [
        lambda loop, sock: loop.sock_recv(sock, 1),
        lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)),
        lambda loop, sock: loop.sock_recvfrom(sock, 1),
        lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(1)),
        lambda loop, sock: loop.sock_sendall(sock, b"x"),
        lambda loop, sock: loop.sock_sendto(sock, b"x", ("127.0.0.1", 1)),
        lambda loop, sock: loop.sock_accept(sock),
        lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 1)),
    ],
    ids=["recv", "recv_into", "recvfrom", "recvfrom_into", "sendall", "sendto", "accept", "connect"],
)
async def test_a_blocking_socket_is_refused_in_debug_mode(loop, call):
    loop.set_debug(True)
    with socket.socket() as blocking, pytest.raises(ValueError, match="the socket must be non-blocking"):
        await call(loop, blocking)


async def test_a_closed_socket_is_an_error(loop, pair):
    ours, _ = pair
    ours.close()
    with pytest.raises((OSError, ValueError)):
        await loop.sock_recv(ours, 1)
    with pytest.raises((OSError, ValueError)):
        await loop.sock_sendall(ours, b"x")


async def test_an_unconnected_socket_is_an_error(loop):
    with socket.socket() as lonely:
        lonely.setblocking(False)
        with pytest.raises(OSError, match=r"not connected|Broken pipe"):
            await loop.sock_recv(lonely, 1)
        with pytest.raises(OSError, match=r"not connected|Broken pipe"):
            await loop.sock_sendall(lonely, b"x")
        with pytest.raises(OSError, match="Invalid argument"):
            await loop.sock_accept(lonely)


async def test_both_directions_at_once(loop, pair):
    ours, theirs = pair
    data = os.urandom(4 << 20)

    def echo():
        remaining = len(data)
        while remaining:
            part = theirs.recv(65536)
            theirs.sendall(part)
            remaining -= len(part)

    async def receive():
        received = bytearray()
        while len(received) < len(data):
            received += await loop.sock_recv(ours, 65536)
        return bytes(received)

    with in_thread(echo):
        received, _ = await asyncio.gather(receive(), loop.sock_sendall(ours, data))
    assert received == data


async def test_a_waiting_call_leaves_the_watchers_of_the_descriptor_alone(loop, pair, is_aioxide):
    if not is_aioxide:
        pytest.skip("with asyncio a waiting call takes the place of the descriptor's watcher")
    ours, theirs = pair
    called = asyncio.Event()
    loop.add_reader(ours, called.set)
    waiting = [asyncio.create_task(loop.sock_recv(ours, 1)) for _ in range(2)]
    await asyncio.sleep(0)
    theirs.send(b"ab")
    assert sorted(await asyncio.gather(*waiting)) == [b"a", b"b"]
    called.clear()
    theirs.send(b"c")
    await called.wait()
    assert loop.remove_reader(ours)


async def test_a_socket_of_another_type_is_asked_itself(loop, pair):
    ours, theirs = pair

    class Loud(socket.socket):
        def recv(self, *arguments):
            return super().recv(*arguments).upper()

    with Loud(fileno=ours.detach()) as loud:
        loud.setblocking(False)
        task = asyncio.create_task(loop.sock_recv(loud, 10))
        await asyncio.sleep(0)
        theirs.send(b"hello")
        assert await task == b"HELLO"


async def test_a_call_that_nobody_awaits_does_nothing(loop, pair):
    ours, theirs = pair
    theirs.send(b"hello")
    with pytest.warns(RuntimeWarning, match="sock_recv|_receive"):
        loop.sock_recv(ours, 10)
    assert await loop.sock_recv(ours, 10) == b"hello"


async def test_a_call_that_is_closed_while_it_waits_ends(loop, pair):
    ours, theirs = pair
    call = loop.sock_recv(ours, 10)
    call.send(None)
    call.close()
    theirs.send(b"hello")
    assert await loop.sock_recv(ours, 10) == b"hello"
