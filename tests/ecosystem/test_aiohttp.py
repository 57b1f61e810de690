"""aiohttp: its server and its client, talking to each other on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import ssl
from collections.abc import AsyncIterator

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp cannot be had for this Python")
from aiohttp import web  # noqa: E402

LIMIT = 20.0
CHUNK = bytes(range(256)) * 256
CHUNKS = 64
CLOSE_CODES = web.AppKey("CLOSE_CODES", list[int])


async def greet(request: web.Request) -> web.Response:
    return web.json_response({"hello": request.match_info["name"], "method": request.method})


async def digest(request: web.Request) -> web.Response:
    """Answer with the digest of an upload of any size, read as it arrives."""
    seen = hashlib.sha256()
    async for chunk in request.content.iter_any():
        seen.update(chunk)
    return web.Response(text=seen.hexdigest())


async def download(request: web.Request) -> web.StreamResponse:
    """Answer with more than any socket buffer holds, so that the writer waits for the reader."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client may have enough of it
        for _ in range(CHUNKS):
            await response.write(CHUNK)
        await response.write_eof()
    return response


async def port_of_client(request: web.Request) -> web.Response:
    return web.Response(text=str(request.transport.get_extra_info("peername")[1]))


async def chat(request: web.Request) -> web.WebSocketResponse:
    """Send everything back, in capitals if it is text."""
    socket = web.WebSocketResponse(heartbeat=30)
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
        elif message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    request.app[CLOSE_CODES].append(socket.close_code)
    return socket


class Gate:
    """A handler that stays in a request until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def wait(self, request: web.Request) -> web.Response:
        self.entered.set()
        try:
            await self.leave.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return web.Response(text="at last")


@contextlib.asynccontextmanager
async def serving(
    tls: ssl.SSLContext | None = None, **options: object
) -> AsyncIterator[tuple[web.AppRunner, str, Gate]]:
    """Serve the handlers above on a free port: (runner, URL, the handler that waits)."""
    gate = Gate()
    application = web.Application()
    application[CLOSE_CODES] = []
    application.router.add_route("*", "/greet/{name}", greet)
    application.router.add_post("/digest", digest)
    application.router.add_get("/download", download)
    application.router.add_get("/port", port_of_client)
    application.router.add_get("/chat", chat)
    application.router.add_get("/gate", gate.wait)
    runner = web.AppRunner(application, **options)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner, f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}", gate
    finally:
        await runner.cleanup()


async def test_requests_of_every_method_side_by_side(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (_, url, _), aiohttp.ClientSession(url) as session:

        async def ask(number: int) -> None:
            method = ("GET", "POST", "PUT", "PATCH", "DELETE")[number % 5]
            async with session.request(method, f"/greet/{number}") as response:
                assert response.status == 200
                assert await response.json() == {"hello": str(number), "method": method}

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(ask(number))
        async with session.get("/nowhere") as response:
            assert response.status == 404


async def test_bodies_stream_both_ways(loop: asyncio.AbstractEventLoop) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK

    expected = hashlib.sha256(CHUNK * CHUNKS).hexdigest()
    async with serving() as (_, url, _), aiohttp.ClientSession(url) as session:
        async with session.post("/digest", data=body()) as response:
            assert await response.text() == expected
        seen = hashlib.sha256()
        async with session.get("/download") as response:
            async for chunk in response.content.iter_chunked(1 << 16):
                seen.update(chunk)
        assert seen.hexdigest() == expected


async def test_a_download_given_up_leaves_the_server_working(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (_, url, _), aiohttp.ClientSession(url) as session:
        async with session.get("/download") as response:
            assert await response.content.readexactly(1000)
        async with session.get("/greet/again") as response:
            assert response.status == 200


async def test_connections_are_kept_and_shared(loop: asyncio.AbstractEventLoop) -> None:
    connector = aiohttp.TCPConnector(limit=3)
    async with serving() as (_, url, _), aiohttp.ClientSession(url, connector=connector) as session:

        async def port() -> str:
            async with session.get("/port") as response:
                return await response.text()

        assert len({await port() for _ in range(10)}) == 1
        assert len(set(await asyncio.gather(*(port() for _ in range(30))))) <= 3


async def test_a_websocket(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (runner, url, _), aiohttp.ClientSession(url) as session:
        async with session.ws_connect("/chat") as socket:
            for number in range(500):
                await socket.send_str(f"message {number}")
            assert [await socket.receive_str() for _ in range(500)] == [f"MESSAGE {n}" for n in range(500)]
            await socket.send_bytes(CHUNK * 4)
            assert await socket.receive_bytes() == CHUNK * 4
            await socket.ping()
            await socket.send_str("end")
            assert await socket.receive_str() == "END"
            await socket.close(code=4001)
        assert socket.close_code == 1000
        await asyncio.sleep(0)
        assert runner.app[CLOSE_CODES] == [4001]


async def test_a_timeout_ends_the_request_on_both_sides(loop: asyncio.AbstractEventLoop) -> None:
    async with serving(handler_cancellation=True) as (_, url, gate), aiohttp.ClientSession(url) as session:
        while not gate.entered.is_set():  # a slow machine may need more than one
            with pytest.raises(TimeoutError):
                await session.get("/gate", timeout=aiohttp.ClientTimeout(total=0.05))
        await asyncio.wait_for(gate.cancelled.wait(), LIMIT)


async def test_a_cancelled_request_ends_on_both_sides(loop: asyncio.AbstractEventLoop) -> None:
    async with serving(handler_cancellation=True) as (_, url, gate), aiohttp.ClientSession(url) as session:
        request = loop.create_task(session.get("/gate"))
        await gate.entered.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.wait_for(gate.cancelled.wait(), LIMIT)


async def test_a_shutdown_lets_a_request_finish(loop: asyncio.AbstractEventLoop) -> None:
    async with serving(shutdown_timeout=LIMIT) as (runner, url, gate), aiohttp.ClientSession(url) as session:
        request = loop.create_task(session.get("/gate"))
        await gate.entered.wait()
        cleanup = loop.create_task(runner.cleanup())
        while runner.sites:
            await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("/greet/late")
        gate.leave.set()
        async with await request as response:
            assert await response.text() == "at last"
        await cleanup


async def test_over_a_unix_socket(loop: asyncio.AbstractEventLoop, tmp_path: object) -> None:
    path = f"{tmp_path}/http"
    async with serving() as (runner, _, _):
        await web.UnixSite(runner, path).start()
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
            session.get("http://any/greet/unix") as response,
        ):
            assert (await response.json())["hello"] == "unix"


@pytest.mark.usefixtures("failed_handshakes")
async def test_over_tls(
    loop: asyncio.AbstractEventLoop, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    connector = aiohttp.TCPConnector(ssl=client_tls, limit=4)
    async with serving(server_tls) as (_, url, _), aiohttp.ClientSession(url, connector=connector) as session:

        async def ask(number: int) -> None:
            async with session.get(f"/greet/{number}") as response:
                assert (await response.json())["hello"] == str(number)

        await asyncio.gather(*(ask(number) for number in range(40)))
        async with session.get("/download") as response:
            assert await response.read() == CHUNK * CHUNKS
        async with session.post("/digest", data=io.BytesIO(CHUNK * CHUNKS)) as response:
            assert await response.text() == hashlib.sha256(CHUNK * CHUNKS).hexdigest()
        async with session.ws_connect("/chat") as socket:
            for number in range(50):
                await socket.send_str(f"message {number}")
                assert await socket.receive_str() == f"MESSAGE {number}"
        async with aiohttp.ClientSession(url) as distrustful:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await distrustful.get("/greet/nobody")
