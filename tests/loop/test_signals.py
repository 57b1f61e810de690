"""add_signal_handler, and Ctrl-C at every moment, the latter in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

SELECT_LOOP = """
import asyncio, os, signal, sys, threading, time
name = sys.argv[1]
if name == "asyncio":
    factory = asyncio.SelectorEventLoop
elif name == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
else:
    import aioxide, functools
    factory = functools.partial(aioxide.EventLoop, driver=name)
def interrupt_soon(delay=0.1):
    threading.Timer(delay, os.kill, [os.getpid(), signal.SIGINT]).start()
"""


def run_program(loop_name: str, body: str) -> subprocess.CompletedProcess[str]:
    """Run `body` in a process where `factory` makes the loop and `interrupt_soon` presses Ctrl-C."""
    return subprocess.run(
        [sys.executable, "-c", SELECT_LOOP + textwrap.dedent(body), loop_name],
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture(autouse=True)
def handlers_restored():
    """A test may leave no signal handler behind."""
    numbers = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


async def test_a_signal_calls_its_handler_with_its_arguments(loop):
    received = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, lambda *arguments: received.set_result(arguments), 1, "two")
    os.kill(os.getpid(), signal.SIGUSR1)
    async with asyncio.timeout(5):
        assert await received == (1, "two")
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False


async def test_a_signal_wakes_a_loop_that_waits(loop):
    received = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, received.set)
    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
    timer.start()
    async with asyncio.timeout(5):
        await received.wait()
    loop.remove_signal_handler(signal.SIGUSR1)
    timer.join()


async def test_a_second_handler_replaces_the_first(loop):
    received = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, received.set_result, "first")
    loop.add_signal_handler(signal.SIGUSR1, received.set_result, "second")
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await received == "second"
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_each_signal_has_its_own_handler(loop):
    received: list[str] = []
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, received.append, "one")
    loop.add_signal_handler(signal.SIGUSR2, lambda: (received.append("two"), done.set()))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    async with asyncio.timeout(5):
        await done.wait()
    assert sorted(received) == ["one", "two"]
    loop.remove_signal_handler(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR2)


async def test_removing_a_handler_restores_the_default(loop):
    loop.add_signal_handler(signal.SIGUSR1, int)
    assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


async def test_removing_the_handler_of_sigint_restores_ctrl_c(loop):
    loop.add_signal_handler(signal.SIGINT, int)
    assert loop.remove_signal_handler(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_close_removes_the_handlers(loop):
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("number", "error"),
    [("text", TypeError), (None, TypeError), (0, ValueError), (-1, ValueError), (10_000, ValueError)],
)
def test_a_wrong_signal_number_is_refused(loop, number, error):
    with pytest.raises(error):
        loop.add_signal_handler(number, int)
    with pytest.raises(error):
        loop.remove_signal_handler(number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_signals_that_cannot_be_caught_are_runtime_errors(loop, number):
    with pytest.raises(RuntimeError, match="cannot be caught"):
        loop.add_signal_handler(number, int)


def test_a_coroutine_is_not_a_handler(loop):
    async def coroutine():
        """Never run."""

    with pytest.raises(TypeError, match="coroutines cannot be used"):
        loop.add_signal_handler(signal.SIGUSR1, coroutine)


def test_handlers_are_for_the_main_thread_only(loop_factory):
    raised: list[BaseException] = []

    def work():
        loop = loop_factory()
        try:
            loop.add_signal_handler(signal.SIGUSR1, int)
        except RuntimeError as error:
            raised.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(raised) == 1


async def test_an_exception_in_a_handler_is_reported(loop, reported):
    def fail():
        raise LookupError("in the handler")

    loop.add_signal_handler(signal.SIGUSR1, fail)
    os.kill(os.getpid(), signal.SIGUSR1)
    async with asyncio.timeout(5):
        while not reported:
            await asyncio.sleep(0.001)
    assert isinstance(reported.pop()["exception"], LookupError)
    loop.remove_signal_handler(signal.SIGUSR1)


def test_ctrl_c_while_the_loop_waits_raises_keyboard_interrupt(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        async def main():
            interrupt_soon()
            await asyncio.sleep(20)
        begin = time.monotonic()
        loop = factory()
        try:
            loop.run_until_complete(main())
        except KeyboardInterrupt:
            assert time.monotonic() - begin < 10
            print("interrupted")
        """,
    )
    assert "interrupted" in done.stdout, done.stderr


def test_ctrl_c_in_a_storm_of_callbacks_raises_keyboard_interrupt(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        loop = factory()
        def storm():
            loop.call_soon(storm)
        storm()
        interrupt_soon()
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            print("interrupted")
        print("closed" if loop.is_closed() else "open", "running" if loop.is_running() else "stopped")
        loop.close()
        """,
    )
    assert done.stdout.split() == ["interrupted", "open", "stopped"], done.stderr


def test_ctrl_c_in_a_storm_of_task_steps_raises_keyboard_interrupt(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        async def spin():
            while True:
                await asyncio.sleep(0)
        async def main():
            interrupt_soon()
            await asyncio.gather(*(spin() for _ in range(10)))
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    assert done.stdout.split() == ["interrupted"], done.stderr


def test_ctrl_c_inside_a_blocking_callback_raises_keyboard_interrupt(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        loop = factory()
        loop.call_soon(time.sleep, 10)
        interrupt_soon()
        begin = time.monotonic()
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            assert time.monotonic() - begin < 5
            print("interrupted")
        """,
    )
    assert done.stdout.split() == ["interrupted"], done.stderr


def test_ctrl_c_cancels_the_main_task_of_a_runner_first(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        async def main():
            interrupt_soon()
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                print("cancelled")
                await asyncio.sleep(0.01)
                print("cleaned")
                raise
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
    )
    assert done.stdout.split() == ["cancelled", "cleaned", "interrupted"], done.stderr


def test_an_interrupted_loop_can_run_again(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        loop = factory()
        for _ in range(3):
            interrupt_soon(0.05)
            try:
                loop.run_forever()
            except KeyboardInterrupt:
                print("interrupted")
        print(loop.run_until_complete(asyncio.sleep(0.01, "again")))
        loop.close()
        """,
    )
    assert done.stdout.split() == ["interrupted"] * 3 + ["again"], done.stderr


def test_a_handler_of_plain_signal_runs_while_the_loop_waits(loop_name, loop_factory):
    done = run_program(
        loop_name,
        """
        signal.signal(signal.SIGUSR1, lambda *_: print("handled", time.monotonic() - begin < 5))
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        begin = time.monotonic()
        loop = factory()
        loop.run_until_complete(asyncio.sleep(0.5))
        loop.close()
        """,
    )
    assert done.stdout.split() == ["handled", "True"], done.stderr


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit(7)"])
def test_exits_pass_through_callbacks_and_tasks(loop_name, loop_factory, error):
    done = run_program(
        loop_name,
        f"""
        loop = factory()
        def fail():
            raise {error}
        async def main():
            fail()
        loop.call_soon(fail)
        try:
            loop.run_forever()
        except BaseException as error:
            print(repr(error))
        try:
            loop.run_until_complete(main())
        except BaseException as error:
            print(repr(error))
        loop.close()
        """,
    )
    expected = error if "(" in error else f"{error}()"
    assert done.stdout.split() == [expected] * 2, done.stderr
