"""What other threads may do to a loop, and what they may not."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import threading
import time
import weakref

import pytest


async def test_call_soon_threadsafe_wakes_a_waiting_loop(loop):
    called = loop.create_future()

    def work():
        loop.call_soon_threadsafe(called.set_result, threading.get_ident())

    thread = threading.Thread(target=work)
    timer = threading.Timer(0.02, thread.start)
    timer.start()
    async with asyncio.timeout(5):
        assert await called == thread.ident
    timer.join()
    thread.join()


async def test_callbacks_run_on_the_thread_of_the_loop(loop):
    ran_on = loop.create_future()
    callback = lambda: ran_on.set_result(threading.get_ident())  # noqa: E731
    await asyncio.to_thread(loop.call_soon_threadsafe, callback)
    assert await ran_on == threading.get_ident()


async def test_nothing_that_many_threads_send_is_lost_or_reordered(loop):
    threads, count = 8, 5000
    received: list[list[int]] = [[] for _ in range(threads)]
    done = loop.create_future()
    remaining = threads

    def finish():
        nonlocal remaining
        remaining -= 1
        if not remaining:
            done.set_result(None)

    def work(own):
        for number in range(count):
            loop.call_soon_threadsafe(own.append, number)
        loop.call_soon_threadsafe(finish)

    workers = [threading.Thread(target=work, args=(own,)) for own in received]
    for worker in workers:
        worker.start()
    async with asyncio.timeout(30):
        await done
    for worker in workers:
        worker.join()
    assert received == [list(range(count))] * threads


async def test_a_handle_from_another_thread_can_be_cancelled(loop):
    ran: list[str] = []

    def work():
        handle = loop.call_soon_threadsafe(ran.append, "cancelled")
        assert isinstance(handle, asyncio.Handle)
        handle.cancel()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    await asyncio.sleep(0.01)
    assert ran == []


async def test_arguments_sent_from_another_thread_are_released(loop):
    class Argument:
        """Something a weak reference can point at."""

    references: list[weakref.ref] = []
    done = asyncio.Event()

    def work():
        argument = Argument()
        references.append(weakref.ref(argument))
        loop.call_soon_threadsafe(lambda argument: done.set(), argument)

    await asyncio.to_thread(work)
    await done.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert references[0]() is None


def test_what_was_sent_before_the_loop_runs_is_run(loop):
    ran: list[str] = []
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(ran.append, "early"))
    thread.start()
    thread.join()
    loop.run_until_complete(asyncio.sleep(0))
    assert ran == ["early"]


def test_sending_to_a_closed_loop_is_an_error_in_the_sending_thread(loop):
    loop.close()
    raised: list[BaseException] = []

    def work():
        try:
            loop.call_soon_threadsafe(int)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "Event loop is closed" in str(raised[0])


def test_stop_from_another_thread(loop):
    timer = threading.Timer(0.02, loop.call_soon_threadsafe, [loop.stop])
    timer.start()
    begin = time.monotonic()
    loop.run_forever()
    assert time.monotonic() - begin < 5
    timer.join()


def test_a_loop_closed_while_threads_send_fails_only_those(loop_factory):
    refusals: list[str] = []
    for _ in range(20):
        loop = loop_factory()
        sent = threading.Event()

        def send(loop=loop, sent=sent):
            try:
                while True:
                    loop.call_soon_threadsafe(int)
                    sent.set()
            except RuntimeError as error:
                refusals.append(str(error))

        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        sent.wait(5)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert len(refusals) == 60
    assert set(refusals) == {"Event loop is closed"}


async def test_run_coroutine_threadsafe_brings_back_results_and_exceptions(loop):
    async def double(number):
        await asyncio.sleep(0)
        if number < 0:
            raise ValueError("negative")
        return number * 2

    def work():
        assert asyncio.run_coroutine_threadsafe(double(21), loop).result(10) == 42
        with pytest.raises(ValueError, match="negative"):
            asyncio.run_coroutine_threadsafe(double(-1), loop).result(10)
        return "done"

    assert await asyncio.to_thread(work) == "done"


async def test_cancelling_from_another_thread_cancels_the_task(loop):
    started, cancelled = threading.Event(), asyncio.Event()

    async def wait_for_ever():
        started.set()
        try:
            await loop.create_future()
        finally:
            cancelled.set()

    def work():
        future = asyncio.run_coroutine_threadsafe(wait_for_ever(), loop)
        assert started.wait(10)
        future.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(10)

    await asyncio.to_thread(work)
    async with asyncio.timeout(5):
        await cancelled.wait()
    await asyncio.sleep(0)


@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_at"])
async def test_scheduling_from_a_wrong_thread_is_an_error_in_debug_mode(loop, method):
    loop.set_debug(True)
    arguments = (int,) if method == "call_soon" else (1000, int)

    def work():
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            getattr(loop, method)(*arguments)

    await asyncio.to_thread(work)


async def test_a_wrong_thread_never_corrupts_the_loop(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio does not check without debug mode")

    ran: list[str] = []
    expected: list[str] = []

    def work():
        for name in ("call_soon", "call_later"):
            arguments = (0,) if name == "call_later" else ()
            with contextlib.suppress(RuntimeError):
                getattr(loop, name)(*arguments, ran.append, name)
                expected.append(name)
        calls = (
            lambda: loop.add_reader(0, int),
            lambda: loop.remove_reader(0),
            lambda: loop.close(),
            lambda: loop.run_forever(),
        )
        for call in calls:
            with pytest.raises(RuntimeError):
                call()

    await asyncio.to_thread(work)
    await asyncio.sleep(0.01)
    assert ran == expected, "what was accepted must run"


async def test_a_loop_that_was_asked_to_run_twice_hears_other_threads(loop):
    def elsewhere():
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        if hasattr(loop, "_run_turns"):
            with pytest.raises(RuntimeError, match="already running"):
                loop._run_turns()
        loop.call_soon_threadsafe(called.set_result, None)

    called = loop.create_future()
    thread = threading.Thread(target=elsewhere)
    loop.call_later(0.01, thread.start)
    async with asyncio.timeout(5):
        await called
    thread.join()
