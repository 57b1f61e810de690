"""run_in_executor, the default executor and its shutdown."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import random
import sys
import threading
import time
import weakref

import pytest


async def test_results_and_exceptions_come_back(loop):
    assert await loop.run_in_executor(None, max, 1, 42) == 42
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(None, lambda: 1 / 0)


async def test_the_function_runs_on_another_thread(loop):
    assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()


async def test_a_blocking_function_does_not_stop_the_loop(loop):
    release = threading.Event()
    blocked = loop.run_in_executor(None, release.wait, 10)
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert not blocked.done()
    release.set()
    assert await blocked is True


async def test_many_functions_at_once(loop):
    results = await asyncio.gather(*(loop.run_in_executor(None, pow, 2, number) for number in range(500)))
    assert results == [2**number for number in range(500)]


async def test_an_executor_can_be_given(loop):
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="given") as executor:
        name = await loop.run_in_executor(executor, lambda: threading.current_thread().name)
    assert name.startswith("given")


async def test_a_default_executor_can_be_set(loop):
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="default")
    loop.set_default_executor(executor)
    name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert name.startswith("default")


def test_a_default_executor_must_be_a_thread_pool(loop):
    with pytest.raises(TypeError, match="ThreadPoolExecutor"):
        loop.set_default_executor(concurrent.futures.Executor())


async def test_to_thread_carries_the_context(loop):
    import contextvars

    variable = contextvars.ContextVar("variable")
    variable.set("carried")
    assert await asyncio.to_thread(variable.get) == "carried"


async def test_a_cancelled_wait_does_not_disturb_the_loop(loop):
    release = threading.Event()
    task = asyncio.create_task(asyncio.to_thread(release.wait, 10))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()


def test_shutdown_waits_for_running_functions(loop):
    finished: list[bool] = []

    def work():
        time.sleep(0.05)
        finished.append(True)

    async def main():
        loop.run_in_executor(None, work)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    assert finished == [True]


def test_after_shutdown_the_default_executor_refuses(loop):
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
        loop.run_in_executor(None, int)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="early versions of 3.12 wait for ever")
def test_shutdown_gives_up_after_its_timeout(loop):
    release = threading.Event()

    async def main():
        loop.run_in_executor(None, release.wait, 10)
        with pytest.warns(RuntimeWarning, match="executor did not finish"):
            await loop.shutdown_default_executor(timeout=0.05)

    loop.run_until_complete(main())
    release.set()


def test_a_coroutine_is_not_a_function_in_debug_mode(loop):
    async def coroutine():
        """Never run."""

    loop.set_debug(True)
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.run_in_executor(None, coroutine)
    with pytest.raises(TypeError, match="a callable object was expected"):
        loop.run_in_executor(None, "text")


def test_a_function_that_finishes_after_close_is_harmless(loop):
    release = threading.Event()
    executor = concurrent.futures.ThreadPoolExecutor(1)

    async def main():
        return loop.run_in_executor(executor, release.wait, 10)

    future = loop.run_until_complete(main())
    loop.close()
    release.set()
    executor.shutdown()
    assert not future.done()


async def test_the_default_executor_is_a_thread_pool_with_asyncios_names(loop):
    name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert name.startswith("asyncio_")
    assert isinstance(loop._default_executor, concurrent.futures.ThreadPoolExecutor)
    assert loop._default_executor.submit(int, "7").result() == 7


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (KeyError("key"), KeyError),
        (TimeoutError("late"), TimeoutError),
        (concurrent.futures.CancelledError("by whom"), asyncio.CancelledError),
        (concurrent.futures.InvalidStateError("which"), asyncio.InvalidStateError),
        (asyncio.CancelledError("of the function"), asyncio.CancelledError),
    ],
)
async def test_exceptions_become_what_asyncio_makes_of_them(loop, raised, seen):
    def fail():
        raise raised

    with pytest.raises(seen) as caught:
        await loop.run_in_executor(None, fail)
    assert caught.value.args == raised.args
    assert type(caught.value) is seen


async def test_no_cycle_is_left_of_a_call(loop):
    """Neither of one that failed nor of one that returned something."""
    gone: list[weakref.ref[Witness]] = []

    class Witness(Exception):
        """Tells when it goes."""

        def __init__(self):
            gone.append(weakref.ref(self))

    def fail():
        raise Witness

    async def forget_both():
        with contextlib.suppress(Witness):
            await loop.run_in_executor(None, fail)
        await loop.run_in_executor(None, Witness)

    gc.disable()
    try:
        await asyncio.create_task(forget_both())
        deadline = time.monotonic() + 5
        while any(reference() is not None for reference in gone) and time.monotonic() < deadline:
            # The thread lets go after it has told.
            await asyncio.sleep(0.001)
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


async def test_a_call_that_was_cancelled_before_it_began_is_never_made(loop):
    loop.set_default_executor(type(await default_executor(loop))())
    executor = loop._default_executor
    executor._max_workers = 1
    release = threading.Event()
    called: list[int] = []
    first = loop.run_in_executor(None, release.wait, 10)
    second = loop.run_in_executor(None, called.append, 2)
    third = loop.run_in_executor(None, called.append, 3)
    second.cancel()
    await asyncio.sleep(0)
    release.set()
    await first
    await third
    assert second.cancelled()
    assert called == [3]


async def test_calls_that_a_shutdown_drops_are_cancelled(loop):
    executor = await default_executor(loop)
    executor._max_workers = 1
    begun, release = threading.Event(), threading.Event()

    def hold():
        begun.set()
        return release.wait(10)

    first = loop.run_in_executor(None, hold)
    second = loop.run_in_executor(None, int)
    assert begun.wait(10)
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(asyncio.CancelledError):
        await second
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        loop.run_in_executor(None, int)
    release.set()
    assert await first


async def default_executor(loop):
    """Have the loop make its default executor."""
    await loop.run_in_executor(None, int)
    return loop._default_executor


def test_a_default_executor_that_finishes_after_close_is_harmless(loop):
    release = threading.Event()

    async def main():
        return loop.run_in_executor(None, release.wait, 10), await asyncio.sleep(0.001)

    future, _ = loop.run_until_complete(main())
    executor = loop._default_executor
    loop.close()
    release.set()
    executor.shutdown()
    assert not future.done()


async def test_a_storm_of_calls_and_cancellations_loses_nothing(loop):
    """Each call that was not cancelled comes back with its own result."""
    random_numbers = random.Random(5)
    calls = [loop.run_in_executor(None, pow, number, 2) for number in range(2000)]
    for _ in range(200):
        calls[random_numbers.randrange(2000)].cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*calls, return_exceptions=True)
    for number, (call, result) in enumerate(zip(calls, results, strict=True)):
        if call.cancelled():
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result == number**2
