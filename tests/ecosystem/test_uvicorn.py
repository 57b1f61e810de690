"""uvicorn with an ASGI application: as the program that people start, and inside a loop that is theirs."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn cannot be had for this Python")
pytest.importorskip("h11", reason="h11 cannot be had for this Python")
pytest.importorskip("httptools", reason="httptools cannot be had for this Python")
sync_client = pytest.importorskip("websockets.sync.client", reason="websockets cannot be had for this Python")

LIMIT = 20.0
CHUNK = bytes(range(256)) * 256
CHUNKS = 64

each_parser = pytest.mark.parametrize("parser", ["h11", "httptools"])


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application: a greeting, an echo of what is streamed to it, a long download, a WebSocket."""
    match scope["type"], scope.get("path"):
        case "lifespan", _:
            for phase in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{phase}"
                print(f"lifespan {phase}", flush=True)
                await send({"type": f"lifespan.{phase}.complete"})
        case "websocket", _:
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            while (event := await receive())["type"] != "websocket.disconnect":
                await send({"type": "websocket.send", "text": event["text"].upper()})
            print(f"websocket closed with {event['code']}", flush=True)
        case _, "/":
            loop = asyncio.get_running_loop()
            name = f"{type(loop).__module__} {loop!r}".encode()
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
            )
            await send({"type": "http.response.body", "body": name})
        case _, "/echo":
            await send({"type": "http.response.start", "status": 200})
            more = True
            while more:
                event = await receive()
                more = event.get("more_body", False)
                await send({"type": "http.response.body", "body": event["body"], "more_body": more})
        case _, "/download":
            await send({"type": "http.response.start", "status": 200})
            for _ in range(CHUNKS):
                await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            await send({"type": "http.response.body"})


class Program:
    """`uvicorn` in a process of its own, and the lines it has printed."""

    def __init__(self, loop_name: str, parser: str, environment: dict[str, str], *more: str) -> None:
        loop = "asyncio" if loop_name == "asyncio" else "aioxide:new_event_loop"
        options = ("--loop", loop, "--http", parser, "--port", "0", "--app-dir", str(Path(__file__).parent))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", f"{Path(__file__).stem}:application", *options, *more],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.port = int(self.line(r"running on https?://127.0.0.1:(\d+)")[1])

    def line(self, pattern: str) -> re.Match[str]:
        """Read until a line that matches."""
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError("".join(self.lines))

    def end(self) -> str:
        """Wait for the end of the program and return all it has printed."""
        self.lines.extend(self.process.stdout)
        self.process.wait(LIMIT)
        return "".join(self.lines)


@contextlib.contextmanager
def program(loop_name: str, parser: str, environment: dict[str, str], *more: str) -> Iterator[Program]:
    started = Program(loop_name, parser, environment, *more)
    try:
        yield started
    finally:
        started.process.kill()
        started.end()
        started.process.stdout.close()


def streamed_request(port: int) -> socket.socket:
    """Begin a request whose body comes in pieces."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    head = b"POST /echo HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.sendall(head + b"5\r\nfirst\r\n")
    return connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        part = connection.recv(1 << 16)
        assert part, data
        data += part
    return data


@each_parser
def test_the_program_serves(loop_name: str, parser: str, loop_environment: dict[str, str]) -> None:
    with program(loop_name, parser, loop_environment) as server:
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
        ) as client:
            for _ in range(20):
                client.request("GET", "/")
                response = client.getresponse()
                name = response.read().decode()
                assert response.status == 200
                expected = "asyncio" if loop_name == "asyncio" else f"driver={loop_name}"
                assert expected in name
            client.request("POST", "/echo", body=iter([CHUNK] * CHUNKS), encode_chunked=True)
            assert client.getresponse().read() == CHUNK * CHUNKS
            client.request("GET", "/download")
            assert client.getresponse().read() == CHUNK * CHUNKS
        with sync_client.connect(f"ws://127.0.0.1:{server.port}/") as websocket:
            for number in range(100):
                websocket.send(f"message {number}")
                assert websocket.recv(LIMIT) == f"MESSAGE {number}"
            websocket.close(4001)
        server.process.send_signal(signal.SIGTERM)
        printed = server.end()
        assert "websocket closed with 4001" in printed
        assert not re.search("Traceback|Warning|ERROR", printed), printed


def test_the_program_serves_over_tls(
    loop_name: str,
    loop_environment: dict[str, str],
    certificate_file: str,
    client_tls: ssl.SSLContext,
) -> None:
    options = ("--ssl-certfile", certificate_file, "--ssl-keyfile", certificate_file)
    with program(loop_name, "h11", loop_environment, *options) as server:
        with contextlib.closing(
            http.client.HTTPSConnection("127.0.0.1", server.port, timeout=LIMIT, context=client_tls)
        ) as client:
            client.request("POST", "/echo", body=iter([CHUNK] * CHUNKS), encode_chunked=True)
            assert client.getresponse().read() == CHUNK * CHUNKS
        with sync_client.connect(f"wss://127.0.0.1:{server.port}/", ssl=client_tls) as websocket:
            websocket.send("secret")
            assert websocket.recv(LIMIT) == "SECRET"
        server.process.send_signal(signal.SIGTERM)
        printed = server.end()
        assert not re.search("Traceback|Warning|ERROR", printed), printed


@pytest.mark.parametrize(("parser", "number"), [("h11", signal.SIGTERM), ("httptools", signal.SIGINT)])
def test_a_signal_lets_a_request_finish(
    loop_name: str, parser: str, number: signal.Signals, loop_environment: dict[str, str]
) -> None:
    with program(loop_name, parser, loop_environment) as server, streamed_request(server.port) as connection:
        read_until(connection, b"5\r\nfirst\r\n")
        server.process.send_signal(number)
        server.line("Waiting for connections to close")
        connection.sendall(b"4\r\nlast\r\n0\r\n\r\n")
        read_until(connection, b"4\r\nlast\r\n0\r\n\r\n")
        printed = server.end()
        assert "lifespan shutdown" in printed
        assert not re.search("Traceback|Warning|ERROR", printed), printed
        # uvicorn raises the signal again in the end; of SIGINT it makes an ordinary end.
        assert server.process.returncode == (0 if number == signal.SIGINT else -number)


@each_parser
async def test_a_server_inside_a_loop(loop: asyncio.AbstractEventLoop, parser: str) -> None:
    server = uvicorn.Server(uvicorn.Config(application, port=0, http=parser, log_level="warning"))
    serving = loop.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]

    async def ask(path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    answers = await asyncio.gather(*(ask("/") for _ in range(50)))
    assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers)
    assert len(await ask("/download")) > len(CHUNK) * CHUNKS
    server.should_exit = True
    await serving
