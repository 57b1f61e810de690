"""Web servers and clients that people use, with the smallest application there is.

Imported only by a process that measures one of them, beside the modules of `aioxide.bench` (see its
`launch.py`): they are other people's packages.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from .scheduling import expect

HOST = "127.0.0.1"
BACKLOG = 1024
BODY = b"Hello, world!"
WORKERS = 16
"""Requests of the client in flight at once."""


class Running:
    """A server that is up, and where it listens."""

    def __init__(self, listener: socket.socket, keep: object) -> None:
        self.sockets = (listener,)
        self.keep = keep


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer any request, as ASGI wants it."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def uvicorn_server(message_bytes: int) -> Running:
    """Serve `application` with uvicorn and httptools."""
    import uvicorn

    config = uvicorn.Config(
        application, http="httptools", ws="none", lifespan="off", log_level="critical", access_log=False
    )
    server = uvicorn.Server(config)
    listener = socket.create_server((HOST, 0), backlog=BACKLOG)
    task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    return Running(listener, task)


async def aiohttp_server(message_bytes: int) -> Running:
    """Serve a page with aiohttp."""
    from aiohttp import web

    async def page(request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = socket.create_server((HOST, 0), backlog=BACKLOG)
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    return Running(listener, runner)


async def aiohttp_client(count: int, port: int) -> None:
    """Ask for the same page again and again, several at a time, on connections that are kept."""
    import aiohttp

    url = f"http://{HOST}:{port}/"
    answers: list[bytes] = []

    async def ask(session: aiohttp.ClientSession, times: int) -> None:
        for _ in range(times):
            async with session.get(url) as response:
                answers.append(await response.read())

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*[ask(session, count // WORKERS) for _ in range(WORKERS)])
    expect(answers.count(BODY), count)


SERVERS: dict[str, Callable[[int], Awaitable[Running]]] = {
    "uvicorn": uvicorn_server,
    "aiohttp": aiohttp_server,
}
CLIENTS: dict[str, Callable[[int, int], Awaitable[None]]] = {"aiohttp_client": aiohttp_client}
