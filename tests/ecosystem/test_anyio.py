"""anyio on the loop under test: its scopes, sockets, processes, threads and signals."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

anyio = pytest.importorskip("anyio", reason="anyio cannot be had for this Python")
from anyio import from_thread, to_thread  # noqa: E402
from anyio.abc import ByteStream, SocketAttribute, TaskStatus  # noqa: E402
from anyio.streams.tls import TLSListener  # noqa: E402

LIMIT = 20.0
CHUNK = bytes(range(256)) * 256
CHUNKS = 64

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Run:
    """`anyio.run` on the loop under test, which it closes."""
    return partial(anyio.run, backend_options={"loop_factory": lambda: loop})


def test_task_groups_and_scopes(run: Run) -> None:
    async def serve(number: int, *, task_status: TaskStatus[int]) -> None:
        task_status.started(number)
        await anyio.sleep_forever()

    async def fail() -> None:
        raise LookupError("one of many")

    async def group_that_fails() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, math.inf)
            group.start_soon(fail)

    async def scope_that_ends_late() -> None:
        with anyio.fail_after(0.01):
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)
            await anyio.sleep_forever()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            assert [await group.start(serve, number) for number in range(20)] == list(range(20))
            group.cancel_scope.cancel()
        with pytest.raises(ExceptionGroup) as caught:
            await group_that_fails()
        assert caught.group_contains(LookupError, match="one of many")
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            await scope_that_ends_late()

    run(main)


def test_streams_of_objects(run: Run) -> None:
    async def main() -> None:
        sending, receiving = anyio.create_memory_object_stream[int](4)
        seen: list[int] = []

        async def produce(start: int) -> None:
            async with sending.clone() as own:
                for number in range(start, start + 100):
                    await own.send(number)

        async def consume() -> None:
            async for number in receiving:
                seen.append(number)

        async with receiving, anyio.create_task_group() as group:
            async with sending:
                for start in range(0, 500, 100):
                    group.start_soon(produce, start)
                await anyio.wait_all_tasks_blocked()
            group.start_soon(consume)
        assert sorted(seen) == list(range(500))

    run(main)


async def echo(stream: ByteStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)
        await stream.send_eof()


async def exchange(stream: ByteStream) -> None:
    """Send more than the kernel holds and receive it back at the same time."""
    received = 0
    async with stream, anyio.create_task_group() as group:

        async def send() -> None:
            for _ in range(CHUNKS):
                await stream.send(CHUNK)
            await stream.send_eof()

        group.start_soon(send)
        async for data in stream:
            received += len(data)
    assert received == len(CHUNK) * CHUNKS


def test_tcp(run: Run) -> None:
    async def main() -> None:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, echo)
            port = listener.extra(SocketAttribute.local_port)
            async with anyio.create_task_group() as clients:
                for _ in range(5):
                    clients.start_soon(exchange, await anyio.connect_tcp("127.0.0.1", port))
            stream = await anyio.connect_tcp("127.0.0.1", port)
            with anyio.move_on_after(0.01):  # a receive given up loses nothing
                await stream.receive()
            await stream.send(b"still here")
            assert await stream.receive() == b"still here"
            await anyio.aclose_forcefully(stream)
            group.cancel_scope.cancel()

    run(main)


def test_unix_sockets(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            await anyio.create_unix_listener(tmp_path / "socket") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, echo)
            await exchange(await anyio.connect_unix(tmp_path / "socket"))
            group.cancel_scope.cancel()

    run(main)


def test_tls(run: Run, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async def answer(stream: ByteStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data)

    async def main() -> None:
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(TLSListener(listener, server_tls).serve, answer)
            port = listener.extra(SocketAttribute.local_port)
            async with await anyio.connect_tcp("127.0.0.1", port, ssl_context=client_tls) as stream:
                for number in range(100):
                    await stream.send(b"%d" % number)
                    assert await stream.receive() == b"%d" % number
            group.cancel_scope.cancel()

    run(main)


def test_udp(run: Run) -> None:
    async def main() -> None:
        async with await anyio.create_udp_socket(local_host="127.0.0.1") as server:
            port = server.extra(SocketAttribute.local_port)
            async with await anyio.create_connected_udp_socket("127.0.0.1", port) as client:
                for number in range(100):
                    await client.send(b"%d" % number)
                    data, address = await server.receive()
                    await server.sendto(data * 2, *address)
                    assert await client.receive() == b"%d" % number * 2
                with anyio.move_on_after(0.01) as scope:
                    await client.receive()
                assert scope.cancelled_caught

    run(main)


def test_processes(run: Run) -> None:
    shout = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)\nsys.exit(7)"

    async def main() -> None:
        done = await anyio.run_process([sys.executable, "-c", shout], input=b"loud\n", check=False)
        assert (done.returncode, done.stdout) == (7, b"LOUD\n")
        async with await anyio.open_process([sys.executable, "-c", shout]) as process:
            for word in (b"one\n", b"two\n"):
                await process.stdin.send(word)
                assert await process.stdout.receive() == word.upper()
            await process.stdin.aclose()
            assert await process.wait() == 7
        process = await anyio.open_process([sys.executable, "-c", "import time; time.sleep(60)"])
        with anyio.move_on_after(0.01):
            async with process:
                await process.wait()
        assert process.returncode == -signal.SIGKILL

    run(main)


def test_threads_both_ways(run: Run) -> None:
    async def double(number: int) -> int:
        await anyio.sleep(0)
        return number * 2

    def work(number: int) -> int:
        from_thread.check_cancelled()
        assert from_thread.run_sync(threading.get_ident) != threading.get_ident()
        return from_thread.run(double, number)

    async def main() -> None:
        results: list[int] = []

        async def collect(number: int) -> None:
            results.append(await to_thread.run_sync(work, number))

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(collect, number)
        assert sorted(results) == [number * 2 for number in range(50)]

        async with from_thread.BlockingPortal() as portal:
            assert await to_thread.run_sync(portal.call, double, 21) == 42

    run(main)


def test_a_portal_into_a_loop_of_another_thread(loop: asyncio.AbstractEventLoop) -> None:
    with from_thread.start_blocking_portal("asyncio", {"loop_factory": lambda: loop}) as portal:
        assert portal.call(asyncio.get_running_loop) is loop
        futures = [portal.start_task_soon(anyio.sleep, 0) for _ in range(100)]
        endless = portal.start_task_soon(anyio.sleep_forever)
        assert [future.result(LIMIT) for future in futures] == [None] * 100
        assert endless.cancel()


def test_signals(run: Run) -> None:
    async def main() -> None:
        with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
                os.kill(os.getpid(), number)
                assert await anext(signals) == number

    run(main)


def test_files(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = anyio.Path(tmp_path) / "file"
        async with await anyio.open_file(path, "w") as file:
            await file.writelines(f"{number}\n" for number in range(1000))
        async with await anyio.open_file(path) as file:
            assert [int(line) async for line in file] == list(range(1000))
        assert (await path.stat()).st_size > 0

    run(main)


async def test_inside_a_loop_that_runs_already(loop: asyncio.AbstractEventLoop) -> None:
    async with anyio.create_task_group() as group:
        event = anyio.Event()
        group.start_soon(event.wait)
        await anyio.wait_all_tasks_blocked()
        event.set()
    limiter = anyio.CapacityLimiter(2)
    assert await to_thread.run_sync(threading.current_thread, limiter=limiter) is not threading.main_thread()
