"""What later Pythons added to asyncio: eager tasks, call graphs, a look into other processes; no policies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

since_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought it")
both_drivers = pytest.mark.parametrize("driver", ["uring", "epoll"])
since_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="Python 3.14 brought it")


@since_312
async def test_the_eager_task_factory_runs_a_coroutine_up_to_its_first_wait(loop):
    async def work(waits):
        steps.append("begun")
        if waits:
            await asyncio.sleep(0)
        return len(steps)

    steps: list[str] = []
    loop.set_task_factory(asyncio.eager_task_factory)
    at_once = asyncio.create_task(work(False), name="at once")
    assert at_once.done()
    later = asyncio.create_task(work(True))
    assert steps == ["begun"] * 2
    assert not later.done()
    assert later in asyncio.all_tasks()
    assert await asyncio.gather(at_once, later) == [1, 2]
    assert at_once.get_name() == "at once"
    loop.set_task_factory(None)


@since_314
@pytest.mark.parametrize("with_factory", [False, True])
async def test_a_task_can_be_started_eagerly_or_not(loop, with_factory):
    async def work():
        current.append(asyncio.current_task())
        await asyncio.sleep(0)

    current: list[asyncio.Task | None] = []
    if with_factory:
        loop.set_task_factory(asyncio.eager_task_factory)
    eager = loop.create_task(work(), eager_start=True, name="eager")
    assert current == [eager]
    lazy = loop.create_task(work(), name="lazy", eager_start=False)
    assert current == [eager]
    assert asyncio.all_tasks() == {asyncio.current_task(), eager, lazy}
    await asyncio.gather(eager, lazy)
    assert current == [eager, lazy]
    assert [task.get_name() for task in current] == ["eager", "lazy"]
    loop.set_task_factory(None)


async def test_tasks_of_every_kind_are_listed_and_the_current_one_is_known(loop):
    async def wait():
        known.append(asyncio.current_task())
        await event.wait()

    known: list[asyncio.Task | None] = []
    event = asyncio.Event()
    tasks = {loop.create_task(wait()) for _ in range(100)}
    async with asyncio.TaskGroup() as group:
        tasks |= {group.create_task(wait()) for _ in range(100)}
        await asyncio.sleep(0)
        assert set(known) == tasks
        assert asyncio.all_tasks() == tasks | {asyncio.current_task()}
        assert asyncio.all_tasks(loop) == asyncio.all_tasks()
        event.set()
    await asyncio.gather(*tasks)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@since_314
async def test_a_call_graph_says_who_waits_for_whom(loop):
    async def inner():
        graphs.append(asyncio.format_call_graph())
        await future

    async def outer():
        async with asyncio.TaskGroup() as group:
            group.create_task(inner(), name="inner task")

    graphs: list[str] = []
    future = loop.create_future()
    task = asyncio.create_task(outer(), name="outer task")
    while not graphs:
        await asyncio.sleep(0)
    for name in ("inner task", "outer task"):
        assert f"name={name!r}" in graphs[0]
    assert "outer()" in graphs[0]
    graph = asyncio.capture_call_graph(task)
    assert graph.future is task
    future.set_result(None)
    await task


WAITING_PROGRAM = """
    import asyncio, aioxide

    async def leaf():
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()

    async def branch():
        async with asyncio.TaskGroup() as group:
            group.create_task(leaf(), name="the leaf")

    async def main():
        await asyncio.create_task(branch(), name="the branch")

    aioxide.run(main())
"""


@since_314
@both_drivers
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_the_tasks_of_another_process_can_be_seen(driver, require_driver, command):
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WAITING_PROGRAM)],
        stdout=subprocess.PIPE,
        env=os.environ | {"AIOXIDE_DRIVER": driver},
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            # The line is written before the task waits: seen too early, it hangs together differently.
            for _ in range(100):
                seen = subprocess.run(
                    [sys.executable, "-m", "asyncio", command, str(process.pid)],
                    capture_output=True,
                    text=True,
                    timeout=30,
                )
                if "ermission" in seen.stderr:
                    pytest.skip("this user may not look into another process (ptrace)")
                if "the leaf" in seen.stdout:
                    break
        finally:
            process.send_signal(signal.SIGKILL)
    assert "the leaf" in seen.stdout, seen.stderr
    assert "the branch" in seen.stdout
    if command == "pstree":
        lines = seen.stdout.splitlines()
        depth = [next(line.find(name) for line in lines if name in line) for name in ("branch", "leaf")]
        assert depth[0] < depth[1]


@both_drivers
@pytest.mark.parametrize(
    "way_in",
    [
        "aioxide.run(main())",
        pytest.param("asyncio.run(main(), loop_factory=aioxide.new_event_loop)", marks=since_312),
        "with asyncio.Runner(loop_factory=aioxide.new_event_loop) as runner:\n    runner.run(main())",
    ],
)
def test_no_way_in_uses_what_is_deprecated(driver, require_driver, way_in):
    program = (
        "import asyncio, aioxide\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    assert isinstance(loop, aioxide.EventLoop)\n"
        "    server = await asyncio.start_server(lambda reader, writer: writer.close(), '127.0.0.1', 0)\n"
        "    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "    assert await reader.read() == b''\n"
        "    writer.close()\n"
        "    server.close()\n"
        "    process = await asyncio.create_subprocess_exec('true')\n"
        "    assert await process.wait() == 0\n"
        "    loop.add_signal_handler(10, int)\n"
        "    loop.remove_signal_handler(10)\n"
        "    assert await asyncio.to_thread(int) == 0\n"
        f"{way_in}\n"
        "print(asyncio.events._event_loop_policy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"AIOXIDE_DRIVER": driver},
    )
    assert (done.stderr, done.returncode) == ("", 0)
    if sys.version_info >= (3, 14):
        assert done.stdout == "None\n", "a policy was made"


@since_314
async def test_cancelling_from_another_thread_waits_for_a_callback_that_has_begun(loop):
    """So whoever cancelled knows that the callback does not run any more."""
    begun, ended = threading.Event(), threading.Event()

    def callback():
        begun.set()
        time.sleep(0.05)
        ended.set()

    def work():
        handle = loop.call_soon_threadsafe(callback)
        assert begun.wait(10)
        handle.cancel()
        return ended.is_set()

    assert await asyncio.to_thread(work)


@since_314
async def test_a_thread_safe_handle_reports_as_any_other(loop, reported):
    def fail():
        raise LookupError("wrong")

    loop.set_debug(True)
    handle = loop.call_soon_threadsafe(fail)
    assert handle._source_traceback[-1].name == "test_a_thread_safe_handle_reports_as_any_other"
    await asyncio.sleep(0)
    report = reported.pop()
    assert isinstance(report["exception"], LookupError)
    assert report["handle"] is handle


@since_314
async def test_a_callback_may_cancel_its_own_thread_safe_handle_and_leaves_no_lock(loop):
    def work():
        assert not handle.cancelled()
        handle.cancel()
        assert handle.cancelled()
        ran.set_result(None)

    ran = loop.create_future()
    handle = loop.call_soon_threadsafe(work)
    assert isinstance(handle, asyncio.Handle)
    await ran
    # On another thread, which would wait for ever for a lock that is held.
    assert await asyncio.to_thread(handle.cancelled)
