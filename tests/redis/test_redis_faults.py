"""A server that dies, comes back, or says nothing: what callers of aioxide.redis see, and how they go on."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import temporary_directory

pytest.importorskip("redis.asyncio", reason="redis-py cannot be had for this Python")

import aioxide.redis as redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

PATIENT = Retry(ConstantBackoff(0.01), 1000)
"""More attempts than any restart here takes."""


class Server:
    """A redis-server that is killed and started again at the same place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unix_socket = str(folder / "redis.sock")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"--port": "0", "--unixsocket": self.unix_socket, "--dir": str(self.folder), "--save": ""}
        command = ["redis-server", *(word for option in options.items() for word in option)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server: tools/prepare_redis.sh installs it")
    with temporary_directory("redis") as folder:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.signal(signal.SIGCONT)
            server.signal(signal.SIGKILL)


@pytest.fixture(autouse=True)
def only_ours(loop_name: str) -> None:
    if loop_name == "asyncio":
        pytest.skip("there it is redis-py's client and nothing more")


async def test_nobody_notices_a_restart_while_nothing_is_under_way(
    loop: asyncio.AbstractEventLoop, server: Server
) -> None:
    async with redis.Redis(unix_socket_path=server.unix_socket, retry=PATIENT) as client:
        for number in range(3):
            assert await client.set("key", number) is True
            server.signal(signal.SIGKILL)
            server.start()


async def test_what_was_sent_fails_and_what_was_not_goes_out_after_a_kill(
    loop: asyncio.AbstractEventLoop, server: Server
) -> None:
    """The server is stopped, gets commands that it cannot answer any more, and dies."""
    async with redis.Redis(unix_socket_path=server.unix_socket, retry=PATIENT) as client:
        await client.ping()
        server.signal(signal.SIGSTOP)
        sent = [asyncio.ensure_future(client.incr("sent")) for _ in range(10)]
        engine = client.native_engine()
        assert engine is not None
        async with asyncio.timeout(10):
            while engine.shared.waiting < 10:
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # They leave with the next turns of the loop.
        server.signal(signal.SIGKILL)
        results = await asyncio.gather(*sent, return_exceptions=True)
        assert all(isinstance(result, redis.ConnectionError) for result in results)
        assert all(getattr(result, "may_have_run", None) is True for result in results)
        later = [asyncio.ensure_future(client.incr("later")) for _ in range(10)]
        await asyncio.sleep(0)
        server.start()
        assert sorted(await asyncio.gather(*later)) == list(range(1, 11))


async def test_a_server_that_is_gone_is_an_error_within_the_back_off(
    loop: asyncio.AbstractEventLoop, server: Server
) -> None:
    retry = Retry(ConstantBackoff(0.02), 5)
    async with redis.Redis(unix_socket_path=server.unix_socket, retry=retry) as client:
        server.signal(signal.SIGKILL)
        began = time.monotonic()
        results = await asyncio.gather(*[client.ping() for _ in range(5)], return_exceptions=True)
        assert time.monotonic() - began < 5
        assert all(isinstance(result, redis.ConnectionError) for result in results)
        assert all(getattr(result, "may_have_run", None) is False for result in results)
        server.start()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(redis.ConnectionError):
                    assert await client.ping()
                    break


async def test_a_server_that_says_nothing_is_given_up(
    loop: asyncio.AbstractEventLoop, server: Server
) -> None:
    async with redis.Redis(unix_socket_path=server.unix_socket, socket_timeout=0.2, retry=PATIENT) as client:
        await client.ping()
        server.signal(signal.SIGSTOP)
        results = await asyncio.gather(*[client.get("key") for _ in range(3)], return_exceptions=True)
        assert all(isinstance(result, redis.TimeoutError) for result in results)
        server.signal(signal.SIGCONT)
        assert await client.ping()


async def test_a_blocking_command_outlives_its_server(
    loop: asyncio.AbstractEventLoop, server: Server
) -> None:
    async with redis.Redis(unix_socket_path=server.unix_socket, retry=PATIENT) as client:
        waiting = asyncio.ensure_future(client.blpop("list"))
        async with asyncio.timeout(10):
            while (await client.info("clients"))["blocked_clients"] != 1:
                await asyncio.sleep(0)
        server.signal(signal.SIGKILL)
        server.start()
        await client.rpush("list", "item")
        async with asyncio.timeout(10):
            assert await waiting == (b"list", b"item")


async def test_callers_wait_for_a_slow_server_in_bounded_memory(
    loop: asyncio.AbstractEventLoop, server: Server
) -> None:
    """A stopped server gets more than the connection holds: the rest waits, and nothing is lost."""
    options = {"unix_socket_path": server.unix_socket, "socket_timeout": None, "retry": PATIENT}
    async with redis.Redis(**options) as client:
        await client.ping()
        server.signal(signal.SIGSTOP)
        value = b"x" * 10_000
        calls = [asyncio.ensure_future(client.append("log", value)) for _ in range(1000)]
        engine = client.native_engine()
        assert engine is not None
        counts = [-1, engine.shared.waiting]
        while counts[-1] != counts[-2]:
            await asyncio.sleep(0.05)
            counts.append(engine.shared.waiting)
        # 1 MiB and what the socket takes, of the 10 MB.
        assert counts[-1] < 500
        server.signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            lengths = await asyncio.gather(*calls)
        assert sorted(lengths) == [10_000 * number for number in range(1, 1001)]
