"""call_soon, handles, tasks, futures and the order in which things run."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import gc
import socket
import sys
import sysconfig
import time
import weakref
from typing import Any

import pytest


def run_once(loop: asyncio.AbstractEventLoop) -> None:
    """Run the callbacks that are ready now."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_call_soon_runs_callbacks_in_the_order_they_were_given(loop):
    ran: list[int] = []
    for number in range(1000):
        loop.call_soon(ran.append, number)
    run_once(loop)
    assert ran == list(range(1000))


def test_call_soon_passes_every_argument(loop):
    seen: list[tuple[Any, ...]] = []
    for count in range(12):
        loop.call_soon(lambda *arguments: seen.append(arguments), *range(count))
    run_once(loop)
    assert seen == [tuple(range(count)) for count in range(12)]


def test_a_callback_given_during_a_turn_waits_for_the_next(loop):
    ran: list[str] = []

    def first():
        ran.append("first")
        loop.call_soon(ran.append, "third")

    loop.call_soon(first)
    loop.call_soon(ran.append, "second")
    run_once(loop)
    assert ran == ["first", "second"]
    run_once(loop)
    assert ran == ["first", "second", "third"]


def test_reference_counts_are_what_they_were_also_of_immortal_objects(loop):
    def callback(*_arguments: object) -> None:
        pass

    context = contextvars.copy_context()
    mortal = object()
    objects = [callback, context, mortal, None, True, 1, (), "interned"]
    gc.collect()
    before = [sys.getrefcount(each) for each in objects]
    for _ in range(1000):
        for each in objects:
            loop.call_soon(callback, each, context=context)
        loop.call_soon(callback, *objects)
        handle = loop.call_soon(callback, mortal)
        handle.cancel()
    del handle
    run_once(loop)
    gc.collect()
    # The interpreter itself may come to hold a few more of its own singletons; a thousand would be ours.
    after = [sys.getrefcount(each) for each in objects]
    assert all(abs(now - then) < 50 for now, then in zip(after, before, strict=True)), (before, after)
    assert after[:3] == before[:3]


@pytest.mark.skipif(
    not (3, 12) <= sys.version_info < (3, 14) or bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="these Pythons count by halves",
)
def test_an_immortal_object_that_older_code_has_counted_stays_alive(loop):
    """An extension for an older Python counts up what is immortal, too: the count overflows its half."""
    immortal = type(iter(()))
    count = ctypes.c_int64.from_address(id(immortal))
    before = count.value
    count.value += 1
    try:
        for _ in range(100):
            loop.call_soon(isinstance, immortal, immortal)
            loop.call_soon(immortal.__name__.join, [immortal.__name__])
        run_once(loop)
        assert count.value >> 32 == 1
    finally:
        count.value = before


def test_a_cancelled_handle_does_not_run_and_releases_its_callback(loop):
    class Callback:
        def __call__(self):
            raise AssertionError("cancelled")

    callback = Callback()
    alive = weakref.ref(callback)
    handle = loop.call_soon(callback)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    del callback
    run_once(loop)
    gc.collect()
    assert alive() is None


def test_a_handle_cancelled_by_an_earlier_callback_of_the_same_turn_does_not_run(loop):
    ran: list[str] = []
    handles: list[asyncio.Handle] = []
    loop.call_soon(lambda: handles[0].cancel())
    handles.append(loop.call_soon(ran.append, "cancelled"))
    run_once(loop)
    assert ran == []


def test_handles_are_instances_of_asyncios_classes(loop):
    handle, timer = loop.call_soon(int), loop.call_later(1000, int)
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(timer, asyncio.TimerHandle)
    timer.cancel()
    run_once(loop)


def test_repr_of_a_handle_is_asyncios(loop):
    def named_callback(first, second):
        """Only its name matters."""

    handle = loop.call_soon(named_callback, 1, "two")
    assert repr(handle).startswith("<Handle ")
    assert "named_callback(" in repr(handle)
    assert f"{__file__}:{named_callback.__code__.co_firstlineno}" in repr(handle)
    handle.cancel()
    assert repr(handle).startswith("<Handle cancelled")
    timer = loop.call_later(1000, named_callback, 1, 2)
    assert repr(timer).startswith("<TimerHandle when=")
    timer.cancel()
    assert repr(timer).startswith("<TimerHandle cancelled when=")
    run_once(loop)


def test_each_callback_runs_in_the_context_it_was_given(loop):
    variable = contextvars.ContextVar("variable", default="default")
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    loop.call_soon(lambda: seen.append(variable.get()), context=context)
    token = variable.set("current")
    loop.call_soon(lambda: seen.append(variable.get()))
    variable.reset(token)
    loop.call_soon(lambda: (variable.set("inside"), seen.append(variable.get())))
    run_once(loop)
    assert seen == ["given", "current", "inside"]
    assert variable.get() == "default"


def test_what_a_callback_changes_stays_in_its_context(loop):
    variable = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    loop.call_soon(variable.set, "changed", context=context)
    run_once(loop)
    assert context[variable] == "changed"
    assert variable.get(None) is None


def test_a_handle_tells_its_context(loop):
    context = contextvars.copy_context()
    handle = loop.call_soon(int, context=context)
    run_once(loop)
    if sys.version_info >= (3, 12):
        assert handle.get_context() is context


async def test_callbacks_and_tasks_share_one_queue(loop):
    ran: list[str] = []

    async def task(name):
        ran.append(name)

    loop.call_soon(ran.append, "callback 1")
    first = asyncio.create_task(task("task 1"))
    loop.call_soon(ran.append, "callback 2")
    second = asyncio.create_task(task("task 2"))
    loop.call_soon_threadsafe(ran.append, "threadsafe")
    await asyncio.gather(first, second)
    await asyncio.sleep(0)
    assert ran == ["callback 1", "task 1", "callback 2", "task 2", "threadsafe"]


async def test_call_soon_threadsafe_on_the_own_thread_keeps_the_order(loop):
    ran: list[int] = []
    for number in range(0, 100, 2):
        loop.call_soon(ran.append, number)
        loop.call_soon_threadsafe(ran.append, number + 1)
    await asyncio.sleep(0)
    assert ran == list(range(100))


async def test_done_callbacks_of_a_future_run_in_order_on_a_later_turn(loop):
    ran: list[int] = []
    future = loop.create_future()
    for number in range(5):
        future.add_done_callback(lambda _, number=number: ran.append(number))
    future.set_result("result")
    assert ran == []
    assert await future == "result"
    await asyncio.sleep(0)
    assert ran == list(range(5))


def test_create_future_makes_asyncios_future_of_this_loop(loop):
    future = loop.create_future()
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    future.cancel()


async def test_create_task_makes_asyncios_task_with_every_keyword(loop):
    variable = contextvars.ContextVar("variable", default=None)
    context = contextvars.copy_context()
    context.run(variable.set, "given")

    async def read():
        return variable.get()

    task = loop.create_task(read(), name="reader", context=context)
    assert isinstance(task, asyncio.Task)
    assert task.get_name() == "reader"
    assert task in asyncio.all_tasks()
    assert await task == "given"
    unnamed = loop.create_task(read())
    assert unnamed.get_name().startswith("Task-")
    assert await unnamed is None


async def test_a_task_factory_makes_the_tasks(loop, is_aioxide, pytestconfig):
    made: list[str | None] = []

    def factory(loop, coroutine, **keywords):
        made.append(keywords.get("name"))
        return asyncio.Task(coroutine, loop=loop, **keywords)

    if is_aioxide and pytestconfig.getoption("--native-tasks"):
        loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    task = loop.create_task(asyncio.sleep(0, "result"), name="named")
    assert await task == "result"
    assert task.get_name() == "named"
    assert len(made) == 1
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


def test_a_task_factory_must_be_callable_or_none(loop):
    with pytest.raises(TypeError):
        loop.set_task_factory(42)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_an_eager_task_that_does_not_wait_never_meets_the_queue(loop):
    loop.set_task_factory(asyncio.eager_task_factory)
    ran: list[str] = []

    async def body():
        ran.append("body")
        return "result"

    async def waiting():
        ran.append("before")
        await asyncio.sleep(0)
        ran.append("after")

    task = loop.create_task(body())
    assert task.done()
    assert ran == ["body"]
    assert await task == "result"
    other = loop.create_task(waiting())
    assert ran == ["body", "before"]
    await other
    assert ran == ["body", "before", "after"]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_a_callback_given_without_being_callable_is_an_error_in_debug_mode(loop, method):
    loop.set_debug(True)
    with pytest.raises(TypeError, match="a callable object was expected"):
        getattr(loop, method)("not callable")


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_coroutine_is_not_a_callback_in_debug_mode(loop, method):
    async def coroutine():
        """Never run."""

    loop.set_debug(True)
    arguments = () if method.startswith("call_soon") else (1,)
    with pytest.raises(TypeError, match="coroutines cannot be used"):
        getattr(loop, method)(*arguments, coroutine)


def test_missing_arguments_are_type_errors(loop):
    for call in (loop.call_soon, loop.call_later, loop.call_at, loop.call_soon_threadsafe):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        loop.call_soon(int, unknown=1)
    with pytest.raises(TypeError):
        loop.call_later(1)


async def test_a_storm_of_callbacks_starves_neither_sockets_nor_timers(loop):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    storming = True

    def storm():
        if storming:
            loop.call_soon(storm)

    readable, expired = loop.create_future(), loop.create_future()

    def read():
        loop.remove_reader(ours)
        readable.set_result(ours.recv(1))

    with ours, theirs:
        for _ in range(10):
            storm()
        loop.add_reader(ours, read)
        begin = time.monotonic()
        loop.call_later(0.02, expired.set_result, None)
        theirs.send(b"x")
        async with asyncio.timeout(10):
            assert await readable == b"x"
            await expired
        assert time.monotonic() - begin >= 0.015
        storming = False
        await asyncio.sleep(0)


async def test_a_storm_of_task_steps_starves_no_other_thread(loop):
    spinning = True

    async def spin():
        while spinning:
            await asyncio.sleep(0)

    spinners = [asyncio.create_task(spin()) for _ in range(5)]
    done = loop.create_future()
    await asyncio.to_thread(loop.call_soon_threadsafe, done.set_result, "heard")
    async with asyncio.timeout(10):
        assert await done == "heard"
    spinning = False
    await asyncio.gather(*spinners)


async def test_a_hundred_thousand_callbacks_release_their_arguments(loop):
    class Argument:
        """Something a weak reference can point at."""

    arguments = [Argument() for _ in range(1000)]
    alive = weakref.WeakSet(arguments)
    count = 0

    def callback(argument):
        nonlocal count
        count += 1

    for _ in range(100):
        for argument in arguments:
            loop.call_soon(callback, argument)
    arguments.clear()
    del argument
    await asyncio.sleep(0)
    assert count == 100_000
    gc.collect()
    assert len(alive) == 0


def test_callbacks_never_run_are_released_by_close(loop):
    class Callback:
        def __call__(self):
            raise AssertionError("the loop never ran")

    callback = Callback()
    alive = weakref.ref(callback)
    loop.call_soon(callback)
    loop.call_later(1000, callback)
    loop.call_soon_threadsafe(callback)
    loop.close()
    del callback
    gc.collect()
    assert alive() is None


def test_a_destructor_that_schedules_is_harmless(loop):
    ran: list[str] = []

    class Schedules:
        def __call__(self):
            raise AssertionError("cancelled")

        def __del__(self):
            loop.call_soon(ran.append, "from the destructor")

    loop.call_soon(Schedules()).cancel()
    loop.call_later(1000, Schedules()).cancel()
    for _ in range(3):
        run_once(loop)
    gc.collect()
    run_once(loop)
    assert ran == ["from the destructor"] * 2


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
async def test_a_handle_that_ran_is_gone_though_others_come_in_its_place(loop, method):
    """Memory is used again, objects that somebody knows are not."""
    schedule = getattr(loop, method)
    ran: list[int] = []
    for number in range(300):
        schedule(ran.append, number)
    await asyncio.sleep(0)
    references = [weakref.ref(schedule(ran.append, number)) for number in range(300, 600)]
    assert all(reference() is not None for reference in references)
    await asyncio.sleep(0)
    gc.collect()
    assert [reference() for reference in references] == [None] * 300
    for number in range(600, 900):
        schedule(ran.append, number)
    assert [reference() for reference in references] == [None] * 300
    await asyncio.sleep(0)
    assert ran == list(range(900))


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
async def test_a_callback_may_find_and_cancel_its_handle_by_a_weak_reference(loop, method):
    """A handle that nobody holds can still be come to."""
    found: list[asyncio.Handle | None] = []
    references: list[weakref.ref[asyncio.Handle]] = []

    def callback(*arguments: int) -> None:
        handle = references[0]()
        found.append(handle)
        if handle is not None:
            handle.cancel()
        found.append(handle)

    references.append(weakref.ref(getattr(loop, method)(callback, 1, 2)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [type(handle) for handle in found] == [type(found[0])] * 2
    assert found[0] is not None
    assert found[0].cancelled()


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
async def test_the_handle_of_a_report_stays_what_it_was(loop, reported, method):
    """The exception handler may keep it."""
    schedule = getattr(loop, method)

    def fail(number: int) -> None:
        raise ValueError(number)

    for number in range(3):
        schedule(fail, number)
    await asyncio.sleep(0)
    handles = [report["handle"] for report in reported]
    for _ in range(10):
        schedule(id, "another")
    await asyncio.sleep(0)
    assert len(set(map(id, handles))) == 3
    assert [handle._args for handle in handles] == [(0,), (1,), (2,)]
    reported.clear()


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later"])
async def test_what_comes_after_a_cancelled_handle_is_not_cancelled(loop, method):
    """Nor has it anything else of it, whoever was the last to have it."""
    schedule = functools.partial(loop.call_later, 0) if method == "call_later" else getattr(loop, method)
    ran: list[str] = []

    def cancel_next() -> None:
        handles.pop().cancel()

    loop.call_soon(cancel_next)
    handles = [schedule(ran.append, "cancelled by a callback")]
    schedule(ran.append, "cancelled at once").cancel()
    await asyncio.sleep(0)
    others = [schedule(ran.append, str(number)) for number in range(5)]
    assert not any(handle.cancelled() for handle in others)
    assert [handle._args for handle in others] == [(str(number),) for number in range(5)]
    await asyncio.sleep(0.001)
    assert ran == ["0", "1", "2", "3", "4"]


async def test_a_timer_that_comes_after_another_has_its_own_time(loop):
    loop.call_at(10**9, int).cancel()
    timer = loop.call_at(loop.time() + 60.5, int)
    assert isinstance(timer.when(), float)
    assert timer in loop._scheduled
    assert timer._scheduled
    timer.cancel()
    del timer
    again = loop.call_at(10**9, int)
    assert again.when() == 10**9
    assert isinstance(again.when(), int)
    assert again._scheduled
    again.cancel()


@pytest.mark.parametrize("method", ["call_soon", "call_later"])
async def test_a_handle_that_somebody_knows_stays_cancelled(loop, method):
    """By a weak reference, too."""
    schedule = functools.partial(loop.call_later, 60) if method == "call_later" else loop.call_soon
    cancelled = schedule(int)
    cancelled.cancel()
    known = weakref.ref(cancelled)
    others = [schedule(int) for _ in range(5)]
    assert cancelled.cancelled()
    assert known() is cancelled
    del cancelled
    await asyncio.sleep(0)
    gc.collect()
    assert known() is None
    more = [schedule(int) for _ in range(5)]
    assert known() is None
    for handle in others + more:
        handle.cancel()


def test_a_loop_that_ran_is_not_held_by_its_handles(loop_factory):
    loop = loop_factory()

    async def schedule(loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(10):
            loop.call_soon(int)
            loop.call_soon_threadsafe(int)
            loop.call_later(60, int).cancel()
        await asyncio.sleep(0.001)

    loop.run_until_complete(schedule(loop))
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


def test_cycles_through_a_handle_are_collected(loop):
    class Node:
        """Holds the handle that holds it."""

    node = Node()
    alive = weakref.ref(node)
    node.handle = loop.call_soon(lambda node: None, node)
    node.timer = loop.call_later(0, lambda node: None, node)
    del node
    run_once(loop)
    run_once(loop)
    gc.collect()
    assert alive() is None


def test_the_private_queues_are_copies(loop, is_aioxide):
    soon = loop.call_soon(int)
    later = loop.call_later(60, int)
    assert list(loop._ready) == [soon]
    assert list(loop._scheduled) == [later]
    loop._ready.clear()
    loop._scheduled.clear()
    assert list(loop._ready) == ([soon] if is_aioxide else [])
    assert list(loop._scheduled) == ([later] if is_aioxide else [])
    later.cancel()
