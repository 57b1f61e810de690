"""run_forever, run_until_complete, stop, close, and async generators."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings

import pytest


def test_states_of_a_loop(loop):
    assert not loop.is_running()
    assert not loop.is_closed()
    seen: list[tuple[bool, bool]] = []
    loop.call_soon(lambda: seen.append((loop.is_running(), loop.is_closed())))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [(True, False)]
    loop.close()
    assert not loop.is_running()
    assert loop.is_closed()


def test_repr_tells_the_state(loop):
    assert "running=False" in repr(loop)
    assert "closed=False" in repr(loop)
    loop.close()
    assert "closed=True" in repr(loop)


def test_run_until_complete_returns_the_result(loop):
    async def main():
        await asyncio.sleep(0)
        return 42

    assert loop.run_until_complete(main()) == 42


def test_run_until_complete_raises_the_exception(loop):
    async def main():
        raise LookupError("from the task")

    with pytest.raises(LookupError, match="from the task"):
        loop.run_until_complete(main())


def test_run_until_complete_takes_futures_and_tasks(loop):
    future = loop.create_future()
    loop.call_soon(future.set_result, "future")
    assert loop.run_until_complete(future) == "future"
    assert loop.run_until_complete(loop.create_task(asyncio.sleep(0, "task"))) == "task"


@pytest.mark.parametrize("wrong", [42, "text", None, object()])
def test_run_until_complete_of_something_else_is_a_type_error(loop, wrong):
    with pytest.raises(TypeError):
        loop.run_until_complete(wrong)


def test_a_future_of_another_loop_is_refused(loop, loop_factory):
    other = loop_factory()
    future = other.create_future()
    with pytest.raises(ValueError, match="loop"):
        loop.run_until_complete(future)
    future.cancel()
    other.close()


def test_a_loop_stopped_before_its_future_is_done_says_so(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)
    future.cancel()


def test_stop_before_run_forever_makes_exactly_one_turn(loop):
    ran: list[str] = []
    loop.call_soon(ran.append, "ready")
    loop.call_soon(lambda: loop.call_soon(ran.append, "next turn"))
    loop.stop()
    loop.run_forever()
    assert ran == ["ready"]
    loop.stop()
    loop.run_forever()
    assert ran == ["ready", "next turn"]


def test_stop_lets_the_callbacks_of_the_turn_run(loop):
    ran: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(ran.append, "same turn")
    loop.run_forever()
    assert ran == ["same turn"]


def test_a_loop_can_be_run_again_and_again(loop):
    for number in range(50):
        assert loop.run_until_complete(asyncio.sleep(0, number)) == number


def test_a_running_loop_is_the_running_loop(loop):
    async def main():
        return asyncio.get_running_loop(), asyncio.get_event_loop()

    assert loop.run_until_complete(main()) == (loop, loop)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


async def test_a_running_loop_can_neither_run_nor_close(loop, is_aioxide):
    if is_aioxide:  # CPython 3.13.0 forgets that it runs when it refuses run_forever
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="already running"):
        loop.run_until_complete(coroutine)
    coroutine.close()
    with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
        loop.close()
    gc.collect()


async def test_no_second_loop_runs_inside_a_running_one(loop, loop_factory, is_aioxide):
    other = loop_factory()
    if is_aioxide:  # CPython 3.13.0 forgets that it runs when it refuses run_forever
        with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is running"):
            other.run_forever()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is running"):
        other.run_until_complete(coroutine)
    coroutine.close()
    other.close()
    gc.collect()


def test_close_is_idempotent(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()


def test_a_closed_loop_refuses_everything(loop):
    loop.close()
    for call in (
        lambda: loop.call_soon(int),
        lambda: loop.call_soon_threadsafe(int),
        lambda: loop.call_later(1, int),
        lambda: loop.call_at(1, int),
        lambda: loop.run_forever(),
        lambda: loop.run_in_executor(None, int),
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call()
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(coroutine)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coroutine)
    coroutine.close()
    gc.collect()


def test_a_closed_loop_opens_nothing(loop, loop_factory, is_aioxide):
    loop.close()
    other = loop_factory()
    calls = [lambda: loop.getaddrinfo("localhost", 1)]
    if is_aioxide:  # asyncio leaks sockets and pipes when it fails here
        calls += [
            lambda: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1),
            lambda: loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
            lambda: loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)),
            lambda: loop.subprocess_exec(asyncio.SubprocessProtocol, sys.executable),
        ]
    for call in calls:
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            other.run_until_complete(call())
    other.close()
    gc.collect()


def test_stop_and_asking_the_time_work_on_a_closed_loop(loop):
    loop.close()
    loop.stop()
    assert loop.time() > 0
    assert loop.get_debug() in (False, True)


def test_an_unclosed_loop_warns_when_it_is_dropped(loop_factory):
    loops = [loop_factory()]

    def drop():
        loops.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        drop()


def test_a_closed_loop_does_not_warn_when_it_is_dropped(loop_factory):
    loop = loop_factory()
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del loop
        gc.collect()


def test_a_loop_dropped_open_in_a_cycle_with_a_waiting_handle_stays(loop_name, loop_factory):
    # In a process of its own: the loop stays for as long as that lives.
    program = (
        "import asyncio, gc, sys, warnings, weakref, aioxide\n"
        "warnings.simplefilter('ignore')\n"
        "loop = asyncio.SelectorEventLoop() if sys.argv[1] == 'asyncio' else aioxide.EventLoop(sys.argv[1])\n"
        "seen = weakref.ref(loop)\n"
        "holder = []\n"
        "holder.append(loop.call_later(60, holder.append, loop))\n"
        "del loop, holder\n"
        "gc.collect()\n"
        "print('collected' if seen() is None else 'stays')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, loop_name], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == ("collected" if loop_name == "asyncio" else "stays"), done.stderr


def test_a_loop_made_on_one_thread_runs_on_another(loop):
    results: list[int] = []
    thread = threading.Thread(
        target=lambda: results.append(loop.run_until_complete(asyncio.sleep(0.001, 42)))
    )
    thread.start()
    thread.join()
    assert results == [42]


def test_loops_run_on_many_threads_at_once(loop_factory):
    results: list[int] = []

    async def main(number):
        for _ in range(100):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        return number

    def work(number):
        loop = loop_factory()
        try:
            results.append(loop.run_until_complete(main(number)))
        finally:
            loop.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_a_thousand_loops_made_and_closed_leave_no_file_open(loop_factory):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    del loop
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_shutdown_asyncgens_finishes_generators_left_open(loop):
    finished: list[str] = []

    async def generator():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            finished.append("finally")

    async def main():
        iterator = generator()
        assert await anext(iterator) == 1
        return iterator

    iterator = loop.run_until_complete(main())
    assert finished == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert finished == ["finally"]
    del iterator


async def test_a_dropped_async_generator_is_finished_by_the_loop(loop):
    finished = asyncio.Event()

    async def generator():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            finished.set()

    iterator = generator()
    assert await anext(iterator) == 1
    del iterator
    gc.collect()
    async with asyncio.timeout(5):
        await finished.wait()


def test_an_async_generator_begun_after_shutdown_warns(loop):
    async def generator():
        yield 1

    async def main():
        iterator = generator()
        assert await anext(iterator) == 1
        await iterator.aclose()

    loop.run_until_complete(loop.shutdown_asyncgens())
    with pytest.warns(ResourceWarning, match=r"asynchronous generator .* was scheduled after"):
        loop.run_until_complete(main())


def test_an_exception_while_a_generator_finishes_is_reported(loop, reported):
    async def generator():
        try:
            yield 1
        finally:
            raise LookupError("in finally")

    async def main():
        iterator = generator()
        await anext(iterator)
        return iterator

    iterator = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    context = reported.pop()
    assert isinstance(context["exception"], LookupError)
    assert context["asyncgen"] is iterator


def test_asyncgen_hooks_are_restored_after_running(loop):
    before = sys.get_asyncgen_hooks()
    loop.run_until_complete(asyncio.sleep(0))
    assert sys.get_asyncgen_hooks() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_loop_made_after_fork_works_in_the_child(loop, loop_factory):
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fresh = loop_factory()
            status = fresh.run_until_complete(asyncio.sleep(0.001, 42))
            fresh.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert loop.run_until_complete(asyncio.sleep(0.001, 2)) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_loop_carried_over_a_fork_refuses_to_run_in_the_child(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio lets the child disturb the parent's selector")
    loop.run_until_complete(asyncio.sleep(0))
    child = os.fork()
    if child == 0:
        status = 1
        coroutine = asyncio.sleep(0)
        try:
            loop.run_until_complete(coroutine)
        except RuntimeError:
            status = 42
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert loop.run_until_complete(asyncio.sleep(0.001, 2)) == 2
