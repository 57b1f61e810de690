"""Every operation, cancelled at every one of its suspensions: nothing leaks and the loop goes on."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import subprocess

import pytest
from interrupting import MOMENTS, interrupt_everywhere
from leaks import children
from peers import connected_pair, listening
from recorder import Recorder

pytestmark = pytest.mark.parametrize("moment", MOMENTS)


@contextlib.asynccontextmanager
async def echoing(loop):
    """A server of this loop that sends back what it gets."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            transports.append(transport)

        def data_received(self, data):
            self.transport.write(data)

    transports: list[asyncio.Transport] = []
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()
    for transport in transports:
        transport.abort()
    await server.wait_closed()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_create_connection(loop, moment, host):
    with listening(backlog=128) as server:
        port = server.getsockname()[1]

        async def operation():
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), host, port)
            try:
                await protocol.made
            finally:
                transport.abort()

        async def settled():
            server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    server.accept()[0].close()

        assert await interrupt_everywhere(operation, moment, settled)


async def test_create_connection_that_is_refused(loop, moment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses for as long as it lives

        async def operation():
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(asyncio.Protocol, *taken.getsockname())

        assert await interrupt_everywhere(operation, moment)


async def test_create_connection_from_a_socket(loop, moment):
    async def operation():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            transport, _ = await loop.create_connection(lambda: Recorder(loop), sock=ours)
            transport.abort()

    assert await interrupt_everywhere(operation, moment)


async def test_create_unix_connection(loop, moment, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(128)
        server.setblocking(False)

        async def operation():
            transport, protocol = await loop.create_unix_connection(lambda: Recorder(loop), path)
            try:
                await protocol.made
            finally:
                transport.abort()

        async def settled():
            with contextlib.suppress(BlockingIOError):
                while True:
                    server.accept()[0].close()

        assert await interrupt_everywhere(operation, moment, settled)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_create_server(loop, moment, host):
    async def operation():
        server = await loop.create_server(asyncio.Protocol, host, 0, start_serving=False)
        async with server:
            await server.start_serving()

    assert await interrupt_everywhere(operation, moment)


@pytest.mark.parametrize("kind", ["tcp", "unix", "streams"])
async def test_a_server_cancelled_while_it_starts_is_closed(loop, moment, kind, tmp_path, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio leaves a server behind that listens and that nobody holds")
    path = str(tmp_path / "socket")

    async def operation():
        if kind == "tcp":
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        elif kind == "unix":
            server = await loop.create_unix_server(asyncio.Protocol, path)
        else:
            server = await asyncio.start_server(print, "localhost", 0)
        server.close()
        await server.wait_closed()

    assert await interrupt_everywhere(operation, moment)


async def test_serve_forever(loop, moment):
    async def operation():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, start_serving=False)
        loop.call_later(0.002, server.close)
        with contextlib.suppress(asyncio.CancelledError):  # how `serve_forever` ends
            await server.serve_forever()

    assert await interrupt_everywhere(operation, moment)


async def test_wait_closed_of_a_server_with_connections(loop, moment, is_aioxide):
    if not is_aioxide and moment == "early":
        pytest.skip("asyncio drops a connection, unclosed, that came in the turn that closed its server")

    async def operation():
        protocol = Recorder(loop)
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, start_serving=False)
        async with server:
            await server.start_serving()
            with socket.create_connection(server.sockets[0].getsockname()):
                await asyncio.shield(protocol.made)
                server.close()
            await server.wait_closed()

    assert await interrupt_everywhere(operation, moment)


async def test_streams(loop, moment):
    data = b"0123456789" * 100_000
    async with echoing(loop) as address:

        async def operation():
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(data)
                await writer.drain()
                assert await reader.readexactly(len(data)) == data
            finally:
                writer.close()
            await writer.wait_closed()

        assert await interrupt_everywhere(operation, moment)


async def test_start_server(loop, moment, is_aioxide):
    if not is_aioxide and moment == "early":
        pytest.skip("asyncio drops a connection, unclosed, that came in the turn that closed its server")

    async def operation():
        async def serve(reader, writer):
            try:
                writer.write(await reader.readline())
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, start_serving=False)
        async with server:
            await server.start_serving()
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.sendall(b"hello\n")
                client.setblocking(False)
                assert await loop.sock_recv(client, 10) == b"hello\n"

    assert await interrupt_everywhere(operation, moment)


async def test_socket_calls(loop, moment):
    async def operation():
        with socket.socket() as listener, socket.socket() as client:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.setblocking(False)
            client.setblocking(False)
            accepting = loop.create_task(loop.sock_accept(listener))
            try:
                await loop.sock_connect(client, listener.getsockname())
                connection, _ = await asyncio.shield(accepting)
            finally:
                if not accepting.done():
                    accepting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await accepting
                    accepting.result()[0].close()
            connection.close()

    assert await interrupt_everywhere(operation, moment)


async def test_sock_accept_recv_sendall(loop, moment):
    async def operation():
        with connected_pair() as (ours, theirs):
            theirs.setblocking(False)
            data = bytes(8 << 20)
            sending = loop.create_task(loop.sock_sendall(ours, data))
            try:
                received = 0
                buffer = bytearray(1 << 20)
                while received < len(data):
                    received += await loop.sock_recv_into(theirs, buffer)
                await sending
                closing = loop.call_later(0.001, ours.shutdown, socket.SHUT_WR)
                try:
                    assert await loop.sock_recv(theirs, 1) == b""
                finally:
                    closing.cancel()
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    assert await interrupt_everywhere(operation, moment)


async def test_datagrams_of_sockets(loop, moment):
    async def operation():
        with socket.socket(type=socket.SOCK_DGRAM) as ours, socket.socket(type=socket.SOCK_DGRAM) as theirs:
            for sock in (ours, theirs):
                sock.bind(("127.0.0.1", 0))
                sock.setblocking(False)
            sending = loop.call_later(0.001, theirs.sendto, b"hello", ours.getsockname())
            try:
                data, address = await loop.sock_recvfrom(ours, 10)
            finally:
                sending.cancel()
            assert await loop.sock_sendto(ours, data, address) == 5
            assert await loop.sock_recvfrom_into(theirs, bytearray(10)) == (5, ours.getsockname())

    assert await interrupt_everywhere(operation, moment)


async def test_create_datagram_endpoint(loop, moment):
    async def operation():
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("localhost", 0), family=socket.AF_INET
        )
        try:
            connected, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=transport.get_extra_info("sockname")
            )
            connected.sendto(b"hello")
            connected.close()
        finally:
            transport.abort()

    assert await interrupt_everywhere(operation, moment)


async def test_pipes(loop, moment):
    async def operation():
        reading, writing = (
            os.fdopen(file, mode, 0) for file, mode in zip(os.pipe(), ("rb", "wb"), strict=True)
        )
        with contextlib.ExitStack() as files:
            files.callback(loop.call_later, 0.001, reading.close)
            files.callback(loop.call_later, 0.001, writing.close)
            protocol = Recorder(loop)
            source, _ = await loop.connect_read_pipe(lambda: protocol, reading)
            files.callback(source.close)
            sink, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, writing)
            files.callback(sink.abort)
            sink.write(b"hello")
            assert await protocol.received(5) == b"hello"

    assert await interrupt_everywhere(operation, moment)


@pytest.mark.parametrize("kind", ["transport", "socket", "fallback"])
async def test_sendfile(loop, moment, kind, tmp_path):
    size = 2 << 20
    path = tmp_path / "file"
    path.write_bytes(bytes(size))

    async def send(ours, file):
        if kind == "socket":
            return await loop.sock_sendfile(ours, file)
        transport, _ = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        try:
            return await loop.sendfile(transport, file)
        finally:
            transport.abort()

    async def operation():
        with connected_pair() as (ours, theirs):
            theirs.setblocking(False)
            file = io.BytesIO(bytes(size)) if kind == "fallback" else path.open("rb")
            with file:
                sending = loop.create_task(send(ours.dup(), file) if kind != "socket" else send(ours, file))
                try:
                    received = 0
                    while received < size:
                        received += len(await loop.sock_recv(theirs, 1 << 18))
                    assert await sending == size
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)

    assert await interrupt_everywhere(operation, moment)


async def test_getaddrinfo_and_getnameinfo(loop, moment):
    async def operation():
        assert await loop.getaddrinfo("localhost", "http", type=socket.SOCK_STREAM)
        assert await loop.getnameinfo(("127.0.0.1", 80))

    assert await interrupt_everywhere(operation, moment)


async def test_run_in_executor(loop, moment):
    async def operation():
        assert await loop.run_in_executor(None, int, "1") == 1
        assert await asyncio.to_thread(int, "2") == 2

    assert await interrupt_everywhere(operation, moment)


async def test_a_subprocess(loop, moment):
    async def operation():
        process = await asyncio.create_subprocess_exec(
            *("cat",), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            output, _ = await process.communicate(b"hello")
            assert output == b"hello"
            assert process.returncode == 0
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process._transport.close()

    async def settled():
        async with asyncio.timeout(10):
            while children():
                await asyncio.sleep(0.002)

    assert await interrupt_everywhere(operation, moment, settled)


async def test_timeouts_and_waits(loop, moment):
    async def operation():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 0.001)
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001))
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.001))
        await asyncio.wait([loop.create_task(asyncio.sleep(0))])

    assert await interrupt_everywhere(operation, moment)
