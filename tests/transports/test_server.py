"""create_server and its Server: addresses, states, many connections, and what is refused."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import sys
import weakref

import aioxide
import pytest
from peers import receive_all, receive_exactly, unused_port
from recorder import Recorder


class Accepted:
    """The protocols of a server, in the order their connections came."""

    def __init__(self, loop):
        self.loop = loop
        self.protocols: list[Recorder] = []
        self._arrived = asyncio.Event()

    def __call__(self):
        protocol = Recorder(self.loop)
        self.protocols.append(protocol)
        self._arrived.set()
        return protocol

    async def count(self, number):
        """Wait until `number` connections have come."""
        async with asyncio.timeout(30):
            while len(self.protocols) < number:
                self._arrived.clear()
                await self._arrived.wait()
            await asyncio.gather(*(protocol.made for protocol in self.protocols))
        return self.protocols

    async def end(self):
        """Abort every connection and wait until it is lost."""
        for protocol in self.protocols:
            if not protocol.lost.done():
                protocol.transport.abort()
        await asyncio.gather(*(protocol.lost for protocol in self.protocols))


async def close(server):
    """Close a server completely."""
    server.close()
    await server.wait_closed()


async def test_a_server_serves(loop):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0)
    assert isinstance(server, asyncio.AbstractServer)
    assert server.is_serving()
    assert server.get_loop() is loop
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.sendall(b"hello")
        (protocol,) = await accepted.count(1)
        assert await protocol.received(5) == b"hello"
        assert protocol.transport.get_extra_info("peername") == client.getsockname()
        protocol.transport.write(b"world")
        assert await asyncio.to_thread(receive_exactly, client, 5) == b"world"
        protocol.transport.close()
        await protocol.lost
        assert await asyncio.to_thread(receive_all, client) == b""
    await close(server)
    assert not server.is_serving()


async def test_a_server_started_later(loop):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0, start_serving=False)
    assert not server.is_serving()
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    with socket.create_connection(server.sockets[0].getsockname()):
        await accepted.count(1)
    await accepted.end()
    await close(server)


async def test_serve_forever_ends_by_cancellation(loop):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0)
    task = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already being awaited"):
        await server.serve_forever()
    with socket.create_connection(server.sockets[0].getsockname()):
        await accepted.count(1)
        await accepted.end()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving()


async def test_a_server_is_a_context_manager(loop):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with server as same:
        assert same is server
        assert server.is_serving()
    assert not server.is_serving()


async def test_a_closed_server_cannot_be_started(loop):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()
    server.close()
    with pytest.raises((RuntimeError, TypeError)):
        await server.start_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()
    await server.wait_closed()
    assert server.sockets == ()


async def test_close_refuses_new_connections_and_keeps_the_old(loop):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with socket.create_connection(address) as client:
        (protocol,) = await accepted.count(1)
        server.close()
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        client.sendall(b"still here")
        assert await protocol.received(10) == b"still here"
        await accepted.end()
    await server.wait_closed()


@pytest.mark.skipif(sys.version_info < (3, 12, 1), reason="before 3.12.1 wait_closed did not wait")
async def test_wait_closed_waits_for_the_connections(loop):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()):
        await accepted.count(1)
        server.close()
        waiting = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await accepted.end()
        async with asyncio.timeout(5):
            await waiting


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close_clients came with Python 3.13")
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
async def test_a_server_ends_its_connections(loop, method):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0)
    with (
        socket.create_connection(server.sockets[0].getsockname()) as first,
        socket.create_connection(server.sockets[0].getsockname()) as second,
    ):
        protocols = await accepted.count(2)
        server.close()
        getattr(server, method)()
        async with asyncio.timeout(5):
            await asyncio.gather(*(protocol.lost for protocol in protocols))
            await server.wait_closed()
        if method == "close_clients":
            assert await asyncio.to_thread(receive_all, first) == b""
            assert await asyncio.to_thread(receive_all, second) == b""


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.skipif(sys.version_info < (3, 13), reason="servers know their connections from Python 3.13 on")
async def test_a_server_knows_its_connections_and_keeps_none_alive(loop):
    class Forgotten(asyncio.Protocol):
        def connection_made(self, transport):
            transport.pause_reading()
            if not kept:
                kept.append(transport)
            made.put_nowait(weakref.ref(transport))

    kept: list[asyncio.Transport] = []
    made: asyncio.Queue[weakref.ref[asyncio.Transport]] = asyncio.Queue()
    server = await loop.create_server(Forgotten, "127.0.0.1", 0)
    clients = server._clients
    with (
        socket.create_connection(server.sockets[0].getsockname()),
        socket.create_connection(server.sockets[0].getsockname()),
    ):
        references = [await made.get(), await made.get()]
        first = kept[0]
        await asyncio.sleep(0)
        gc.collect()
        assert [reference() for reference in references] == [first, None]
        assert set(clients) == set(clients.copy()) == {first}
        assert len(clients) == 1
        assert first in clients
        assert server not in clients
        first.close()
        while clients:
            await asyncio.sleep(0)
        assert first not in clients
    server.close_clients()
    await close(server)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="servers know their connections from Python 3.13 on")
async def test_connections_may_outlive_their_server_and_those_who_look_at_them(loop):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0)
    clients = server._clients
    with socket.create_connection(server.sockets[0].getsockname()):
        (protocol,) = await accepted.count(1)
        server.close()
        del server
        gc.collect()
        (transport,) = clients
        transport.abort()
        await protocol.lost
        del transport, protocol
        await accepted.end()
        gc.collect()
        assert not list(clients)


async def test_several_hosts(loop):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, ["127.0.0.1", "127.0.0.2"], 0)
    assert {sock.getsockname()[0] for sock in server.sockets} == {"127.0.0.1", "127.0.0.2"}
    for sock in server.sockets:
        socket.create_connection(sock.getsockname()).close()
    await accepted.count(2)
    await accepted.end()
    await close(server)


async def test_no_host_means_every_interface(loop):
    server = await loop.create_server(asyncio.Protocol, port=0)
    assert "0.0.0.0" in {sock.getsockname()[0] for sock in server.sockets}
    await close(server)


async def test_sockets_are_asyncios(loop):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    assert isinstance(server.sockets, tuple)
    (sock,) = server.sockets
    assert sock.family == socket.AF_INET
    assert sock.type == socket.SOCK_STREAM
    assert sock.fileno() >= 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
    await close(server)


async def test_a_socket_can_be_given(loop):
    accepted = Accepted(loop)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = await loop.create_server(accepted, sock=listener)
        socket.create_connection(listener.getsockname()).close()
        await accepted.count(1)
        await accepted.end()
        await close(server)


async def test_reuse_port_lets_two_servers_share(loop):
    first = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, reuse_port=True)
    port = first.sockets[0].getsockname()[1]
    second = await loop.create_server(asyncio.Protocol, "127.0.0.1", port, reuse_port=True)
    await close(first)
    await close(second)


async def test_a_used_port_is_an_error(loop):
    first = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await loop.create_server(asyncio.Protocol, *first.sockets[0].getsockname())
    await close(first)


async def test_an_address_of_others_is_an_error(loop):
    with pytest.raises(OSError, match=r"assign|bind"):
        await loop.create_server(asyncio.Protocol, "192.0.2.1", 0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, ValueError),
        ({"host": "127.0.0.1", "port": 0, "ssl": True}, TypeError),
        ({"host": "127.0.0.1", "port": 0, "ssl_handshake_timeout": 1}, ValueError),
        ({"host": "127.0.0.1", "port": 0, "ssl_shutdown_timeout": 1}, ValueError),
        ({"host": "127.0.0.1", "port": [1]}, (TypeError, OSError)),
    ],
    ids=str,
)
async def test_wrong_options_are_refused(loop, options, error):
    with pytest.raises(error):
        await loop.create_server(asyncio.Protocol, **options)


async def test_a_socket_and_an_address_exclude_each_other(loop):
    with socket.socket() as listener, pytest.raises(ValueError, match="host/port and sock"):
        await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, sock=listener)
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with datagram, pytest.raises(ValueError, match="Stream Socket"):
        await loop.create_server(asyncio.Protocol, sock=datagram)


async def test_a_port_can_be_used_again_at_once(loop):
    port = unused_port()
    for _ in range(5):
        accepted = Accepted(loop)
        server = await loop.create_server(accepted, "127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            await accepted.count(1)
            await accepted.end()
        await close(server)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_factory_that_fails_is_reported_and_the_server_goes_on(loop, reported):
    loop.set_debug(True)  # asyncio keeps silent otherwise
    accepted = Accepted(loop)
    failing = True

    def factory():
        if failing:
            raise LookupError("no protocol")
        return accepted()

    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with socket.create_connection(address) as client:
        async with asyncio.timeout(5):
            while not reported:
                await asyncio.sleep(0.001)
        assert isinstance(reported.pop()["exception"], LookupError)
        gc.collect()  # asyncio leaves the socket to the garbage collector
        client.settimeout(5)
        assert client.recv(1) == b""
    failing = False
    with socket.create_connection(address):
        await accepted.count(1)
        await accepted.end()
    await close(server)


async def test_two_thousand_connections_opened_and_closed_in_a_row(loop):
    lost = 0

    class Counting(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

        def connection_lost(self, error):
            nonlocal lost
            lost += 1

    server = await loop.create_server(Counting, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in range(2000):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), *address)
        transport.write(b"x")
        assert await protocol.received(1) == b"x"
        transport.close()
        await protocol.lost
    async with asyncio.timeout(10):
        while lost < 2000:
            await asyncio.sleep(0.001)
    await close(server)


async def test_a_thousand_connections_at_once(loop):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = 1000 if soft > 2500 else soft // 3
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0, backlog=number)
    address = server.sockets[0].getsockname()
    clients = await asyncio.gather(
        *(loop.create_connection(lambda: Recorder(loop), *address) for _ in range(number))
    )
    await accepted.count(number)
    for index, (transport, _) in enumerate(clients):
        transport.write(b"%06d" % index)
    received = {await protocol.received(6) for protocol in accepted.protocols}
    assert received == {b"%06d" % index for index in range(number)}
    for transport, _ in clients:
        transport.close()
    await asyncio.gather(*(protocol.lost for _, protocol in clients))
    await asyncio.gather(*(protocol.lost for protocol in accepted.protocols))
    await close(server)


async def test_connections_waiting_before_the_server_starts_are_accepted(loop):
    accepted = Accepted(loop)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(50)]
        server = await loop.create_server(accepted, sock=listener)
        await accepted.count(50)
        for client in clients:
            client.close()
        await asyncio.gather(*(protocol.lost for protocol in accepted.protocols))
        await close(server)


async def test_closing_a_server_twice_while_connections_come_leaves_nothing(loop):
    for _ in range(20):
        accepted = Accepted(loop)
        server = await loop.create_server(accepted, "127.0.0.1", 0)
        clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(5)]
        await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(0)
        await accepted.end()
        for client in clients:
            client.close()
        await asyncio.sleep(0.001)
        await accepted.end()
        await server.wait_closed()


async def test_the_socket_of_a_closed_connection_asked_for_too_late_is_none(loop, is_aioxide):
    accepted = Accepted(loop)
    server = await loop.create_server(accepted, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    (protocol,) = await accepted.count(1)
    client.close()
    await protocol.lost
    sock = protocol.transport.get_extra_info("socket")
    assert sock is None if is_aioxide else sock.fileno() == -1
    await close(server)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="servers know their connections from Python 3.13 on")
async def test_a_connection_may_change_its_server(loop):
    accepted = Accepted(loop)
    servers = [await loop.create_server(accepted, "127.0.0.1", 0) for _ in range(2)]
    first, second = servers
    with socket.create_connection(first.sockets[0].getsockname()):
        (protocol,) = await accepted.count(1)
        second._clients.discard(protocol.transport)
        assert set(first._clients) == {protocol.transport}
        second._attach(protocol.transport)
        assert protocol.transport in second._clients
        second._detach(protocol.transport)
        assert not second._clients
        await accepted.end()
        await asyncio.sleep(0)
        first._clients.discard(protocol.transport)
        del protocol
        accepted.protocols.clear()
        gc.collect()
        assert not list(first._clients)
        assert not list(second._clients)
    for server in servers:
        await close(server)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="servers know their connections from Python 3.13 on")
async def test_a_server_may_have_connections_of_other_kinds(loop):
    class Foreign:
        closed = False

        def close(self):
            self.closed = True

    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    foreign = [Foreign(), Foreign()]
    for transport in foreign:
        server._attach(transport)
    assert len(server._clients) == 2
    assert foreign[0] in server._clients
    server.close_clients()
    assert [transport.closed for transport in foreign] == [True, True]
    server._detach(foreign[0])
    assert set(server._clients) == {foreign[1]}
    del transport, foreign
    assert not server._clients
    server.close()
    await asyncio.sleep(0)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.skipif(sys.version_info < (3, 13), reason="servers know their connections from Python 3.13 on")
def test_who_dies_with_a_connection_does_not_find_it(loop, is_aioxide):
    """Not even where that runs between the connection's last reference and its end."""
    if not is_aioxide:
        pytest.skip("asyncio lets go of everything at once")

    class Looking:
        def called(self, _):
            """Be kept as a bound method."""

        def __del__(self):
            seen.append(list(server._clients))

    class Forgotten(asyncio.Protocol):
        def connection_made(self, transport):
            transport.pause_reading()
            kept.append(transport)

    async def serve():
        server = await loop.create_server(Forgotten, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            while not kept:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        return server

    kept: list[asyncio.Transport] = []
    seen: list[list[asyncio.Transport]] = []
    server = loop.run_until_complete(serve())
    assert len(server._clients) == 1
    other = type(loop)()
    other.set_task_factory(aioxide.native_task_factory)
    future = other.create_future()
    future.set_result(None)
    other.close()
    # What this lets go of goes when an object of aioxide's is destroyed next.
    with pytest.raises(RuntimeError, match="closed"):
        future.add_done_callback(Looking().called)
    kept.clear()
    gc.collect()
    assert seen == [[]]
    assert not list(server._clients)
    server.close()
    loop.run_until_complete(asyncio.sleep(0))
