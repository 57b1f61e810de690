"""Several loops in several threads, loops that move between threads, coroutines sent to loops of others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from peers import in_thread


def run_in_threads(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Call `function(number)` in `count` threads at once; return the results, or raise."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, range(count), timeout=50))


def test_loops_in_many_threads_do_not_notice_each_other(loop_factory):
    async def main(number: int) -> int:
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        total = 0
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"%d\n" % number)
            total += int(await reader.readline())
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(0)
        server.close()
        await server.wait_closed()
        return total

    def work(number: int) -> int:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert runner.run(main(number)) == 20 * number
            return runner.run(main(number))

    assert run_in_threads(6, work) == [20 * number for number in range(6)]


def test_each_thread_sees_its_own_loop_and_tasks(loop_factory):
    meeting = threading.Barrier(4, timeout=20)

    async def main() -> tuple[bool, int]:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        await asyncio.to_thread(meeting.wait)
        mine = asyncio.all_tasks() == {task}
        await asyncio.to_thread(meeting.wait)
        return mine and asyncio.get_running_loop() is loop, id(loop)

    def work(number: int) -> tuple[bool, int]:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main())

    results = run_in_threads(4, work)
    assert all(own for own, _ in results)
    assert len({identity for _, identity in results}) == 4


def test_a_loop_is_made_here_run_there_and_closed_elsewhere(loop_factory):
    loop = loop_factory()
    ran: list[int] = []
    early = loop.create_task(asyncio.sleep(0.001, "made before"))
    loop.call_soon(lambda: ran.append(threading.get_ident()))
    loop.call_later(0.001, lambda: ran.append(threading.get_ident()))

    async def talk() -> bytes:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return data

    def run() -> None:
        assert loop.run_until_complete(early) == "made before"
        assert loop.run_until_complete(talk()) == b""
        assert ran == [threading.get_ident()] * 2

    for _ in range(2):
        with in_thread(run):
            pass
        ran[:] = []
        early = loop.create_task(asyncio.sleep(0.001, "made before"))
        loop.call_soon(lambda: ran.append(threading.get_ident()))
        loop.call_later(0.001, lambda: ran.append(threading.get_ident()))
    run()
    with in_thread(loop.close):
        pass
    assert loop.is_closed()


def test_a_connection_moves_with_its_loop(loop_factory):
    """Made on one thread, used on another, and back."""
    loop = loop_factory()

    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()

    async def connect():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        return server, *await asyncio.open_connection(*server.sockets[0].getsockname())

    async def ask() -> None:
        for _ in range(10):
            writer.write(b"line\n")
            assert await reader.readline() == b"line\n"

    async def end() -> None:
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    server, reader, writer = loop.run_until_complete(connect())
    for _ in range(3):
        loop.run_until_complete(ask())
        with in_thread(lambda: loop.run_until_complete(ask())):
            pass
    loop.run_until_complete(end())
    loop.close()


def test_loops_hand_work_to_each_other(loop_factory):
    """A ring of loops passes a number on, each through run_coroutine_threadsafe."""
    count, rounds = 4, 25
    loops = [loop_factory() for _ in range(count)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()

    async def pass_on(position: int, remaining: int) -> int:
        if not remaining:
            return 0
        following = (position + 1) % count
        future = asyncio.run_coroutine_threadsafe(pass_on(following, remaining - 1), loops[following])
        return 1 + await asyncio.wrap_future(future)

    first = asyncio.run_coroutine_threadsafe(pass_on(0, count * rounds), loops[0])
    assert first.result(50) == count * rounds
    for loop, thread in zip(loops, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


async def test_the_task_decides_when_it_is_cancelled_from_another_thread(loop):
    """Cancelling the thread's future cancels the task, and a cancelled task its future."""
    started = threading.Event()

    async def wait() -> None:
        started.set()
        await loop.create_future()

    def cancel_from_here() -> bool:
        future = asyncio.run_coroutine_threadsafe(wait(), loop)
        assert started.wait(20)
        return future.cancel() and future.cancelled()

    assert await asyncio.to_thread(cancel_from_here)
    async with asyncio.timeout(20):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)

    async def cancel_itself() -> None:
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    def be_cancelled() -> bool:
        future = asyncio.run_coroutine_threadsafe(cancel_itself(), loop)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(20)
        return future.cancelled()

    assert await asyncio.to_thread(be_cancelled)


async def test_a_timeout_of_the_thread_leaves_the_task_running(loop):
    release = asyncio.Event()

    def work() -> str:
        future = asyncio.run_coroutine_threadsafe(release.wait(), loop)
        with pytest.raises(TimeoutError):
            future.result(0.01)
        assert not future.done()
        loop.call_soon_threadsafe(release.set)
        return future.result(20)

    assert await asyncio.to_thread(work) is True


async def test_what_is_no_coroutine_is_refused(loop):
    with pytest.raises(TypeError, match="coroutine object is required"):
        asyncio.run_coroutine_threadsafe(asyncio.sleep, loop)


def test_a_coroutine_for_a_closed_loop_is_refused(loop):
    loop.close()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        asyncio.run_coroutine_threadsafe(coroutine, loop)
    coroutine.close()


async def test_an_exception_of_the_coroutine_arrives_as_it_was(loop):
    error = LookupError("the very object")

    async def fail() -> None:
        raise error

    def work() -> bool:
        future = asyncio.run_coroutine_threadsafe(fail(), loop)
        return future.exception(20) is error

    assert await asyncio.to_thread(work)
    gc.collect()


async def test_threads_take_the_context_with_them(loop):
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("of the test")
    assert await asyncio.to_thread(variable.get) == "of the test"
    assert await loop.run_in_executor(None, variable.get) == "unset"


async def test_a_context_can_be_given_from_another_thread(loop):
    variable = contextvars.ContextVar("variable", default="unset")
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    seen = loop.create_future()
    await asyncio.to_thread(
        lambda: loop.call_soon_threadsafe(lambda: seen.set_result(variable.get()), context=context)
    )
    assert await seen == "given"


def test_a_loop_cannot_be_run_twice_at_once(loop, is_aioxide):
    refused: list[str] = []
    running = threading.Event()
    loop.call_soon(running.set)

    runs = [lambda: loop.run_until_complete(loop.create_future())] * 2
    if is_aioxide:  # CPython 3.13.0 forgets that it runs when it refuses run_forever
        runs[1] = loop.run_forever

    def run_again() -> None:
        assert running.wait(20)
        for run in runs:
            try:
                run()
            except RuntimeError as error:
                refused.append(str(error))
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        loop.call_soon_threadsafe(loop.stop)

    with in_thread(run_again):
        loop.run_forever()
    assert refused == ["This event loop is already running"] * 2


def test_a_storm_from_threads_while_the_loop_stops_and_starts(loop):
    """What is sent between two runs runs in the next."""
    counts = [0, 0, 0]
    per_thread = 3000

    def count(number: int) -> None:
        counts[number] += 1

    def send(number: int) -> None:
        for _ in range(per_thread):
            loop.call_soon_threadsafe(count, number)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert counts == [per_thread] * 3
