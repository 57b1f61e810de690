"""tornado: its IOLoop over the loop under test, with its server, its client and its WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

tornado = pytest.importorskip("tornado", reason="tornado cannot be had for this Python")
from tornado import gen, httpserver, iostream, tcpserver, web, websocket  # noqa: E402
from tornado.httpclient import AsyncHTTPClient, HTTPClientError  # noqa: E402
from tornado.ioloop import IOLoop, PeriodicCallback  # noqa: E402
from tornado.simple_httpclient import HTTPTimeoutError  # noqa: E402
from tornado.testing import bind_unused_port  # noqa: E402

LIMIT = 20.0
CHUNK = bytes(range(256)) * 256
CHUNKS = 64


class Greeting(web.RequestHandler):
    async def get(self, name: str) -> None:
        await gen.sleep(0)
        self.write({"hello": name})


@web.stream_request_body
class Digest(web.RequestHandler):
    """Answers with the digest of what is uploaded, read as it arrives."""

    def prepare(self) -> None:
        self.seen = hashlib.sha256()

    def data_received(self, chunk: bytes) -> None:
        self.seen.update(chunk)

    def post(self) -> None:
        self.write(self.seen.hexdigest())


class Download(web.RequestHandler):
    async def get(self) -> None:
        for _ in range(CHUNKS):
            self.write(CHUNK)
            await self.flush()


class Never(web.RequestHandler):
    entered = left = False

    async def get(self) -> None:
        type(self).entered = True
        self.gone = asyncio.get_running_loop().create_future()
        await self.gone

    def on_connection_close(self) -> None:
        type(self).left = True
        self.gone.cancel()


class Chat(websocket.WebSocketHandler):
    async def on_message(self, message: str | bytes) -> None:
        await self.write_message(message, binary=isinstance(message, bytes))


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, AsyncHTTPClient]]:
    """Serve on a free port: (address, a client)."""
    application = web.Application(
        [
            (r"/greet/(\w+)", Greeting),
            (r"/digest", Digest),
            (r"/download", Download),
            (r"/never", Never),
            (r"/chat", Chat),
        ],
        log_function=lambda handler: None,
    )
    listener, port = bind_unused_port()
    server = httpserver.HTTPServer(application, ssl_options=tls)
    server.add_socket(listener)
    client = AsyncHTTPClient(force_instance=True, max_clients=8)
    try:
        yield f"127.0.0.1:{port}", client
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()


async def fetch(client: AsyncHTTPClient, url: str, **options: object) -> bytes:
    response = await client.fetch(url, request_timeout=LIMIT, **options)
    return response.body


async def test_requests_side_by_side(loop: asyncio.AbstractEventLoop) -> None:
    assert IOLoop.current().asyncio_loop is loop
    async with serving() as (address, client):
        bodies = await gen.multi([fetch(client, f"http://{address}/greet/n{n}") for n in range(100)])
        assert bodies == [b'{"hello": "n%d"}' % n for n in range(100)]
        with pytest.raises(HTTPClientError) as caught:
            await client.fetch(f"http://{address}/nowhere")
        assert caught.value.code == 404


async def test_bodies_stream_both_ways(loop: asyncio.AbstractEventLoop) -> None:
    async def produce(write: object) -> None:
        for _ in range(CHUNKS):
            await write(CHUNK)

    seen = hashlib.sha256()
    expected = hashlib.sha256(CHUNK * CHUNKS).hexdigest()
    async with serving() as (address, client):
        body = await fetch(client, f"http://{address}/digest", method="POST", body_producer=produce)
        assert body.decode() == expected
        await fetch(client, f"http://{address}/download", streaming_callback=seen.update)
    assert seen.hexdigest() == expected


async def test_a_timeout_is_seen_by_the_server(loop: asyncio.AbstractEventLoop) -> None:
    Never.entered = Never.left = False
    async with serving() as (address, client):
        while not Never.entered:  # a slow machine may need more than one
            with pytest.raises(HTTPTimeoutError):
                await client.fetch(f"http://{address}/never", request_timeout=0.05)
        while not Never.left:
            await gen.sleep(0.005)


async def test_over_tls(
    loop: asyncio.AbstractEventLoop, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    seen = hashlib.sha256()
    async with serving(server_tls) as (address, client):
        bodies = await gen.multi(
            [fetch(client, f"https://{address}/greet/n{n}", ssl_options=client_tls) for n in range(20)]
        )
        assert bodies == [b'{"hello": "n%d"}' % n for n in range(20)]
        await fetch(
            client, f"https://{address}/download", ssl_options=client_tls, streaming_callback=seen.update
        )
    assert seen.hexdigest() == hashlib.sha256(CHUNK * CHUNKS).hexdigest()


async def test_a_websocket(loop: asyncio.AbstractEventLoop) -> None:
    async with serving() as (address, _):
        connection = await websocket.websocket_connect(f"ws://{address}/chat")
        for number in range(300):
            connection.write_message(f"message {number}")
        assert [await connection.read_message() for _ in range(300)] == [f"message {n}" for n in range(300)]
        await connection.write_message(CHUNK * 4, binary=True)
        assert await connection.read_message() == CHUNK * 4
        connection.close(4001, "enough")
        assert await connection.read_message() is None


class Echo(tcpserver.TCPServer):
    async def handle_stream(self, stream: iostream.IOStream, address: object) -> None:
        with contextlib.suppress(iostream.StreamClosedError):
            while True:
                await stream.write(await stream.read_until(b"\n"))


async def test_streams(loop: asyncio.AbstractEventLoop) -> None:
    listener, port = bind_unused_port()
    server = Echo()
    server.add_socket(listener)
    stream = await iostream.IOStream(socket.socket()).connect(("127.0.0.1", port))
    for number in range(200):
        await stream.write(b"%d\n" % number)
    assert [int(await stream.read_until(b"\n")) for _ in range(200)] == list(range(200))
    line = CHUNK.replace(b"\n", b"") * CHUNKS + b"\n"
    _, echoed = await gen.multi([stream.write(line), stream.read_bytes(len(line))])
    assert echoed == line
    with pytest.raises(gen.TimeoutError):
        await gen.with_timeout(
            timedelta(milliseconds=10), stream.read_until(b"\n"), iostream.StreamClosedError
        )
    stream.close()
    server.stop()
    await gen.sleep(0)


def test_an_io_loop_of_its_own(loop: asyncio.AbstractEventLoop) -> None:
    """The way of programs older than asyncio: callbacks, timers and `start`."""
    io_loop = IOLoop(asyncio_loop=loop, make_current=False)
    calls: list[str] = []
    periodic: list[PeriodicCallback] = []

    def begin() -> None:
        periodic.append(PeriodicCallback(lambda: calls.append("periodic"), 5))
        periodic[0].start()

    def end() -> None:
        periodic[0].stop()
        io_loop.stop()

    io_loop.add_callback(begin)
    io_loop.call_later(0.1, end)
    io_loop.remove_timeout(io_loop.call_later(0.01, lambda: calls.append("removed")))
    io_loop.run_in_executor(None, lambda: io_loop.add_callback(calls.append, "from a thread"))
    io_loop.start()
    assert calls.count("periodic") >= 2
    assert calls.count("from a thread") == 1
    assert "removed" not in calls
    loop.run_until_complete(loop.shutdown_default_executor())
    io_loop.close()
    assert loop.is_closed()
