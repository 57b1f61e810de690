"""loop.sendfile over TLS: the file is read and enciphered, with the same results as without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from peers import LIMIT, receive_exactly, reset
from recorder import Recorder
from tls_peers import NAME, client_context, server_context

pytestmark = pytest.mark.usefixtures("tls_engine")

SIZE = 1_500_007
CONTENT = random.Random(7).randbytes(SIZE)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        yield file


@contextlib.asynccontextmanager
async def connection(loop) -> AsyncIterator[tuple[Any, Recorder, Any]]:
    """(transport of a server's connection, protocol, blocking TLS client)."""
    protocol = Recorder(loop)
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0, ssl=server_context())

    def connect():
        plain = socket.create_connection(server.sockets[0].getsockname(), timeout=LIMIT)
        return client_context().wrap_socket(plain, server_hostname=NAME)

    with await asyncio.to_thread(connect) as client:
        server.close()
        yield await protocol.made, protocol, client
        protocol.transport.abort()
        await protocol.lost
        await asyncio.sleep(0)


@pytest.mark.parametrize(("offset", "count"), [(0, None), (0, 1), (5, 100_000), (SIZE - 3, 10), (SIZE, None)])
async def test_exactly_the_bytes_of_a_range_arrive(loop, file, offset, count):
    wanted = CONTENT[offset:] if count is None else CONTENT[offset : offset + count]
    async with connection(loop) as (transport, protocol, client):
        receiving = asyncio.create_task(asyncio.to_thread(receive_exactly, client, len(wanted) + 12))
        transport.write(b"before")
        assert await loop.sendfile(transport, file, offset, count) == len(wanted)
        transport.write(b"behind")
        assert transport.is_reading()
        assert transport.get_protocol() is protocol
        assert await receiving == b"before" + wanted + b"behind"
    assert file.tell() == offset + len(wanted)


async def test_there_is_no_sendfile_without_the_fallback(loop, file):
    async with connection(loop) as (transport, _, _):
        with pytest.raises(RuntimeError, match="fallback is disabled"):
            await loop.sendfile(transport, file, fallback=False)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_a_cancelled_file_leaves_a_connection_in_order(loop, file, steps):
    async with connection(loop) as (transport, protocol, client):
        task = asyncio.create_task(loop.sendfile(transport, file))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert transport.is_reading()
        assert transport.get_protocol() is protocol

        def receive():
            data = b""
            while not data.endswith(b"afterwards"):
                data += client.recv(1 << 16)
            return data

        transport.write(b"afterwards")
        data = await asyncio.to_thread(receive)
    sent = len(data) - len(b"afterwards")
    assert data[:sent] == CONTENT[:sent]


async def test_a_peer_that_resets_ends_the_file(loop, tmp_path):
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(64 << 20)
        async with connection(loop) as (transport, protocol, client):
            task = asyncio.create_task(loop.sendfile(transport, file))
            await asyncio.to_thread(receive_exactly, client, 100_000)
            reset(client)
            with pytest.raises(ConnectionError):
                await task
            await protocol.lost
