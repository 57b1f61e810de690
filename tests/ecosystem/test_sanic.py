"""Sanic: its server in the loop under test, and as a single process that makes its loop itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sanic = pytest.importorskip("sanic", reason="sanic cannot be had for this Python")
httpx = pytest.importorskip("httpx", reason="httpx, the client, cannot be had for this Python")
websockets = pytest.importorskip("websockets", reason="websockets, the client, cannot be had for this Python")

LIMIT = 20.0
CHUNK = bytes(range(256)) * 256
CHUNKS = 64

numbers = itertools.count()


def make_application() -> sanic.Sanic:
    application = sanic.Sanic(f"under_test_{next(numbers)}", configure_logging=False)
    application.config.TOUCHUP = False  # it rewrites Sanic's own classes, and only once in a process

    @application.get("/greet/<name>")
    async def greet(request: sanic.Request, name: str) -> sanic.HTTPResponse:
        return sanic.json({"hello": name, "loop": repr(asyncio.get_running_loop())})

    @application.post("/digest", stream=True)
    async def digest(request: sanic.Request) -> sanic.HTTPResponse:
        seen = hashlib.sha256()
        while chunk := await request.stream.read():
            seen.update(chunk)
        return sanic.text(seen.hexdigest())

    @application.get("/download")
    async def download(request: sanic.Request) -> None:
        response = await request.respond()
        for _ in range(CHUNKS):
            await response.send(CHUNK)
        await response.eof()

    @application.websocket("/chat")
    async def chat(request: sanic.Request, socket: sanic.Websocket) -> None:
        async for message in socket:
            await socket.send(message.upper())

    return application


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve on a free port, as an application that has a loop already does."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = await make_application().create_server(sock=listener, ssl=tls, return_asyncio_server=True)
    await server.startup()
    await server.start_serving()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for connection in list(server.connections):
            connection.close_if_idle()
        await server.close()
        # Sanic cancels the tasks of its connections and does not wait for them.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=LIMIT)


async def body() -> AsyncIterator[bytes]:
    for _ in range(CHUNKS):
        yield CHUNK


async def test_a_server_in_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as address:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=LIMIT, trust_env=False) as client:
            answers = await asyncio.gather(*(client.get(f"/greet/{number}") for number in range(50)))
            assert [answer.json()["hello"] for answer in answers] == [str(number) for number in range(50)]
            expected = hashlib.sha256(CHUNK * CHUNKS).hexdigest()
            assert (await client.post("/digest", content=body())).text == expected
            assert (await client.get("/download")).content == CHUNK * CHUNKS
            assert (await client.get("/nowhere")).status_code == 404
        async with websockets.connect(f"ws://{address}/chat") as connection:
            for number in range(100):
                await connection.send(f"message {number}")
                assert await connection.recv() == f"MESSAGE {number}"


async def test_over_tls(
    loop: asyncio.AbstractEventLoop, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with (
        serving(server_tls) as address,
        httpx.AsyncClient(base_url=f"https://{address}", verify=client_tls, trust_env=False) as client,
    ):
        assert (await client.get("/greet/secret")).json()["hello"] == "secret"
        assert (await client.get("/download")).content == CHUNK * CHUNKS


def test_a_single_process(loop_name: str, loop_environment: dict[str, str], is_aioxide: bool) -> None:
    """`app.run(single_process=True)` makes its loop with asyncio.new_event_loop."""
    install = "import aioxide._everywhere; aioxide._everywhere.use_everywhere(aioxide.EventLoop)"
    lines = (
        f"import socket; from {Path(__file__).stem} import make_application",
        install if is_aioxide else "",
        "listener = socket.create_server(('127.0.0.1', 0))",
        "print(listener.getsockname()[1], flush=True)",
        "application = make_application()",
        "application.config.USE_UVLOOP = False",
        "application.run(sock=listener, single_process=True, motd=False, access_log=False)",
        "print('ended', flush=True)",
    )
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=Path(__file__).parent,
        env=loop_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            port = int(process.stdout.readline())
            answer = httpx.get(f"http://127.0.0.1:{port}/greet/you", timeout=LIMIT, trust_env=False)
            expected = f"driver={loop_name}" if is_aioxide else "_UnixSelectorEventLoop"
            assert expected in answer.json()["loop"]
            process.send_signal(signal.SIGTERM)
            printed = process.stdout.read()
        finally:
            process.kill()
    assert process.returncode == 0, printed
    assert "ended" in printed
    assert not re.search("Traceback|Error", printed), printed
