#!/usr/bin/env python3
"""Cross the border between sync and async, both ways, and see what a blocking call does to everybody else.

A heart beats every 5 ms on the loop. Its longest pause is what any other task would have had to wait:

  blocking   time.sleep in a coroutine: the heart stops for as long as it takes
  thread     the same call behind asyncio.to_thread: the heart goes on
  executor   many blocking calls in a pool of threads: they take as long as one
  processes  arithmetic in other processes: the heart goes on and the arithmetic is right
  back       plain functions in threads call coroutines on the loop, and run a loop of their own
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import asynccontextmanager

import loops
from report import Report, Stopwatch

BEAT = 0.005
NAP = 0.2
# Beats in one nap that prove a living heart: a quarter of the possible ones, because the machine may be busy.
ALIVE = NAP / BEAT / 4
THREADS = 8
NUMBERS = 2_000_000
PATIENCE = 30.0

traveller = contextvars.ContextVar("traveller", default="nobody")


class Heart:
    """Beats on the loop, counts, and remembers the longest time between two beats."""

    def __init__(self) -> None:
        self.beats = 0
        self.longest_pause = 0.0

    async def beat(self) -> None:
        """Beat until cancelled."""
        before = time.perf_counter()
        while True:
            await asyncio.sleep(BEAT)
            now = time.perf_counter()
            self.beats += 1
            self.longest_pause = max(self.longest_pause, now - before)
            before = now


@asynccontextmanager
async def heartbeat() -> AsyncIterator[Heart]:
    """Let a heart beat for as long as the block runs."""
    heart = Heart()
    task = asyncio.create_task(heart.beat())
    # The first beat must be under way before anything can interrupt it, the last one must be counted.
    await asyncio.sleep(2 * BEAT)
    try:
        yield heart
        await asyncio.sleep(2 * BEAT)
    finally:
        task.cancel()


def blocking_call() -> str:
    """Stand for any function that waits without await: a driver, a file, a library of the sync realm."""
    time.sleep(NAP)
    return threading.current_thread().name


def squares(below: int) -> int:
    """Stand for any function that computes and does not wait."""
    return sum(number * number for number in range(below))


async def blocking(options: argparse.Namespace, report: Report) -> None:
    """Do what one must not do."""
    async with heartbeat() as heart:
        blocking_call()
    report.check(
        heart.longest_pause >= NAP, f"a blocking call of {NAP} s paused the loop for {heart.longest_pause} s"
    )
    report.milliseconds("longest pause: blocking", heart.longest_pause)


async def thread(options: argparse.Namespace, report: Report) -> None:
    """Do the same in a thread; the context goes along."""
    traveller.set("somebody")
    async with heartbeat() as heart:
        name = await asyncio.to_thread(blocking_call)
        travelled = await asyncio.to_thread(traveller.get)
    report.check(heart.beats >= ALIVE, f"the heart beat {heart.beats} times during to_thread")
    report.check(name != threading.main_thread().name, f"to_thread ran the call in {name}")
    report.check(travelled == "somebody", f"the context variable was {travelled!r} in the thread")
    report.milliseconds("longest pause: to_thread", heart.longest_pause)


async def executor(options: argparse.Namespace, report: Report) -> None:
    """Do the same many times at once."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="realm") as pool:
        async with heartbeat() as heart:
            with Stopwatch() as watch:
                names = await asyncio.gather(
                    *(loop.run_in_executor(pool, blocking_call) for _ in range(THREADS))
                )
    report.check(len(set(names)) == THREADS, f"{THREADS} calls ran in {len(set(names))} threads")
    report.check(watch.seconds < THREADS * NAP / 2, f"{THREADS} calls at once took {watch.seconds:.2f} s")
    report.check(heart.beats >= ALIVE, f"the heart beat {heart.beats} times while the pool was busy")
    report.milliseconds(f"{THREADS} blocking calls at once", watch.seconds)


async def processes(options: argparse.Namespace, report: Report) -> None:
    """Compute elsewhere; a thread would not help, it would compute with our interpreter."""
    loop = asyncio.get_running_loop()
    # A forked copy of a process with a running loop and threads is half a process: start fresh ones.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        sizes = [NUMBERS, NUMBERS + 1]
        async with heartbeat() as heart:
            # Ctrl-C in a terminal is sent to every process. Ours ends the others; they must not hear of it.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            futures = [loop.run_in_executor(pool, squares, size) for size in sizes]
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            sums = await asyncio.gather(*futures)
    expected = [(size - 1) * size * (2 * size - 1) // 6 for size in sizes]
    report.check(sums == expected, f"the sums are {sums}, not {expected}")
    report.check(heart.beats >= ALIVE, f"the heart beat {heart.beats} times while others computed")
    report.milliseconds("longest pause: processes", heart.longest_pause)


async def back(options: argparse.Namespace, report: Report) -> None:
    """Reach the loop from plain functions in other threads."""
    loop = asyncio.get_running_loop()
    home = threading.current_thread()
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def coroutine(number: int) -> tuple[int, bool]:
        await asyncio.sleep(0)
        return number * 2, threading.current_thread() is home

    def ask() -> list[tuple[int, bool]]:
        """Call coroutines and wait for each, as if they were functions."""
        calls = range(options.calls)
        return [asyncio.run_coroutine_threadsafe(coroutine(call), loop).result(PATIENCE) for call in calls]

    def feed() -> None:
        """Hand items over without waiting."""
        for item in range(options.items):
            loop.call_soon_threadsafe(queue.put_nowait, item)

    async def own() -> str:
        await asyncio.sleep(0)
        return loops.loop_name(asyncio.get_running_loop())

    def own_loop() -> str:
        """Run a coroutine where there is no loop yet."""
        with asyncio.Runner(loop_factory=loops.factory(options.loop)) as runner:
            return runner.run(own())

    with Stopwatch() as asking:
        answers = await asyncio.to_thread(ask)
    report.check(
        answers == [(call * 2, True) for call in range(options.calls)], "a coroutine answered wrongly"
    )
    with Stopwatch() as feeding:
        feeder = asyncio.create_task(asyncio.to_thread(feed))
        items = [await queue.get() for _ in range(options.items)]
        await feeder
    report.check(items == list(range(options.items)), "items from the thread were lost or out of order")
    name = await asyncio.to_thread(own_loop)
    report.check(name == report.loop, f"the loop of the thread is {name}, not {report.loop}")
    report.rate("coroutines called from a thread", options.calls, asking.seconds, "calls")
    report.rate("items handed over by a thread", options.items, feeding.seconds, "items")


PARTS: dict[str, Callable[[argparse.Namespace, Report], Awaitable[None]]] = {
    "blocking": blocking,
    "thread": thread,
    "executor": executor,
    "processes": processes,
    "back": back,
}


async def realms(options: argparse.Namespace, report: Report) -> None:
    """Run the chosen parts."""
    for name in options.part or PARTS:
        print(f"  {name}: {(PARTS[name].__doc__ or '').splitlines()[0]}", flush=True)
        await PARTS[name](options, report)


def main() -> int:
    """Read the options and run."""
    parser = loops.option_parser(__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be given again")
    parser.add_argument(
        "--calls", type=loops.positive, default=1000, metavar="N", help="from a thread (%(default)s)"
    )
    parser.add_argument(
        "--items", type=loops.positive, default=20000, metavar="N", help="handed over (%(default)s)"
    )
    return loops.run(realms, parser.parse_args(), "realms")


if __name__ == "__main__":
    sys.exit(main())
