"""The echo servers under load, as a reader of asyncio's documentation would write them.

`SERVERS` maps the names used in `rows.py` to coroutine functions that start a server on a free port
of the loopback interface and return it, or the transport of its datagrams. Every one returns exactly
the bytes it gets. Transports are not checked for their class: some loops under comparison do not derive
theirs from asyncio's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

HOST = "127.0.0.1"
BACKLOG = 1024
"""A thousand connections arrive at once."""
READ_SIZE = 64 * 1024


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


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo with streams, waiting for the peer to take what it is sent."""
    try:
        while data := await reader.read(READ_SIZE):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def protocol(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `Echo`."""
    return await asyncio.get_running_loop().create_server(Echo, HOST, 0, backlog=BACKLOG)


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


async def native_streams(message_bytes: int) -> asyncio.AbstractServer:
    """Serve `echo_stream` with aioxide's own streams; other loops have asyncio's."""
    from aioxide import start_server

    return await start_server(echo_stream, HOST, 0, backlog=BACKLOG)


class DatagramEcho(asyncio.DatagramProtocol):
    """Send every datagram back to where it came from."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Echo one datagram."""
        self.transport.sendto(data, addr)


async def datagrams(message_bytes: int) -> asyncio.DatagramTransport:
    """Serve `DatagramEcho`."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(DatagramEcho, local_addr=(HOST, 0))
    return transport


Start = Callable[[int], Awaitable[asyncio.AbstractServer | asyncio.DatagramTransport]]

SERVERS: dict[str, Start] = {
    "answers": answers,
    "buffered": buffered,
    "datagrams": datagrams,
    "native_streams": native_streams,
    "protocol": protocol,
    "streams": streams,
}
