"""`signal.set_wakeup_fd`: the loop borrows it while it runs, and gives it back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def descriptor_of_others() -> Iterator[int]:
    """A wake-up descriptor that was set before the loop came."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        yield theirs.fileno()
        signal.set_wakeup_fd(-1)


def current() -> int:
    """Return the wake-up descriptor without changing it."""
    number = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(number)
    return number


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    assert current() == -1
    yield
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_is_unset_after_a_run(loop):
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
        assert current() == -1


def test_it_is_given_back_after_a_run(loop, descriptor_of_others, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio takes it only for handlers, and does not give it back")
    seen = loop.run_until_complete(asyncio.to_thread(int))
    assert seen == 0
    assert current() == descriptor_of_others


def test_it_is_given_back_when_the_last_handler_goes(loop, descriptor_of_others, is_aioxide):
    loop.add_signal_handler(signal.SIGUSR1, int)
    assert current() not in (-1, descriptor_of_others)
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert current() == (descriptor_of_others if is_aioxide else -1)


def test_it_is_given_back_by_close(loop, descriptor_of_others, is_aioxide):
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert current() == (descriptor_of_others if is_aioxide else -1)


def test_one_that_was_closed_meanwhile_is_not_given_back(loop, is_aioxide):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno())
    loop.add_signal_handler(signal.SIGUSR1, int)
    ours.close()
    theirs.close()
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.close()
    assert current() == -1


def test_one_that_others_set_meanwhile_stays(loop, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio unsets it")
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    async def take() -> None:
        signal.set_wakeup_fd(theirs.fileno())

    loop.run_until_complete(take())
    assert current() == theirs.fileno()
    signal.set_wakeup_fd(-1)
    ours.close()
    theirs.close()


def test_handlers_outlast_runs(loop):
    received: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, received.append, 1)
    for count in (1, 2, 3):
        os.kill(os.getpid(), signal.SIGUSR1)
        with contextlib.suppress(TimeoutError):
            loop.run_until_complete(asyncio.wait_for(until(lambda count=count: len(received) == count), 20))
        assert len(received) == count
    loop.remove_signal_handler(signal.SIGUSR1)


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_a_handler_can_remove_itself(loop):
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, lambda: (loop.remove_signal_handler(signal.SIGUSR1), done.set()))
    os.kill(os.getpid(), signal.SIGUSR1)
    async with asyncio.timeout(20):
        await done.wait()
    assert not loop.remove_signal_handler(signal.SIGUSR1)


async def test_a_signal_whose_handler_was_removed_meanwhile_calls_nobody(loop):
    called: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, called.append, 1)
    loop.add_signal_handler(signal.SIGUSR2, called.append, 2)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    async with asyncio.timeout(20):
        await until(lambda: 2 in called)
    assert called == [2]
    loop.remove_signal_handler(signal.SIGUSR2)


async def test_a_storm_of_signals_is_survived(loop):
    received = 0

    def count() -> None:
        nonlocal received
        received += 1

    loop.add_signal_handler(signal.SIGUSR1, count)
    for _ in range(100):
        signal.raise_signal(signal.SIGUSR1)
    async with asyncio.timeout(20):
        await until(lambda: received > 0)
    before = received
    os.kill(os.getpid(), signal.SIGUSR1)
    async with asyncio.timeout(20):
        await until(lambda: received > before)
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_handlers_run_in_the_context_that_added_them(loop):
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("of the test")
    received = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, lambda: received.set_result(variable.get()))
    variable.set("changed later")
    os.kill(os.getpid(), signal.SIGUSR1)
    async with asyncio.timeout(20):
        assert await received == "of the test"
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.parametrize(
    "number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP]
)
async def test_any_signal_can_have_a_handler(loop, number):
    received = asyncio.Event()
    loop.add_signal_handler(number, received.set)
    os.kill(os.getpid(), number)
    async with asyncio.timeout(20):
        await received.wait()
    assert loop.remove_signal_handler(number)


def test_two_loops_take_turns_with_a_signal(loop_factory):
    first, second = loop_factory(), loop_factory()
    received: list[str] = []
    for name, loop in (("first", first), ("second", second), ("first", first)):
        loop.add_signal_handler(signal.SIGUSR1, received.append, name)
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run_until_complete(asyncio.wait_for(until(lambda: received), 20))
        assert received == [name]
        received.clear()
        loop.remove_signal_handler(signal.SIGUSR1)
    first.close()
    second.close()
