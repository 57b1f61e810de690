"""httpx's client on the loop under test, against aiohttp's server on the same loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator

import pytest

httpx = pytest.importorskip("httpx", reason="httpx cannot be had for this Python")
web = pytest.importorskip(
    "aiohttp.web", reason="aiohttp, whose server answers, cannot be had for this Python"
)

LIMIT = 20.0
CHUNK = bytes(range(256)) * 256
CHUNKS = 64


class Server:
    """Handlers that count how many requests they are in at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.entered = asyncio.Event()
        self.gone = asyncio.Event()

    async def json(self, request: web.Request) -> web.Response:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        return web.json_response(
            {"path": request.path, "query": dict(request.query), "peer": port_of(request)}
        )

    async def digest(self, request: web.Request) -> web.Response:
        seen = hashlib.sha256()
        async for chunk in request.content.iter_any():
            seen.update(chunk)
        return web.Response(text=seen.hexdigest())

    async def download(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the client may have enough of it
            for _ in range(CHUNKS):
                await response.write(CHUNK)
        return response

    async def redirect(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/json/redirected")

    async def never(self, request: web.Request) -> web.Response:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.gone.set()


def port_of(request: web.Request) -> int:
    return request.transport.get_extra_info("peername")[1]


@contextlib.asynccontextmanager
async def serving(
    tls: ssl.SSLContext | None = None, **options: object
) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    """Serve on a free port, with a client for it."""
    server = Server()
    application = web.Application()
    application.router.add_get("/json/{name}", server.json)
    application.router.add_post("/digest", server.digest)
    application.router.add_get("/download", server.download)
    application.router.add_get("/redirect", server.redirect)
    application.router.add_get("/never", server.never)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False, **options) as client:
            yield server, client
    finally:
        await runner.cleanup()


async def test_requests_side_by_side(loop: asyncio.AbstractEventLoop) -> None:
    async with serving(limits=httpx.Limits(max_connections=4)) as (server, client):
        answers = await asyncio.gather(*(client.get(f"/json/{n}", params={"n": n}) for n in range(100)))
        for number, answer in enumerate(answers):
            assert answer.json()["path"] == f"/json/{number}"
            assert answer.json()["query"] == {"n": str(number)}
        assert 1 <= server.most <= 4
        assert len({answer.json()["peer"] for answer in answers}) <= 4
        assert (await client.get("/nowhere")).status_code == 404
        answer = await client.get("/redirect", follow_redirects=True)
        assert (answer.json()["path"], len(answer.history)) == ("/json/redirected", 1)


async def test_bodies_stream_both_ways(loop: asyncio.AbstractEventLoop) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield CHUNK

    expected = hashlib.sha256(CHUNK * CHUNKS).hexdigest()
    async with serving() as (_, client):
        assert (await client.post("/digest", content=body())).text == expected
        seen = hashlib.sha256()
        async with client.stream("GET", "/download") as response:
            async for chunk in response.aiter_bytes():
                seen.update(chunk)
        assert seen.hexdigest() == expected
        async with client.stream("GET", "/download") as response:
            assert await anext(response.aiter_raw(1000))  # and no more of it
        assert (await client.get("/json/again")).status_code == 200


async def test_timeouts(loop: asyncio.AbstractEventLoop) -> None:
    async with serving(limits=httpx.Limits(max_connections=1)) as (server, client):
        while not server.entered.is_set():  # a slow machine may need more than one
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/never", timeout=httpx.Timeout(LIMIT, read=0.05))
        await asyncio.wait_for(server.gone.wait(), LIMIT)
        async with client.stream("GET", "/download"):
            with pytest.raises(httpx.PoolTimeout):
                await client.get("/json/late", timeout=httpx.Timeout(LIMIT, pool=0.05))
        assert (await client.get("/json/again")).status_code == 200


async def test_a_cancelled_request_gives_its_connection_back(loop: asyncio.AbstractEventLoop) -> None:
    async with serving(limits=httpx.Limits(max_connections=1)) as (server, client):
        request = loop.create_task(client.get("/never"))
        waiting = loop.create_task(client.get("/json/next"))
        await asyncio.wait_for(server.entered.wait(), LIMIT)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (await waiting).status_code == 200
        await asyncio.wait_for(server.gone.wait(), LIMIT)


async def test_nobody_listens(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (_, client):
        port = client.base_url.port
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/")


@pytest.mark.usefixtures("failed_handshakes")
async def test_over_tls(
    loop: asyncio.AbstractEventLoop, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with serving(server_tls, verify=client_tls) as (_, client):
        answers = await asyncio.gather(*(client.get(f"/json/{number}") for number in range(20)))
        assert [answer.json()["path"] for answer in answers] == [f"/json/{number}" for number in range(20)]
        assert (await client.get("/download")).content == CHUNK * CHUNKS
        async with httpx.AsyncClient(base_url=client.base_url, trust_env=False) as distrustful:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await distrustful.get("/json/nobody")
