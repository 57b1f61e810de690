"""websockets: its server and its client, talking to each other on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

websockets = pytest.importorskip("websockets", reason="websockets cannot be had for this Python")
from websockets.asyncio.client import connect, unix_connect  # noqa: E402
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve, unix_serve  # noqa: E402

LIMIT = 20.0


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def serving(
    handler: Callable[..., object] = echo, **options: object
) -> AsyncIterator[tuple[Server, str]]:
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        yield server, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_many_messages_on_many_connections(loop: asyncio.AbstractEventLoop) -> None:
    async def converse(url: str, name: int) -> None:
        async with connect(url) as connection:
            for number in range(100):
                await connection.send(f"{name}: {number}")
                assert await connection.recv() == f"{name}: {number}"

    async with serving() as (_, url), asyncio.TaskGroup() as group:
        for name in range(20):
            group.create_task(converse(url, name))


async def test_messages_sent_before_any_is_read(loop: asyncio.AbstractEventLoop) -> None:
    """Both ends meet their limits: the sender is held up and every message still arrives."""

    async def send(connection: websockets.ClientConnection) -> None:
        for number in range(400):
            await connection.send(number.to_bytes(4) * 4096)

    async with serving(compression=None) as (_, url), connect(url, compression=None) as connection:
        sending = loop.create_task(send(connection))
        for number in range(400):
            assert await connection.recv() == number.to_bytes(4) * 4096
        await sending


async def test_a_large_and_a_fragmented_message(loop: asyncio.AbstractEventLoop) -> None:
    async def fragments() -> AsyncIterator[str]:
        for letter in "fragmented":
            yield letter
            await asyncio.sleep(0)

    async with serving(max_size=None) as (_, url), connect(url, max_size=None) as connection:
        large = bytes(range(256)) * 8192
        await connection.send(large)
        assert await connection.recv() == large
        await connection.send(fragments())
        assert await connection.recv() == "fragmented"
        await connection.send([b"a", b"", b"b"])
        assert b"".join([part async for part in connection.recv_streaming()]) == b"ab"


async def test_pings(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (_, url), connect(url, ping_interval=0.01) as connection:
        latencies = [await (await connection.ping()) for _ in range(50)]
        assert all(0 <= latency < LIMIT for latency in latencies)
        while not connection.latency:  # measured by the pings of the client's own
            await asyncio.sleep(0.005)


async def test_close_handshakes_from_either_side(loop: asyncio.AbstractEventLoop) -> None:
    closed: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def handler(connection: ServerConnection) -> None:
        if await connection.recv() == "close":
            await connection.close(4000, "as you wish")
        await connection.wait_closed()
        closed.put_nowait((connection.close_code, connection.close_reason))

    async with serving(handler) as (_, url):
        async with connect(url) as connection:
            await connection.send("stay")
            await connection.close(4001, "enough")
        assert await closed.get() == (4001, "enough")
        async with connect(url) as connection:
            await connection.send("close")
            with pytest.raises(websockets.ConnectionClosedError) as caught:
                await connection.recv()
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "as you wish")
        assert await closed.get() == (4000, "as you wish")
        async with connect(url) as connection:
            connection.transport.abort()
            with pytest.raises(websockets.ConnectionClosedError):
                await connection.recv()


async def test_a_broadcast(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (server, url), contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connect(url)) for _ in range(30)]
        for connection in connections:  # answered by the handler, so the server counts it
            await connection.send("ready")
            assert await connection.recv() == "ready"
        assert len(server.connections) == 30
        broadcast(server.connections, "to all")
        assert await asyncio.gather(*(connection.recv() for connection in connections)) == ["to all"] * 30


async def test_a_server_that_closes_tells_its_clients(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (server, url), connect(url) as connection:
        server.close()
        with pytest.raises(websockets.ConnectionClosedOK) as caught:
            await connection.recv()
        assert caught.value.rcvd.code == 1001
        await server.wait_closed()


async def test_timeouts_and_cancellation_lose_no_message(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (_, url), connect(url) as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connection.recv()
        receiving = loop.create_task(connection.recv())
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        await connection.send("still here")
        assert await connection.recv() == "still here"


async def test_a_handshake_that_never_ends_times_out(loop: asyncio.AbstractEventLoop) -> None:
    ended = loop.create_future()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
            writer.close()
            await writer.wait_closed()
        ended.set_result(None)

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            await connect(f"ws://127.0.0.1:{port}", open_timeout=0.05)
        await ended


async def test_over_a_unix_socket(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with unix_serve(echo, path), unix_connect(path) as connection:
        await connection.send("unix")
        assert await connection.recv() == "unix"


async def test_over_tls(
    loop: asyncio.AbstractEventLoop, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with serving(ssl=server_tls) as (server, _):
        url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(url, ssl=client_tls, max_size=None) as connection:
            for number in range(100):
                await connection.send(f"secret {number}")
                assert await connection.recv() == f"secret {number}"
            await connection.send(bytes(1 << 20))
            assert await connection.recv() == bytes(1 << 20)
        assert connection.close_code == 1000
