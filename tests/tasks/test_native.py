"""What is particular to native tasks: how they are chosen, what they are, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import weakref

import aioxide
import pytest
from aioxide import _rust
from children import without_debug_mode

since_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought it")
since_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="Python 3.14 brought it")
both_drivers = pytest.mark.parametrize("driver", ["uring", "epoll"])


async def kinds() -> tuple[type, type, type]:
    """Return the types of the current task, of a new one and of a new future."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    return type(asyncio.current_task()), type(task), type(loop.create_future())


NATIVE = (_rust.Task, _rust.Task, _rust.Future)
ASYNCIOS = (asyncio.Task, asyncio.Task, asyncio.Future)


def test_run_makes_native_tasks_if_it_is_told_to():
    assert aioxide.run(kinds()) == ASYNCIOS
    assert aioxide.run(kinds(), native_tasks=True) == NATIVE


def test_run_makes_them_on_the_loop_of_a_factory():
    loops = []

    def factory():
        loops.append(aioxide.EventLoop("epoll"))
        return loops[0]

    assert aioxide.run(kinds(), loop_factory=factory, native_tasks=True) == NATIVE
    assert loops[0].is_closed()


def test_run_refuses_native_tasks_on_another_loop():
    main = kinds()
    with pytest.raises(TypeError, match="need an aioxide event loop"):
        aioxide.run(main, loop_factory=asyncio.SelectorEventLoop, native_tasks=True)
    main.close()


def test_the_factory_refuses_another_loop():
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(aioxide.native_task_factory)
    main = kinds()
    with pytest.raises(TypeError, match="need an aioxide event loop, not <_UnixSelectorEventLoop"):
        loop.run_until_complete(main)
    for made in (lambda: _rust.Future(loop=loop), lambda: _rust.Task(main, loop=loop)):
        with pytest.raises(TypeError, match="need an aioxide event loop"):
            made()
    main.close()
    loop.close()


@both_drivers
def test_the_factory_is_chosen_and_left(driver, require_driver):
    loop = aioxide.EventLoop(driver)
    loop.set_task_factory(aioxide.native_task_factory)
    assert loop.get_task_factory() is aioxide.native_task_factory
    assert loop.run_until_complete(loop.create_task(kinds())) == NATIVE
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None
    assert loop.run_until_complete(loop.create_task(kinds())) == ASYNCIOS
    loop.close()


@both_drivers
def test_a_factory_of_ones_own_may_call_it(driver, require_driver):
    made = []

    def factory(loop, coroutine, **options):
        made.append(aioxide.native_task_factory(loop, coroutine, **options))
        return made[-1]

    async def main():
        task = loop.create_task(asyncio.sleep(0, "result"), name="named")
        assert type(task) is _rust.Task
        return task.get_name(), await task

    loop = aioxide.EventLoop(driver)
    loop.set_task_factory(factory)
    assert loop.run_until_complete(main()) == ("named", "result")
    assert len(made) == 2
    made.clear()
    loop.close()


@pytest.mark.parametrize("options", [[], ["--driver", "epoll", "--debug"]])
def test_the_command_line_chooses_native_tasks(options, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
            import asyncio

            async def main():
                loop = asyncio.get_running_loop()
                print(type(asyncio.current_task()), type(loop.create_future()), loop.get_debug())

            asyncio.run(main())
        """)
    )
    for chosen, names in (([], ("asyncio", "asyncio")), (["--native-tasks"], ("aioxide", "aioxide"))):
        done = subprocess.run(
            [sys.executable, "-m", "aioxide", *chosen, *options, str(program)],
            capture_output=True,
            text=True,
            timeout=60,
            env=without_debug_mode(),
        )
        assert done.returncode == 0, done.stderr
        seen = [word.strip("_<>'").partition(".")[0] for word in done.stdout.split() if word.startswith("'")]
        assert tuple(seen) == names
        assert done.stdout.split()[-1] == str("--debug" in options)


@both_drivers
def test_what_they_are_to_isinstance_and_what_not(driver, require_driver):
    async def main():
        task, future = asyncio.current_task(), asyncio.get_running_loop().create_future()
        assert isinstance(task, asyncio.Task)
        assert isinstance(task, asyncio.Future)
        assert isinstance(future, asyncio.Future)
        assert not isinstance(future, asyncio.Task)
        assert isinstance(task, _rust.Future)
        # The differences that docs/compatibility.md names.
        assert type(task) is not asyncio.Task
        assert not issubclass(type(task), asyncio.Task)
        with pytest.raises(TypeError):
            asyncio.Task.cancel(task)

    aioxide.run(main(), loop_factory=lambda: aioxide.EventLoop(driver), native_tasks=True)


@pytest.mark.parametrize("base", [_rust.Task, _rust.Future])
def test_they_are_no_base_classes(base):
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Derived", (base,), {})


async def test_the_asynchronous_iteration_of_all_tasks(loop):
    tasks = {loop.create_task(asyncio.sleep(0)) for _ in range(100)}
    assert asyncio.all_tasks() == tasks | {asyncio.current_task()}
    iterating = iter(asyncio.all_tasks())
    next(iterating)
    await asyncio.gather(*tasks)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_all_tasks_is_right_while_tasks_end_on_other_threads(loop, loop_factory):
    def work():
        async def main():
            for _ in range(2000):
                await asyncio.create_task(asyncio.sleep(0))

        other = loop_factory()
        other.run_until_complete(main())
        other.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(0)
    for thread in threads:
        thread.join()


async def test_a_result_lives_no_longer_than_its_holders(loop):
    class Result:
        pass

    async def body():
        return Result()

    def set_later():
        future = loop.create_future()
        loop.call_soon(lambda: future.set_result(Result()))
        return future

    for make in (lambda: loop.create_task(body()), set_later):
        awaitable = make()
        result = await awaitable
        reference = weakref.ref(result)
        assert reference() is result
        del result, awaitable
        await asyncio.sleep(0)
        assert reference() is None


async def test_a_value_awaited_by_a_coroutine_that_is_not_a_native_tasks_is_let_go_too(loop):
    class Result:
        pass

    async def body(future):
        result = await future
        references.append(weakref.ref(result))

    def set_result(future):
        future.set_result(Result())

    references: list[weakref.ref[Result]] = []
    future = loop.create_future()
    task = asyncio.Task(body(future), loop=loop)
    loop.call_soon(set_result, future)
    del future
    await task
    await asyncio.sleep(0)
    assert references[0]() is None


@pytest.mark.parametrize("count", [1, 1000])
async def test_a_cycle_of_a_task_that_waits_for_a_future_that_only_it_knows_is_collected(
    loop, count, reported
):
    async def waits():
        await loop.create_future()

    tasks = [loop.create_task(waits()) for _ in range(count)]
    await asyncio.sleep(0)
    references = [weakref.ref(task) for task in tasks]
    tasks.clear()
    gc.collect()
    assert [context["message"] for context in reported] == ["Task was destroyed but it is pending!"] * count
    reported.clear()
    gc.collect()
    assert all(reference() is None for reference in references)


async def test_a_cycle_through_a_result_or_a_callback_is_collected(loop):
    class Holder:
        pass

    for attach in (lambda f, h: f.set_result(h), lambda f, h: f.add_done_callback(lambda _: h)):
        holder = Holder()
        holder.future = loop.create_future()
        attach(holder.future, holder)
        reference = weakref.ref(holder)
        del holder
        await asyncio.sleep(0)
        gc.collect()
        assert reference() is None


async def test_a_task_may_be_kept_by_its_own_report(loop, reported):
    async def fails():
        raise LookupError

    for _ in range(300):  # more than a free list keeps
        task = loop.create_task(fails())
        await asyncio.wait([task])
        del task
    gc.collect()
    assert len(reported) == 300
    kept = [context["future"] for context in reported]
    reported.clear()
    assert all(type(task.exception()) is LookupError for task in kept)
    del kept
    gc.collect()
    assert not reported


async def test_objects_of_dead_ones_memory_are_new_in_every_respect(loop, reported):
    async def body(number):
        if number % 2:
            raise LookupError(number)
        return number

    for _ in range(3):
        tasks = [loop.create_task(body(number)) for number in range(400)]
        references = [weakref.ref(task) for task in tasks]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [result for result in results if isinstance(result, int)] == list(range(0, 400, 2))
        assert all(gc.is_tracked(task) for task in tasks)
        tasks.clear()
        del results
        await asyncio.sleep(0)
        gc.collect()
        assert all(reference() is None for reference in references)
    # Each is reported anew, though the memory's last owner was reported, too.
    for _ in range(2):
        for number in (1, 3, 5):
            await asyncio.wait([loop.create_task(body(number))])
        gc.collect()
    assert len(reported) == 6
    reported.clear()


@both_drivers
def test_they_are_counted(driver, require_driver):
    async def main():
        before = loop.statistics()
        futures = [loop.create_future() for _ in range(10)]
        tasks = [loop.create_task(asyncio.sleep(0)) for _ in range(20)]
        after = loop.statistics()
        assert after["tasks"] - before["tasks"] == 20
        assert after["futures"] - before["futures"] == 10
        await asyncio.gather(*tasks)
        del tasks, futures

    gc.collect()
    loop = aioxide.EventLoop(driver)
    at_first = loop.statistics()
    loop.set_task_factory(aioxide.native_task_factory)
    loop.run_until_complete(main())
    gc.collect()
    at_last = loop.statistics()
    loop.close()
    assert {name: at_last[name] for name in ("tasks", "futures")} == {
        name: at_first[name] for name in ("tasks", "futures")
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_must_end_the_loop_ends_it(loop, error):
    async def fails():
        await asyncio.sleep(0)
        raise error

    async def goes_on():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "went on"

    other = loop.create_task(goes_on())
    task = loop.create_task(fails())
    with pytest.raises(error):
        loop.run_until_complete(asyncio.sleep(0.01))
    assert type(task.exception()) is error
    assert loop.run_until_complete(other) == "went on"
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop)))


def test_a_task_on_a_closed_loop_is_refused(loop):
    loop.close()

    async def body():
        pass

    coroutine = body()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.create_task(coroutine)
    coroutine.close()


async def test_a_thread_that_sets_a_future_is_refused_in_debug_mode(loop):
    loop.set_debug(True)
    future = loop.create_future()
    future.add_done_callback(print)
    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        await asyncio.to_thread(future.set_result, None)
    loop.set_debug(False)


@both_drivers
def test_a_long_chain_of_tasks_overflows_no_stack(driver, require_driver):
    async def link(previous):
        return await previous

    def chain(innermost):
        for _ in range(100_000):
            innermost = asyncio.create_task(link(innermost))
        return innermost

    async def main():
        loop = asyncio.get_running_loop()
        innermost = loop.create_future()
        task = chain(innermost)
        await asyncio.sleep(0)
        innermost.set_result("through")
        assert await task == "through"
        innermost = loop.create_future()
        task = chain(innermost)
        await asyncio.sleep(0)
        assert task.cancel("through")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert innermost.cancelled()

    aioxide.run(main(), loop_factory=lambda: aioxide.EventLoop(driver), native_tasks=True)


@since_314
async def test_a_future_knows_the_native_tasks_that_await_it(loop):
    future = loop.create_future()
    tasks = [loop.create_task(asyncio.wait_for(future, None)) for _ in range(2)]
    assert not future._asyncio_awaited_by
    await asyncio.sleep(0)
    assert future._asyncio_awaited_by == frozenset(tasks)
    future.set_result(None)
    await asyncio.gather(*tasks)
    assert not future._asyncio_awaited_by


async def test_a_replaced_call_soon_is_not_asked_by_a_native_task(loop, is_aioxide):
    def call_soon(callback, *arguments, context=None):
        asked.append(callback)
        return original(callback, *arguments, context=context)

    asked: list[object] = []
    original, loop.call_soon = loop.call_soon, call_soon
    await loop.create_task(asyncio.sleep(0))
    del loop.call_soon
    assert bool(asked) is not is_aioxide


async def test_a_failed_task_shows_where_it_failed(loop):
    async def fails():
        raise LookupError

    task = loop.create_task(fails())
    await asyncio.wait([task])
    assert [frame.f_code.co_name for frame, _ in traceback.walk_tb(task.exception().__traceback__)] == [
        "fails"
    ]


def test_a_future_is_made_whole(loop, is_aioxide):
    kind = type(loop.create_future())
    future = kind.__new__(kind, loop=loop)
    assert not future.done()
    if is_aioxide:
        future.set_result("value")
        assert future.result() == "value"
    else:
        with pytest.raises(RuntimeError, match="not initialized"):
            future.set_result("value")


async def test_what_is_no_context_is_refused(loop, is_aioxide):
    async def body():
        pass

    if not is_aioxide:
        return
    coroutine = body()
    with pytest.raises(TypeError, match=r"a contextvars.Context was expected, got dict"):
        loop.create_task(coroutine, context={})
    coroutine.close()


@since_314
def test_pstree_does_not_see_them():
    program = textwrap.dedent("""
        import asyncio, os, subprocess, sys
        import aioxide

        async def main():
            waiting = asyncio.create_task(asyncio.sleep(60), name="to be seen")
            await asyncio.sleep(0)
            arguments = [sys.executable, "-m", "asyncio", "pstree", str(os.getpid())]
            seen = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True)
            print(seen.returncode, "to be seen" in seen.stdout, seen.stderr)
            waiting.cancel()

        aioxide.run(main(), native_tasks=sys.argv[1] == "native")
    """)
    answers = [
        subprocess.run(
            [sys.executable, "-c", program, kind], capture_output=True, text=True, timeout=60, check=True
        ).stdout.split(None, 2)
        for kind in ("asyncio's", "native")
    ]
    if answers[0][0] != "0":
        pytest.skip(f"this machine lets nobody look into processes: {answers[0][-1]}")
    assert [seen for _, seen, *_ in answers] == ["True", "False"]


def test_no_task_is_the_current_one_but_in_its_steps(loop):
    """Whatever runs between the steps of tasks, in the same turn or in the next."""

    async def worker():
        for _ in range(3):
            own.append(asyncio.current_task() is task_of[asyncio.current_task().get_name()])
            await asyncio.sleep(0)
        loop.call_soon(note)
        future = loop.create_future()
        future.add_done_callback(lambda _: note())
        future.set_result(None)

    async def failing():
        loop.call_soon(note)
        raise SystemExit("enough")

    def note(*_):
        seen.append(asyncio.current_task(loop))

    def start():
        for name in ("first", "second"):
            task_of[name] = loop.create_task(worker(), name=name)
            loop.call_soon(note)

    task_of: dict[str, asyncio.Task[None]] = {}
    own: list[bool] = []
    seen: list[asyncio.Task[None] | None] = []
    loop.set_exception_handler(lambda loop, context: note())
    loop.call_soon(start)
    loop.call_later(0.001, note)

    async def main():
        await asyncio.sleep(0)
        await asyncio.gather(*task_of.values())
        await asyncio.sleep(0.002)

    loop.run_until_complete(main())
    assert asyncio.current_task(loop) is None
    with pytest.raises(SystemExit, match="enough"):
        loop.run_until_complete(failing())
    assert asyncio.current_task(loop) is None
    loop.run_until_complete(asyncio.sleep(0))
    assert own == [True] * 6
    assert seen == [None] * len(seen)
    assert len(seen) == 8


async def test_tasks_of_both_kinds_take_turns(loop, is_aioxide):
    async def worker():
        for _ in range(5):
            seen.append(asyncio.current_task() in tasks)
            await asyncio.sleep(0)
            seen.append(asyncio.current_task().get_coro() is not None)
            await asyncio.to_thread(int)

    seen: list[bool] = []
    tasks = [
        asyncio.Task(worker(), loop=loop) if number % 2 else loop.create_task(worker()) for number in range(6)
    ]
    assert len({type(task) for task in tasks}) == (2 if is_aioxide else 1)
    await asyncio.gather(*tasks)
    assert seen == [True] * 60


async def test_an_exception_handler_is_called_by_no_task(loop):
    def handle(loop, context):
        seen.append((context["message"], asyncio.current_task()))

    class Broken(asyncio.Future):
        def add_done_callback(self, *arguments, **options):
            super().add_done_callback(lambda _: 1 / 0, **options)
            super().add_done_callback(*arguments, **options)

    async def waiting(future):
        await future

    seen: list[tuple[str, object]] = []
    loop.set_exception_handler(handle)
    future = Broken(loop=loop)
    task = loop.create_task(waiting(future))
    await asyncio.sleep(0)
    future.set_result(None)
    await task
    loop.set_exception_handler(None)
    assert len(seen) == 1
    assert seen[0][0].startswith("Exception in callback")
    assert seen[0][1] is None


async def test_a_task_that_nobody_keeps_ends_on_its_own_account(loop):
    """What is told of it, and what its result does at the end, is not another task's doing."""

    class Result:
        def __del__(self):
            seen.append(asyncio.current_task())

    async def failing():
        raise ValueError("nobody asks")

    async def returning():
        return Result()

    async def innocent():
        for _ in range(5):
            await asyncio.sleep(0)

    seen: list[asyncio.Task[None] | None] = []
    loop.set_exception_handler(lambda loop, context: seen.append(asyncio.current_task()))
    tasks = []
    for start in (failing, returning, failing, returning):
        loop.create_task(start())
        tasks.append(loop.create_task(innocent()))
    await asyncio.gather(*tasks)
    gc.collect()
    loop.set_exception_handler(None)
    assert seen == [None] * 4


def test_debug_mode_reports_slow_steps_as_nobodys(loop, caplog):
    async def slow():
        await asyncio.sleep(0)
        time.sleep(0.02)

    class Noting(logging.Handler):
        def emit(self, record):
            seen.append(asyncio.current_task(loop))

    seen: list[asyncio.Task[None] | None] = []
    handler = Noting()
    logging.getLogger("asyncio").addHandler(handler)
    try:
        loop.set_debug(True)
        loop.slow_callback_duration = 0.01
        loop.run_until_complete(slow())
    finally:
        logging.getLogger("asyncio").removeHandler(handler)
    assert seen
    assert seen == [None] * len(seen)


async def test_a_step_that_leaves_its_task_goes_unnoticed(loop, is_aioxide):
    async def leaving():
        asyncio.tasks._leave_task(loop, asyncio.current_task())

    seen: list[str] = []
    loop.set_exception_handler(lambda loop, context: seen.append(str(context["exception"])))
    task = loop.create_task(leaving())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert task.done()
    assert asyncio.current_task() is not task
    if is_aioxide:
        assert seen == []
    else:
        (message,) = seen
        assert "leav" in message.lower()
