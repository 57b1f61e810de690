"""What native tasks and futures do, word for word: the same scenario with asyncio's own and with ours.

A scenario notes what it sees. The two transcripts must be the same, but for addresses and numbers of tasks.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import gc
import io
import itertools
import re
import sys
import traceback
import types
from collections.abc import Awaitable, Callable
from typing import Any

import aioxide
import pytest

Scenario = Callable[["Stage"], Awaitable[None]]
SCENARIOS: list[Scenario] = []
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")
since_312 = sys.version_info >= (3, 12)


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


class Stage:
    """What a scenario plays with, and its transcript."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lines: list[str] = []

    def note(self, *things: object) -> None:
        text = " ".join(thing if isinstance(thing, str) else repr(thing) for thing in things)
        text = re.sub(r"0x[0-9a-f]+", "0x", text)
        text = re.sub(r"Task-\d+", "Task-N", text)
        self.lines.append(text)

    def attempt(self, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Note what a call returns or raises."""
        try:
            self.note(function(*arguments, **options))
        except BaseException as error:
            self.note(type(error), str(error), error.__cause__, error.__context__)

    async def outcome(self, awaitable: Awaitable[object]) -> None:
        """Note what an await gives."""
        try:
            self.note("result", await awaitable)
        except BaseException as error:
            self.note("raised", type(error), error.args, error.__cause__, error.__context__)

    def refused(self, function: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Note the type of what a call raises, where its text is the interpreter's."""
        with pytest.raises((TypeError, AttributeError)) as caught:
            function(*arguments, **options)
        self.note(caught.type)

    def report(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.note("report", {name: context[name] for name in sorted(context) if name != "source_traceback"})


@scenario
async def a_task_returns(stage):
    async def body():
        await asyncio.sleep(0)
        return 42

    task = stage.loop.create_task(body(), name="the task")
    stage.note(task, task.done(), task.cancelled(), task.cancelling(), task.get_name())
    stage.attempt(task.result)
    stage.attempt(task.exception)
    await stage.outcome(task)
    stage.note(task, task.done(), task.cancelled())
    stage.attempt(task.result)
    stage.attempt(task.exception)
    stage.attempt(task.cancel)
    stage.attempt(task.set_result, 1)
    stage.attempt(task.set_exception, ValueError())


@scenario
async def a_task_raises(stage):
    async def body():
        await asyncio.sleep(0)
        raise LookupError("lost")

    task = stage.loop.create_task(body())
    await asyncio.wait([task])
    stage.note(task._log_traceback, task)
    stage.attempt(task.exception)
    stage.note(task._log_traceback)
    for _ in range(3):
        try:
            await task
        except LookupError as error:
            stage.note([frame.name for frame in traceback.extract_tb(error.__traceback__)])


@scenario
async def states_of_a_future(stage):
    future = stage.loop.create_future()
    stage.note(future, future.done(), future.cancelled(), future._state, future._callbacks)
    stage.attempt(future.result)
    stage.attempt(future.exception)
    future.set_result([1, 2])
    stage.note(future, future.done(), future._state, future._result, future._exception)
    stage.attempt(future.result)
    stage.attempt(future.exception)
    stage.attempt(future.set_result, 1)
    stage.attempt(future.set_exception, ValueError())
    stage.attempt(future.cancel)
    await stage.outcome(future)


@scenario
async def exceptions_that_a_future_takes_and_does_not(stage):
    class Stopped(StopIteration):
        pass

    class Fails(Exception):
        def __init__(self):
            raise OSError("cannot be made")

    for given in (
        ValueError,
        ValueError("given"),
        StopIteration,
        StopIteration(1),
        Stopped(2),
        Fails,
        42,
        int,
        None,
    ):
        future = stage.loop.create_future()
        stage.attempt(future.set_exception, given)
        stage.note(future.done(), future._log_traceback)
        if future.done():
            await stage.outcome(future)
            error = future.exception()
            stage.note(error, error.__cause__, error.__context__)
        stage.note(future)


@scenario
async def a_cancelled_future_keeps_its_message(stage):
    for arguments in ((), ("why",), (None,), (42,)):
        future = stage.loop.create_future()
        stage.note(future._cancel_message)
        stage.attempt(future.cancel, *arguments)
        stage.attempt(future.cancel, "again")
        stage.note(future, future._cancel_message, future.cancelled())
        stage.attempt(future.result)
        stage.attempt(future.exception)
        await stage.outcome(future)
        stage.note(future._make_cancelled_error())
    future = stage.loop.create_future()
    future.cancel(msg="by name")
    future._cancel_message = "another"
    await stage.outcome(future)


@scenario
async def cancelling_a_task_in_each_of_its_states(stage):
    async def body(*steps):
        for step in steps:
            try:
                await step()
            except asyncio.CancelledError as error:
                stage.note("cancelled", error.args)
                if step is steps[-1]:
                    raise

    never = stage.loop.create_future
    # Before its first step, while it waits, when it has the answer but has not seen it, and when it is done.
    task = stage.loop.create_task(body(never))
    stage.note(task.cancel("early"), task.cancelling(), task._must_cancel, task)
    await stage.outcome(task)
    stage.note(task.cancelling(), task)
    task = stage.loop.create_task(body(never))
    await asyncio.sleep(0)
    stage.note(task._fut_waiter is not None, task.cancel("waiting"), task.cancelling(), task._must_cancel)
    await stage.outcome(task)
    answered = never()
    task = stage.loop.create_task(body(lambda: answered))
    await asyncio.sleep(0)
    answered.set_result(None)
    stage.note(task.cancel("late"), task._must_cancel)
    await stage.outcome(task)
    stage.note(task.cancel("too late"), task.cancelling())
    # Twice, the first time ignored.
    task = stage.loop.create_task(body(never, never))
    await asyncio.sleep(0)
    task.cancel("first")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stage.note(task.cancelling(), task.cancel("second"), task.cancelling())
    stage.note(task.uncancel(), task.uncancel(), task.uncancel())
    await stage.outcome(task)


@scenario
async def uncancelling_before_it_was_heard_of(stage):
    async def body():
        await asyncio.sleep(0)
        return "not cancelled"

    task = stage.loop.create_task(body())
    task.cancel()
    stage.note(task.uncancel(), task._must_cancel)
    await stage.outcome(task)


@scenario
async def a_task_that_ends_in_spite_of_being_cancelled(stage):
    async def body():
        task.cancel("by itself")
        return "value"

    task = stage.loop.create_task(body())
    await stage.outcome(task)
    stage.note(task)


@scenario
async def a_cancelled_task_gives_its_own_exception_once(stage):
    async def body():
        try:
            await stage.loop.create_future()
        except asyncio.CancelledError as error:
            raise asyncio.CancelledError("another") from error

    task = stage.loop.create_task(body())
    await asyncio.sleep(0)
    task.cancel("first")
    await asyncio.wait([task])
    await stage.outcome(task)
    await stage.outcome(task)
    stage.attempt(task.exception)


@scenario
async def what_a_coroutine_must_not_yield(stage):
    @types.coroutine
    def give(thing):
        yield thing

    async def yields(thing):
        try:
            await give(thing)
        except BaseException as error:
            stage.note(type(error), str(error))
            raise

    def generator():
        yield

    other = asyncio.new_event_loop()
    foreign, unawaited = other.create_future(), stage.loop.create_future()
    for thing in (1, "text", generator(), foreign, unawaited, object):
        task = stage.loop.create_task(yields(thing), name="yielding")
        await asyncio.wait([task])
        stage.note(type(task.exception()))
    await asyncio.wait([stage.loop.create_task(await_it(foreign), name="awaiting")])
    other.close()

    async def itself():
        await task

    task = stage.loop.create_task(itself(), name="itself")
    await stage.outcome(task)


async def await_it(awaitable):
    return await awaitable


@scenario
async def awaiting_what_has_an_answer_already(stage):
    for value in (1, None, (1, 2), ValueError("a value"), StopIteration(3)):
        future = stage.loop.create_future()
        future.set_result(value)
        stage.note(await future, future.result())
        stage.note(await stage.loop.create_task(await_it(future)))
        later = stage.loop.create_future()
        stage.loop.call_soon(later.set_result, value)
        stage.note(await later)


@scenario
async def futures_of_both_kinds_and_others(stage):
    for future in (asyncio.Future(loop=stage.loop), stage.loop.create_future()):
        stage.loop.call_soon(future.set_result, "value")
        await stage.outcome(stage.loop.create_task(await_it(future)))
    for kind in (asyncio.Task, stage.loop.create_task):
        options = {"loop": stage.loop} if kind is asyncio.Task else {}
        task = kind(await_it(stage.loop.create_future()), **options)
        outer = stage.loop.create_task(await_it(task))
        await asyncio.sleep(0)
        stage.note(outer.cancel("through"))
        await stage.outcome(outer)
        stage.note(task.cancelled())
    stage.note(await asyncio.to_thread(lambda: "thread"))
    await stage.outcome(
        asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 1), stage.loop))
    )


@scenario
async def a_task_of_a_foreign_future_is_woken_like_any_other(stage):
    for end in ("set_result", "set_exception", "cancel"):
        future = asyncio.Future(loop=stage.loop)
        task = stage.loop.create_task(await_it(future), name="waiting")
        await asyncio.sleep(0)
        stage.note(task._fut_waiter is future, len(future._callbacks))
        getattr(future, end)({"set_exception": ValueError("told")}.get(end, "value"))
        await stage.outcome(task)
        stage.note(task._fut_waiter)


@scenario
async def callbacks_in_order_and_in_their_contexts(stage):
    def note(name, future):
        stage.note(name, future, variable.get())

    class Once:
        def __init__(self, name):
            self.name = name

        def __call__(self, future):
            note(self.name, future)

        def __eq__(self, other):
            return isinstance(other, Once) and other.name == self.name

        __hash__ = None

    future = stage.loop.create_future()
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    future.add_done_callback(Once("a"))
    future.add_done_callback(Once("b"), context=context)
    future.add_done_callback(Once("a"))
    stage.note(len(future._callbacks), [type(entry) for entry in future._callbacks])
    stage.note(future.remove_done_callback(Once("a")), future.remove_done_callback(Once("c")))
    variable.set("changed")
    future.add_done_callback(Once("d"))
    future.set_result(1)
    stage.note("set", future._callbacks)
    await asyncio.sleep(0)
    future.add_done_callback(Once("late"), context=context)
    stage.note("added")
    await asyncio.sleep(0)
    stage.refused(future.add_done_callback)
    stage.refused(future.add_done_callback, print, context)
    stage.refused(future.add_done_callback, print, nonsense=1)
    stage.refused(future.set_result)
    stage.note(future.remove_done_callback(None))


@scenario
async def a_callback_that_raises_is_reported(stage):
    def fails(future):
        raise LookupError("in the callback")

    future = stage.loop.create_future()
    future.add_done_callback(fails)
    future.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@scenario
async def removing_callbacks_that_change_the_list(stage):
    future = stage.loop.create_future()

    class Changing:
        def __eq__(self, other):
            future.remove_done_callback(print)
            return False

        __hash__ = None

    for callback in (print, repr, print, repr):
        future.add_done_callback(callback)
    stage.note(future.remove_done_callback(Changing()))
    stage.note([callback for callback, _ in future._callbacks])
    future.cancel()
    await asyncio.sleep(0)


@scenario
async def reprs_name_what_is_waited_for(stage):
    future = stage.loop.create_future()
    task = stage.loop.create_task(await_it(future), name="a name")
    stage.note(task)
    await asyncio.sleep(0)
    stage.note(task)
    stage.note(future)
    task.add_done_callback(print)
    task.add_done_callback(repr)
    task.add_done_callback(len)
    stage.note(task)
    task.cancel()
    stage.note(task)
    for callback in (print, repr, len):
        task.remove_done_callback(callback)
    await asyncio.wait([task])
    stage.note(task)


@scenario
async def stacks(stage):
    async def outer():
        await await_it(future)

    async def fails():
        raise ValueError("told")

    future = stage.loop.create_future()
    task = stage.loop.create_task(outer(), name="stack")
    await asyncio.sleep(0)
    stage.note([frame.f_code.co_name for frame in task.get_stack()], len(task.get_stack(limit=1)))
    for limit in (None, 1):
        text = io.StringIO()
        task.print_stack(limit=limit, file=text)
        stage.note(text.getvalue())
    future.set_result(None)
    await task
    stage.note(task.get_stack())
    failed = stage.loop.create_task(fails())
    await asyncio.wait([failed])
    stage.note([frame.f_code.co_name for frame in failed.get_stack()])
    stage.attempt(failed.exception)
    stage.refused(task.get_stack, 1)


@scenario
async def names(stage):
    async def body():
        pass

    class Name:
        def __str__(self):
            return "an object's name"

    for given in ("text", 42, None, Name()):
        task = stage.loop.create_task(body(), name=given)
        stage.note(task.get_name())
        task.set_name(given)
        stage.note(task.get_name())
        await task
    stage.attempt(stage.loop.create_task, body, name="not a coroutine")
    stage.attempt(stage.loop.create_task, None)
    coroutine = body()
    stage.refused(stage.loop.create_task, coroutine, nonsense=1)
    coroutine.close()


@scenario
async def contexts(stage):
    async def body(value):
        stage.note(variable.get())
        variable.set(value)
        await asyncio.sleep(0)
        stage.note(variable.get())

    context = contextvars.copy_context()
    context.run(variable.set, "given")
    task = stage.loop.create_task(body("in the given"), context=context)
    if since_312:
        stage.note(task.get_context() is context)
    await task
    stage.note(context[variable])
    variable.set("of the parent")
    await stage.loop.create_task(body("in a copy"))
    stage.note(variable.get())


@scenario
async def the_current_task(stage):
    async def body():
        stage.note(asyncio.current_task().get_name(), asyncio.current_task(stage.loop).get_name())
        stage.loop.call_soon(lambda: stage.note(asyncio.current_task()))
        await asyncio.sleep(0)
        stage.note(asyncio.current_task().get_name())

    tasks = [stage.loop.create_task(body(), name=f"task {number}") for number in range(2)]
    stage.note(
        sorted(task.get_name() for task in asyncio.all_tasks() if not task.get_name().startswith("Task"))
    )
    await asyncio.gather(*tasks)
    stage.note(
        sorted(task.get_name() for task in asyncio.all_tasks() if not task.get_name().startswith("Task"))
    )


@scenario
async def eager_tasks(stage):
    async def body(waits):
        stage.note("begun", asyncio.current_task().get_name(), variable.get())
        variable.set("by the task")
        if waits:
            await asyncio.sleep(0)
        stage.note("going on", asyncio.current_task().get_name())
        if waits is None:
            raise LookupError("at once")
        return waits

    coroutine = body(True)
    if not since_312:
        stage.refused(stage.loop.create_task, coroutine, eager_start=True)
        coroutine.close()
        return
    coroutine.close()
    for waits in (True, False, None):
        kind = type(asyncio.current_task())
        task = kind(body(waits), loop=stage.loop, name=f"eager {waits}", eager_start=True)
        stage.note("made", asyncio.current_task().get_name(), task, variable.get())
        if sys.version_info >= (3, 13):  # 3.12 crashes
            stage.note(task.get_coro() is None)
        await stage.outcome(task)


@scenario
async def iterators_of_a_future(stage):
    def poll(iterator):
        try:
            return iterator.send(None)
        except StopIteration as stopped:
            return ("stopped", stopped.value, stopped.args)

    for make in (lambda future: future.__await__(), iter, lambda future: future.__iter__()):
        future = stage.loop.create_future()
        iterator = make(future)
        stage.note(poll(iterator) is future, future._asyncio_future_blocking)
        stage.attempt(next, iterator)
        future._asyncio_future_blocking = False
        future.set_result((1, 2))
        stage.note(poll(iterator))
        iterator = make(future)
        stage.attempt(iterator.throw, ValueError("thrown"))
        stage.attempt(iterator.throw, 42)
        stage.note(iterator.close())


@scenario
async def what_nobody_asked_for_is_reported(stage):
    async def fails():
        raise LookupError("unheard")

    future = stage.loop.create_future()
    future.set_exception(ValueError("unheard"))
    del future
    gc.collect()
    task = stage.loop.create_task(fails(), name="unheard")
    await asyncio.wait([task])
    del task
    gc.collect()
    heard = stage.loop.create_future()
    heard.set_exception(ValueError("heard"))
    heard.exception()
    quiet = stage.loop.create_future()
    quiet.set_exception(ValueError("quiet"))
    stage.attempt(setattr, quiet, "_log_traceback", True)
    quiet._log_traceback = False
    del heard, quiet
    gc.collect()


@scenario
async def a_pending_task_that_goes_is_reported(stage):
    async def waits():
        await stage.loop.create_future()

    for quiet in (False, True):
        task = stage.loop.create_task(waits(), name="forgotten")
        stage.note(task._log_destroy_pending)
        if quiet:
            task._log_destroy_pending = False
        await asyncio.sleep(0)
        del task
        gc.collect()


@scenario
async def generic_aliases_and_attributes(stage):
    future, task = stage.loop.create_future(), asyncio.current_task()
    stage.note(
        isinstance(future, asyncio.Future), isinstance(task, asyncio.Task), isinstance(task, asyncio.Future)
    )
    stage.note(asyncio.isfuture(future), asyncio.isfuture(task), isinstance(future, asyncio.Task))
    stage.note(future.__class__, task.__class__, asyncio.iscoroutine(future), asyncio.iscoroutine(task))
    stage.note(type(future)[int].__args__, type(task)[int].__args__)
    stage.note(future.get_loop() is stage.loop, task.get_loop() is stage.loop, future._loop is stage.loop)
    for name in ("send", "throw", "close", "__next__"):
        stage.note(hasattr(future, name), hasattr(task, name))
    # Whole tracebacks tell the two runs of this scenario apart.
    origin = [entry.name for entry in future._source_traceback or ()][-1:]
    stage.note(task.get_coro() is task._coro, origin, future._asyncio_future_blocking)
    for name in ("_log_destroy_pending", "_source_traceback", "_state"):
        stage.refused(delattr, task, name)


@scenario
async def in_debug_mode(stage):
    stage.loop.set_debug(True)
    future = stage.loop.create_future()
    stage.note([entry.name for entry in future._source_traceback][-1:])
    task = stage.loop.create_task(await_it(future), name="debugged")
    stage.note([entry.name for entry in task._source_traceback][-1:])
    stage.note(task)
    task.add_done_callback(lambda task: stage.note("done", task))
    future.set_result(1)
    await task
    await asyncio.sleep(0)
    stage.attempt(future.add_done_callback, None)
    stage.loop.set_debug(False)


@scenario
async def the_usual_combinations(stage):
    async def work(number):
        await asyncio.sleep(0)
        if number == 3:
            raise LookupError(number)
        return number

    stage.note(await asyncio.gather(*map(work, range(3))))
    stage.note(await asyncio.gather(*map(work, range(5)), return_exceptions=True))
    await stage.outcome(asyncio.gather(*map(work, range(5))))
    await stage.outcome(asyncio.wait_for(stage.loop.create_future(), 0.001))
    await stage.outcome(asyncio.wait_for(work(1), 10))
    shielded = stage.loop.create_future()
    outer = stage.loop.create_task(await_it(asyncio.shield(shielded)))
    await asyncio.sleep(0)
    outer.cancel()
    await stage.outcome(outer)
    stage.note(shielded.done())
    shielded.cancel()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(number)) for number in range(5)]
    except* LookupError as errors:
        stage.note(errors.exceptions)
    stage.note([task.cancelled() for task in tasks])
    for finished in asyncio.as_completed([work(1)]):
        stage.note(await finished)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await stage.loop.create_future()
    stage.note(asyncio.current_task().cancelling())


@scenario
async def coroutines_of_other_kinds(stage):
    class Coroutine:
        """What Cython makes looks like this."""

        def __init__(self):
            self.steps = iter((None, None))

        def send(self, value):
            stage.note("send", value)
            for step in self.steps:
                return step
            raise StopIteration("value")

        def throw(self, *arguments):
            stage.note("throw", type(arguments[-1]))
            raise StopIteration("thrown")

        def close(self):
            pass

        def __await__(self):
            return self

    collections.abc.Coroutine.register(Coroutine)
    await stage.outcome(stage.loop.create_task(Coroutine()))
    task = stage.loop.create_task(Coroutine())
    await asyncio.sleep(0)
    task.cancel()
    await stage.outcome(task)


def transcript(loop: asyncio.AbstractEventLoop, play: Scenario) -> list[str]:
    stage = Stage(loop)
    loop.set_exception_handler(stage.report)
    # Numbers of tasks without a name differ from run to run.
    loop.run_until_complete(loop.create_task(play(stage), name="main"))
    gc.collect()
    return stage.lines


@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
@pytest.mark.parametrize("driver", ["uring", "epoll"])
def test_native_tasks_do_what_asyncios_do(play: Scenario, driver: str, require_driver: None) -> None:
    transcripts = []
    for factory in (None, aioxide.native_task_factory):
        loop = aioxide.EventLoop(driver)
        counts = loop.statistics()
        loop.set_task_factory(factory)
        try:
            transcripts.append(transcript(loop, play))
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        gc.collect()
        assert loop.statistics()["tasks"] == counts["tasks"]
        assert loop.statistics()["futures"] == counts["futures"]
    asyncios, ours = transcripts
    assert asyncios
    for expected, seen in itertools.zip_longest(asyncios, ours):
        assert seen == expected
