"""Loops and threads in numbers: what must hold with a lock around the interpreter, and without one.

Nothing here waits for time. Threads begin together at a barrier, so that they get in each other's way as much
as the interpreter lets them; a build without the GIL lets them most.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import sysconfig
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
import trustme

THREADS = 6
LIMIT = 50.0

is_free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def together(work: Callable[[int], object], count: int = THREADS) -> list[object]:
    """Call `work(number)` on `count` threads at once; return the results, or raise what one raised."""
    barrier = threading.Barrier(count)
    results: list[object] = [None] * count
    errors: list[BaseException] = []

    def run(number):
        try:
            barrier.wait(LIMIT)
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


@contextlib.contextmanager
def running_loops(loop_factory, count: int) -> Iterator[list[asyncio.AbstractEventLoop]]:
    """Loops that run, each on a thread of its own."""
    loops = [loop_factory() for _ in range(count)]
    threads = [threading.Thread(target=loop.run_forever, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield loops
    finally:
        for loop in loops:
            loop.call_soon_threadsafe(loop.stop)
        for loop, thread in zip(loops, threads, strict=True):
            thread.join(LIMIT)
            assert not thread.is_alive()
            loop.close()


@contextlib.contextmanager
def collecting() -> Iterator[None]:
    """A thread that collects garbage all the while."""
    over = threading.Event()

    def collect():
        while not over.is_set():
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LIMIT)


async def serve_and_ask(questions: int) -> int:
    """Be server and clients at once; return how many answers were right."""

    async def answer(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    async def ask(number):
        reader, writer = await asyncio.open_connection(*address)
        right = 0
        for question in range(10):
            text = f"question {number} {question}\n"
            writer.write(text.encode())
            right += await reader.readline() == text.upper().encode()
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        return right

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        return sum(await asyncio.gather(*map(ask, range(questions))))


def test_many_loops_run_on_many_threads(loop_factory):
    def work(number):
        total = 0
        for _ in range(3):
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                total += runner.run(serve_and_ask(5))
        return total

    assert together(work) == [150] * THREADS


def test_the_collector_runs_beside_running_loops(loop_factory):
    async def make_garbage():
        for _ in range(100):
            cycle = [asyncio.get_running_loop().call_soon(int), asyncio.create_task(asyncio.sleep(0))]
            cycle.append(cycle)
            asyncio.get_running_loop().call_later(1000, print, cycle).cancel()
            await asyncio.sleep(0)

    def work(number):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(make_garbage())
            return runner.run(serve_and_ask(3))

    with collecting():
        assert together(work, 3) == [30] * 3


def test_a_storm_of_calls_from_threads_reaches_every_loop_in_order(loop_factory):
    count = 1000
    with running_loops(loop_factory, 3) as loops:
        received = {(sender, loop): [] for sender in range(THREADS) for loop in loops}

        def work(sender):
            for number in range(count):
                for loop in loops:
                    loop.call_soon_threadsafe(received[sender, loop].append, number)
                    loop.call_soon_threadsafe(int).cancel()

        together(work)
        for loop in loops:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(LIMIT)
        assert len(received) == THREADS * len(loops)
        assert all(numbers == list(range(count)) for numbers in received.values())


def test_threads_send_to_a_loop_before_it_runs(loop_factory):
    for _ in range(20):
        loop = loop_factory()
        received: list[int] = []
        together(
            lambda number, loop=loop, received=received: loop.call_soon_threadsafe(received.append, number)
        )
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert sorted(received) == list(range(THREADS))


def test_coroutines_travel_around_a_ring_of_loops(loop_factory):
    async def travel(distance, index):
        if not distance:
            return 0
        following = (index + 1) % len(loops)
        onward = asyncio.run_coroutine_threadsafe(travel(distance - 1, following), loops[following])
        return 1 + await asyncio.wrap_future(onward)

    with running_loops(loop_factory, 3) as loops:
        travels = together(
            lambda n: asyncio.run_coroutine_threadsafe(travel(50, n % 3), loops[n % 3]).result(LIMIT)
        )
    assert travels == [50] * THREADS


def test_a_loop_is_made_here_run_there_and_closed_elsewhere(loop_factory):
    def make(number):
        loop = loop_factory()
        ran: list[int] = []
        loop.call_soon(ran.append, number)
        loop.call_later(0, ran.append, number)
        return loop, ran

    made = together(make)

    def run(number):
        loop, ran = made[number - 1]
        loop.run_until_complete(asyncio.sleep(0.01))
        assert loop.run_until_complete(serve_and_ask(2)) == 20
        return ran

    assert together(run) == [[(number - 1) % THREADS] * 2 for number in range(THREADS)]
    together(lambda number: made[number - 2][0].close())
    assert all(loop.is_closed() for loop, _ in made)


def test_only_one_thread_gets_to_run_a_loop(loop_factory, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio looks first and locks later: it may let two in")
    loop = loop_factory()

    def work(number):
        try:
            loop.run_forever()
        except RuntimeError as error:
            refusals.append(str(error))
            if len(refusals) == THREADS - 1:
                loop.call_soon_threadsafe(loop.stop)
            return False
        return True

    refusals: list[str] = []
    results = together(work)
    loop.close()
    assert results.count(True) == 1
    assert set(refusals) == {"This event loop is already running"}


def test_connections_between_loops(loop_factory):
    """Bytes of one loop's transports come out of another's, on other threads."""
    size = 200_000

    async def count_and_answer(reader, writer):
        writer.write(str(len(await reader.read())).encode())
        writer.close()

    async def send(address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"x" * size)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer)

    async def start():
        return await asyncio.start_server(count_and_answer, "127.0.0.1", 0)

    async def end(server):
        server.close()
        await server.wait_closed()

    with running_loops(loop_factory, 4) as loops:
        server = asyncio.run_coroutine_threadsafe(start(), loops[0]).result(LIMIT)
        address = server.sockets[0].getsockname()

        def work(number):
            loop = loops[1 + number % 3]
            return asyncio.run_coroutine_threadsafe(send(address), loop).result(LIMIT)

        assert together(work) == [size] * THREADS
        asyncio.run_coroutine_threadsafe(end(server), loops[0]).result(LIMIT)


def test_tasks_are_freed_by_other_threads(loop_factory):
    async def remember():
        task = asyncio.current_task()
        tasks.append(task)
        references.append(weakref.ref(task))

    tasks: list[asyncio.Task] = []
    references: list[weakref.ref] = []

    def work(number):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(remember())

    together(work)
    together(lambda number: tasks.pop())
    gc.collect()
    assert [reference() for reference in references] == [None] * THREADS


def test_every_thread_sees_the_tasks_of_every_loop(loop_factory):
    async def start(number):
        started.append([asyncio.create_task(asyncio.sleep(1000)) for _ in range(number)])
        await asyncio.sleep(0)

    async def end(tasks):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    started: list[list[asyncio.Task]] = []
    with running_loops(loop_factory, 3) as loops:
        for loop in loops:
            asyncio.run_coroutine_threadsafe(start(20), loop).result(LIMIT)
        together(lambda n: [asyncio.all_tasks(loop) for loop in loops])
        for loop, tasks in zip(loops, started, strict=True):
            assert asyncio.all_tasks(loop) >= set(tasks)
            asyncio.run_coroutine_threadsafe(end(tasks), loop).result(LIMIT)


PROGRAM_WITH_LOOPS_THAT_NEVER_END = """
import asyncio, gc, ssl, sys, threading, aioxide

async def work():
    loop = asyncio.get_running_loop()
    DEFINITIONS
    running.release()
    while True:
        ACTIVITY

async def wait():
    running.release()
    await asyncio.get_running_loop().create_future()

running = threading.Semaphore(0)
for coroutine in (work, wait, work, wait):
    threading.Thread(target=lambda c=coroutine: aioxide.run(c(), debug=DEBUG), daemon=True).start()
for _ in range(4):
    running.acquire()
"""
# What loops are busy with: definitions, and what is done again and again.
ACTIVITIES = {
    "tasks": ("", "await asyncio.sleep(0)"),
    "callbacks": ("", "loop.call_soon(int).cancel(); loop.call_later(0, repr, loop); await asyncio.sleep(0)"),
    "slow callbacks": ("loop.slow_callback_duration = 0", "await asyncio.sleep(0)"),
    "a task factory": (
        "loop.set_task_factory(lambda loop, coroutine, **more: asyncio.Task(coroutine, loop=loop, **more))",
        "await loop.create_task(asyncio.sleep(0))",
    ),
    "an exception handler": (
        "loop.set_exception_handler(lambda loop, context: repr(context))",
        "loop.call_soon(int, 'x'); await asyncio.sleep(0)",
    ),
    "connections": (
        """
    async def serve(reader, writer):
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
""",
        "(await asyncio.open_connection(*address))[1].close()",
    ),
    "TLS": (
        """
    async def serve(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(sys.argv[1])
    client_context = ssl.create_default_context(cafile=sys.argv[1])
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client_context)
""",
        "writer.write(bytes(1 << 16)); await reader.read(1 << 16)",
    ),
}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Return the path of a certificate with its key."""
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.mark.parametrize("activity", ACTIVITIES)
@pytest.mark.parametrize("driver", ["uring", "epoll"])
def test_the_interpreter_ends_while_threads_run_loops(driver, require_driver, certificate, activity):
    definitions, repeated = ACTIVITIES[activity]
    program = PROGRAM_WITH_LOOPS_THAT_NEVER_END.replace("DEFINITIONS", definitions)
    program = program.replace("ACTIVITY", repeated)
    for debug in ("False", "True", "True"):
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", program.replace("DEBUG", debug), certificate],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env=os.environ | {"AIOXIDE_DRIVER": driver},
        )
        assert done.returncode == 0, done.stderr
        assert "Fatal" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters came with Python 3.14")
def test_a_subinterpreter_is_refused_with_a_clear_error():
    program = """
        from concurrent import interpreters

        try:
            interpreters.create().exec("import aioxide")
        except interpreters.ExecutionFailed as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    assert "ImportError" in done.stdout
    assert "subinterpreter" in done.stdout


@pytest.mark.skipif(not is_free_threaded, reason="this Python has a GIL")
@pytest.mark.xfail(strict=True, reason="the extension asks for the GIL until it was tested without")
def test_importing_leaves_the_gil_off():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, aioxide; print(sys._is_gil_enabled())"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stdout == "False\n"
