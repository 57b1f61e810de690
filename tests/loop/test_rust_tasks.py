"""Rust tasks beside Python's: what of them is seen, how they end, and who hears of a panic.

`_trial_task` spawns what no part of the package does on demand. asyncio has no Rust tasks.
"""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from aioxide._rust import _trial_task
from leaks import open_files


@pytest.fixture
def spawn(loop, is_aioxide):
    """A function that spawns a Rust task on this loop."""
    if not is_aioxide:
        pytest.skip("asyncio has no Rust tasks")

    def spawn(name, kind, dropped=None):
        _trial_task(loop, name, kind, dropped)

    return spawn


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


async def test_a_panic_is_told_to_the_exception_handler_and_fails_its_task_alone(
    loop, spawn, reported, capfd
):
    dropped = []
    spawn("doomed", "panics", lambda: dropped.append("doomed"))
    spawn("bystander", "never", lambda: dropped.append("bystander"))
    while not reported:
        await asyncio.sleep(0)
    context = reported.pop()
    assert set(context) == {"message", "exception"}
    assert context["message"] == 'Rust task "doomed" panicked'
    assert isinstance(context["exception"], SystemError)
    assert str(context["exception"]) == "the task panicked: a trial"
    assert dropped == ["doomed"]
    assert names(loop) == ["bystander"]
    assert "a trial" in capfd.readouterr().err


def test_a_panic_wakes_a_loop_that_would_sleep_after_it(loop, spawn, reported):
    """The handler is called in the turn of the panic, not whenever the loop has something else to do."""
    loop.set_exception_handler(lambda loop, context: (reported.append(context), loop.stop()))
    spawn("doomed", "panics")
    loop.run_forever()
    assert reported.pop()["message"] == 'Rust task "doomed" panicked'
    assert not reported


def test_a_panic_while_the_loop_closes_is_told_and_the_rest_is_dropped(loop, spawn, reported):
    dropped = []

    async def main():
        spawn("first", "never", lambda: dropped.append("first"))
        spawn("bomb", "bad to drop")
        spawn("last", "never", lambda: dropped.append("last"))
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    loop.close()
    assert dropped == ["last", "first"]
    assert [context["message"] for context in reported] == ['Rust task "bomb" panicked']
    assert str(reported.pop()["exception"]) == "the task panicked: a trial while it is dropped"


def test_a_handler_of_panics_that_exits_ends_the_loop(loop, spawn):
    def leave(loop, context):
        raise SystemExit(3)

    loop.set_exception_handler(leave)
    spawn("doomed", "panics")
    with pytest.raises(SystemExit):
        loop.run_forever()


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
        _trial_task(loop, "elsewhere", "never", lambda: dropped.append("elsewhere"))
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
