"""Rust tasks beside Python's: what of them is seen, how they end, and who hears of a panic.

The tasks are those of an extension module (tests/extension); our own may also panic, which those cannot.
asyncio has no Rust tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading

import pytest
from aioxide._rust import _trial_panic
from extension_modules import BUILD_SECONDS, TRIAL, load
from leaks import open_files

pytestmark = pytest.mark.timeout(BUILD_SECONDS)


def spawn_on(loop, name, kind, dropped=None):
    """Spawn a Rust task on a loop."""
    trial_task = load(TRIAL, "aioxide_trial").trial_task

    async def spawned():
        trial_task(name, kind, dropped)

    if asyncio._get_running_loop() is loop:
        trial_task(name, kind, dropped)
    else:
        loop.run_until_complete(spawned())


@pytest.fixture
def spawn(loop, is_aioxide):
    """A function that spawns a Rust task on this loop."""
    if not is_aioxide:
        pytest.skip("asyncio has no Rust tasks")
    yield functools.partial(spawn_on, loop)
    # A waker keeps what wakes the loop open.
    load(TRIAL, "aioxide_trial").join_threads()


def names(loop):
    statistics = loop.statistics()
    assert len(statistics["rust_task_names"]) == statistics["rust_tasks"]
    return statistics["rust_task_names"]


async def test_they_are_listed_in_the_order_of_spawning(loop, spawn):
    assert names(loop) == []
    spawn("one that ends", "ends")
    spawn("a connection", "never")
    await asyncio.sleep(0)
    spawn("a user of it", "never")
    assert names(loop) == ["a connection", "a user of it"]


def test_they_end_with_the_loop_the_last_spawned_first(loop, spawn):
    dropped = []

    async def main():
        spawn("connection", "never", lambda: dropped.append("connection"))
        await asyncio.sleep(0)
        spawn("user", "never", lambda: dropped.append("user"))
        spawn("never polled", "never", lambda: dropped.append("never polled"))

    loop.run_until_complete(main())
    assert names(loop) == ["connection", "user", "never polled"]
    loop.close()
    assert dropped == ["never polled", "user", "connection"]
    assert names(loop) == []


@pytest.mark.parametrize(
    ("kind", "exception", "text"),
    [("fails", LookupError, "on demand"), ("panics", SystemError, "a Rust future panicked: a trial")],
)
async def test_a_failure_is_told_to_the_exception_handler_and_is_its_tasks_alone(
    loop, spawn, reported, capfd, kind, exception, text
):
    dropped = []
    spawn("doomed", kind, lambda: dropped.append("doomed"))
    spawn("bystander", "never", lambda: dropped.append("bystander"))
    while not reported:
        await asyncio.sleep(0)
    context = reported.pop()
    assert set(context) == {"message", "exception"}
    assert context["message"] == 'Exception in Rust task "doomed"'
    assert type(context["exception"]) is exception
    assert str(context["exception"]) == text
    assert dropped == ["doomed"]
    assert names(loop) == ["bystander"]
    assert ("a trial" in capfd.readouterr().err) is (kind == "panics")


@pytest.mark.parametrize("kind", ["fails", "panics"])
def test_a_failure_is_told_of_in_its_turn(loop, spawn, reported, kind):
    """And not whenever the loop has something else to do."""
    loop.set_exception_handler(lambda loop, context: (reported.append(context), loop.stop()))

    async def main():
        spawn("doomed", kind)
        await asyncio.get_running_loop().create_future()

    task = loop.create_task(main())
    loop.run_forever()
    assert reported.pop()["message"] == 'Exception in Rust task "doomed"'
    assert not reported
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


@pytest.mark.parametrize("kind", ["sleeps", "thread"])
async def test_they_go_on_when_they_are_woken(loop, spawn, kind):
    ended = asyncio.Event()
    spawn("woken", kind, ended.set)
    assert names(loop) == ["woken"]
    await ended.wait()
    await asyncio.sleep(0)
    assert names(loop) == []


def test_an_exit_ends_the_loop(loop, spawn):
    async def main():
        spawn("leaving", "exits")
        await asyncio.get_running_loop().create_future()

    task = loop.create_task(main())
    with pytest.raises(SystemExit):
        loop.run_forever()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_a_panic_while_the_loop_closes_leaves_the_rest_to_be_dropped(loop, spawn, capfd):
    dropped = []

    async def main():
        spawn("first", "never", lambda: dropped.append("first"))
        spawn("bomb", "bad to drop")
        spawn("last", "never", lambda: dropped.append("last"))
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    loop.close()
    assert dropped == ["last", "first"]
    assert "a trial while it is dropped" in capfd.readouterr().err


def run_in_thread(target):
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()


def test_a_loop_with_tasks_of_another_thread_does_not_run(loop_factory, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio has no Rust tasks")
    dropped = []
    before = open_files()
    loop = loop_factory()

    def elsewhere():
        loop.run_until_complete(asyncio.sleep(0))
        spawn_on(loop, "elsewhere", "never", lambda: dropped.append("elsewhere"))
        loop.run_until_complete(asyncio.sleep(0))

    run_in_thread(elsewhere)
    with pytest.raises(RuntimeError, match=r'another thread has Rust tasks of this loop: \["elsewhere"\]'):
        loop.run_forever()
    with pytest.warns(ResourceWarning, match=r'Rust tasks are not dropped: .*\["elsewhere"\]'):
        loop.close()
    assert not dropped
    assert names(loop) == []
    # A task that is left to the process may still be woken.
    ((descriptor, left),) = open_files().items() - before.items()
    assert left == "anon_inode:[eventfd]"
    os.close(descriptor)


def test_a_loop_moves_to_another_thread_when_its_tasks_have_ended(loop, spawn):
    dropped = []

    def elsewhere():
        spawn("there", "ends", lambda: dropped.append(threading.get_ident()))
        loop.run_until_complete(asyncio.sleep(0))
        assert names(loop) == []

    run_in_thread(elsewhere)
    spawn("here", "ends", lambda: dropped.append(threading.get_ident()))
    loop.run_until_complete(asyncio.sleep(0))
    assert len(dropped) == 2
    assert dropped[0] != dropped[1] == threading.get_ident()


async def test_a_panic_of_our_own_is_told_to_the_exception_handler(loop, spawn, reported, capfd):
    _trial_panic(loop, "doomed", when_dropped=False)
    spawn("bystander", "never")
    while not reported:
        await asyncio.sleep(0)
    context = reported.pop()
    assert set(context) == {"message", "exception"}
    assert context["message"] == 'Rust task "doomed" panicked'
    assert isinstance(context["exception"], SystemError)
    assert str(context["exception"]) == "the task panicked: a trial"
    assert names(loop) == ["bystander"]
    assert "a trial" in capfd.readouterr().err


@pytest.mark.parametrize("how", ["told in its turn", "by an exit"])
def test_a_panic_ends_the_sleep_of_a_loop(loop, spawn, reported, how):
    def handle(loop, context):
        reported.append(context)
        if how == "by an exit":
            raise SystemExit(3)
        loop.stop()

    loop.set_exception_handler(handle)
    _trial_panic(loop, "doomed", when_dropped=False)
    with pytest.raises(SystemExit) if how == "by an exit" else contextlib.nullcontext():
        loop.run_forever()
    assert reported.pop()["message"] == 'Rust task "doomed" panicked'
    assert not reported


def test_a_panic_of_our_own_while_the_loop_closes_is_told(loop, spawn, reported):
    dropped = []
    spawn("first", "never", lambda: dropped.append("first"))
    _trial_panic(loop, "bomb", when_dropped=True)
    spawn("last", "never", lambda: dropped.append("last"))
    loop.close()
    assert dropped == ["last", "first"]
    assert [context["message"] for context in reported] == ['Rust task "bomb" panicked']
    assert str(reported.pop()["exception"]) == "the task panicked: a trial"
