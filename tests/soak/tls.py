"""Very many short TLS connections, most of them broken off somewhere, and whether memory and files come back.

    python tests/soak/tls.py [--loop uring|epoll|asyncio] [--connections 200000] [--at-once 20] [--seed N]

Both ends are in one loop. What happens to a connection is drawn: it may be used and closed properly, be
aborted by either end, be cancelled by its client after some turns, meet a peer that sends the first bytes of
a recorded handshake and leaves, in either direction, or one that says nothing at all. The first part warms
caches and free lists up; what is compared is the resident memory after it and at the end. The exit status is
1 when more than `--allowed` MiB stay, a file stays open, a native object stays alive, or anything was
reported to the loop's exception handler.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import functools
import gc
import os
import random
import resource
import socket
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable

import trustme

NAME = "localhost"
PAYLOAD = b"x" * 64
ABORT = b"abort" * 2
# What a connection that is broken off may raise.
BROKEN = (ssl.SSLError, ConnectionError, asyncio.CancelledError)


class Echo(asyncio.Protocol):
    """Sends back what it receives, or aborts when told to."""

    alive = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        Echo.alive += 1

    def data_received(self, data: bytes) -> None:
        if data == ABORT:
            self.transport.abort()
        else:
            self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        Echo.alive -= 1


class Client(asyncio.Protocol):
    """Notes the answer and the end."""

    alive = 0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answered = loop.create_future()
        self.lost = loop.create_future()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Client.alive += 1

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.received == len(PAYLOAD):
            self.answered.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        Client.alive -= 1
        self.lost.set_result(error)


class Soak:
    """The server, the contexts, and each thing that can happen to a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        authority = trustme.CA()
        self.loop = loop
        self.random = random.Random(seed)
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(NAME).configure_cert(self.server_context)
        self.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self.client_context)
        self.hello, self.flight = self.record()
        self.address = ("127.0.0.1", 0)
        self.happened: collections.Counter[str] = collections.Counter()
        self.fates: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (20, self.used),
            (10, self.aborted_by_client),
            (10, self.aborted_by_server),
            (20, self.cancelled),
            (20, self.left_by_client),
            (15, self.left_by_server),
            (5, self.silent),
        ]

    def record(self) -> tuple[bytes, bytes]:
        """Return what a client says first, and what a server answers."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.client_context.wrap_bio(to_client, to_server, server_hostname=NAME)
        server = self.server_context.wrap_bio(to_server, to_client, server_side=True)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        hello = to_server.read()
        to_server.write(hello)
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
        return hello, to_client.read()

    async def run(self, count: int, at_once: int) -> None:
        """Live through `count` connections, `at_once` at a time."""
        weights = [weight for weight, _ in self.fates]
        remaining = iter(range(count))

        async def work() -> None:
            for _ in remaining:
                _, fate = self.random.choices(self.fates, weights)[0]
                await fate()
                self.happened[fate.__name__] += 1

        await asyncio.gather(*(work() for _ in range(at_once)))

    def connect(self, **options: float) -> Awaitable[tuple[asyncio.Transport, Client]]:
        """Open a connection to the server."""
        return self.loop.create_connection(
            lambda: Client(self.loop),
            *self.address,
            ssl=self.client_context,
            server_hostname=NAME,
            **options,
        )

    async def used(self) -> None:
        """A question, its answer, and a proper end."""
        transport, client = await self.connect()
        transport.write(PAYLOAD)
        await client.answered
        transport.close()
        await client.lost

    async def aborted_by_client(self) -> None:
        """The client goes, some turns after its handshake."""
        transport, client = await self.connect()
        transport.write(PAYLOAD)
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)
        transport.abort()
        await client.lost

    async def aborted_by_server(self) -> None:
        """The server goes as soon as it hears something."""
        transport, client = await self.connect()
        transport.write(ABORT)
        await client.lost

    async def cancelled(self) -> None:
        """The client changes its mind after some turns, which may be too late."""
        opening = asyncio.ensure_future(self.connect())
        for _ in range(self.random.randrange(30)):
            await asyncio.sleep(0)
        opening.cancel()
        with contextlib.suppress(*BROKEN):
            transport, client = await opening
            transport.abort()
            await client.lost

    async def left_by_client(self) -> None:
        """A client that sends a part of its hello, or all, and leaves."""
        sock = socket.create_connection(self.address)
        sock.sendall(self.hello[: self.random.randint(0, len(self.hello))])
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        self.leave(sock)

    async def left_by_server(self) -> None:
        """A server that sends a part of its answer, or all, and leaves."""
        ours, theirs = socket.socketpair()
        opening = asyncio.ensure_future(
            self.loop.create_connection(
                lambda: Client(self.loop), sock=ours, ssl=self.client_context, server_hostname=NAME
            )
        )
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        theirs.sendall(self.flight[: self.random.randint(0, len(self.flight))])
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        theirs.close()
        with contextlib.suppress(*BROKEN):
            await opening
            raise AssertionError("a recorded answer was accepted")

    async def silent(self) -> None:
        """A server that says nothing until the client has had enough."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.suppress(ConnectionAbortedError):
            await self.loop.create_connection(
                lambda: Client(self.loop),
                sock=ours,
                ssl=self.client_context,
                server_hostname=NAME,
                ssl_handshake_timeout=0.001,
            )
            raise AssertionError("a silent peer was accepted")

    def leave(self, sock: socket.socket) -> None:
        """Close, or half of the time reset."""
        if self.random.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def resident_mebibytes() -> float:
    """Return the memory this process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


def open_files() -> int:
    """Return how many descriptors this process has, without that of the question."""
    return len(os.listdir("/proc/self/fd")) - 1


async def settle() -> float:
    """Wait until every end is gone and return the memory held."""
    while Echo.alive or Client.alive:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # handshakes of the server that nobody is told of
    gc.collect()
    return resident_mebibytes()


async def main(arguments: argparse.Namespace) -> bool:
    """Warm up, live through the rest and tell whether everything came back."""
    loop = asyncio.get_running_loop()
    reported: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    soak = Soak(loop, arguments.seed)
    statistics = dict(loop.statistics()) if hasattr(loop, "statistics") else {}
    files = open_files()
    print(loop, ssl.OPENSSL_VERSION)
    server = await loop.create_server(Echo, *soak.address, ssl=soak.server_context, backlog=1024)
    soak.address = server.sockets[0].getsockname()
    await soak.run(arguments.connections // 10, arguments.at_once)
    before = await settle()
    print(f"warm: {before:.1f} MiB after {arguments.connections // 10} connections", flush=True)
    begin = time.perf_counter()
    for part in range(1, 11):
        await soak.run(arguments.connections // 10, arguments.at_once)
        print(f"    {part * arguments.connections // 10}: {await settle():.1f} MiB", flush=True)
    seconds = time.perf_counter() - begin
    after = await settle()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)
    gc.collect()
    left = {
        name: count
        for name, count in (dict(loop.statistics()) if statistics else {}).items()
        if count > statistics[name]
    }
    print(
        f"{arguments.connections} connections in {seconds:.0f} s ({arguments.connections / seconds:.0f}/s), "
        f"{before:.1f} MiB before, {after:.1f} MiB after ({after - before:+.1f}), "
        f"{open_files() - files} files left, native objects left: {left}, reported: {len(reported)}"
    )
    print(dict(soak.happened))
    for context in reported[:3]:
        print(context)
    return after - before <= arguments.allowed and open_files() == files and not left and not reported


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loop", default="uring", choices=["asyncio", "uring", "epoll"])
    parser.add_argument("--connections", type=int, default=200_000)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--allowed", type=float, default=5.0, help="MiB that may stay")
    parsed = parser.parse_args()
    if parsed.loop == "asyncio":
        factory = asyncio.SelectorEventLoop
    else:
        import aioxide

        factory = functools.partial(aioxide.EventLoop, driver=parsed.loop)
    with asyncio.Runner(loop_factory=factory) as runner:
        sys.exit(0 if runner.run(main(parsed)) else 1)
