"""The servers under load, as a reader of asyncio's documentation would write them.

`SERVERS` maps the names used in `rows.py` to coroutine functions that start a server on a free port of the
loopback interface, or on a Unix socket, and return what tells its address. Every one echoes exactly the
bytes it gets. Transports are not checked for their class: some loops under comparison do not derive theirs
from asyncio's.
"""

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

HOST = "127.0.0.1"
BACKLOG = 1024
"""A thousand connections arrive at once."""
READ_SIZE = 64 * 1024
DIRECTORY = "BENCHMARK_DIRECTORY"
"""The environment variable that names the run's folder: certificates, and room for a socket's path."""


class Echo(asyncio.Protocol):
    """Write back whatever arrives."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Echo one chunk."""
        self.transport.write(data)


class Answers(Echo):
    """Answer each small message with a write of its own, as servers of pipelined requests do."""

    def __init__(self, message_bytes: int) -> None:
        self.message_bytes = message_bytes
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """Cut the stream into messages and echo them one by one."""
        data = self.rest + data
        end = len(data) - len(data) % self.message_bytes
        for start in range(0, end, self.message_bytes):
            self.transport.write(data[start : start + self.message_bytes])
        self.rest = data[end:]


class BufferedEcho(asyncio.BufferedProtocol):
    """Receive into memory of our own and write it back."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(READ_SIZE))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the whole buffer."""
        return self.memory

    def buffer_updated(self, nbytes: int) -> None:
        """Echo a copy: the transport may keep it while the buffer is filled again."""
        self.transport.write(bytes(self.memory[:nbytes]))


class DatagramEcho(asyncio.DatagramProtocol):
    """Send every datagram back to where it came from."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Echo one datagram."""
        self.transport.sendto(data, addr)


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo with streams, waiting for the peer to take what it is sent."""
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def echo_socket(connection: socket.socket) -> None:
    """Echo with the loop's socket calls."""
    loop = asyncio.get_running_loop()
    with connection:
        while data := await loop.sock_recv(connection, READ_SIZE):
            await loop.sock_sendall(connection, data)


async def accept_sockets(listener: socket.socket) -> None:
    """Start a task for every connection."""
    loop = asyncio.get_running_loop()
    tasks = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(echo_socket(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def secured() -> ssl.SSLContext:
    """Make the context of a TLS server from the certificate of the run."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(Path(os.environ[DIRECTORY], "server.pem"))
    return context


async def protocol(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `Echo`."""
    return await asyncio.get_running_loop().create_server(Echo, HOST, 0, backlog=BACKLOG)


async def tls_protocol(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `Echo` over TLS."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(Echo, HOST, 0, backlog=BACKLOG, ssl=secured())


async def unix(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `Echo` on a Unix socket."""
    path = Path(os.environ[DIRECTORY], f"socket-{os.getpid()}")
    return await asyncio.get_running_loop().create_unix_server(Echo, str(path), backlog=BACKLOG)


async def answers(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `Answers`."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Answers(message_bytes), HOST, 0, backlog=BACKLOG)


async def buffered(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `BufferedEcho`."""
    return await asyncio.get_running_loop().create_server(BufferedEcho, HOST, 0, backlog=BACKLOG)


async def streams(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `echo_stream`."""
    return await asyncio.start_server(echo_stream, HOST, 0, backlog=BACKLOG)


async def tls_streams(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `echo_stream` over TLS."""
    return await asyncio.start_server(echo_stream, HOST, 0, backlog=BACKLOG, ssl=secured())


async def native_streams(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `echo_stream` with the streams that the loop's module brings along, else with asyncio's."""
    # The loop's module is imported already; in the process of another loop aioxide is not.
    module: Any = sys.modules.get("aioxide", asyncio)
    start = getattr(module, "start_server", asyncio.start_server)
    return cast(asyncio.AbstractServer, await start(echo_stream, HOST, 0, backlog=BACKLOG))


async def sockets(message_bytes: int) -> asyncio.Task[None]:
    """Serve `echo_socket`."""
    listener = socket.create_server((HOST, 0), backlog=BACKLOG)
    listener.setblocking(False)
    task = asyncio.get_running_loop().create_task(accept_sockets(listener))
    task.sockets = (listener,)  # type: ignore[attr-defined]
    return task


async def datagrams(message_bytes: int) -> asyncio.DatagramTransport:
    """Serve `DatagramEcho`."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(DatagramEcho, local_addr=(HOST, 0))
    return transport


Start = Callable[[int], Awaitable[Any]]

SERVERS: dict[str, Start] = {
    start.__name__: start
    for start in (
        answers,
        buffered,
        datagrams,
        native_streams,
        protocol,
        sockets,
        streams,
        tls_protocol,
        tls_streams,
        unix,
    )
}
