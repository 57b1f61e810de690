"""Cancel an operation at its first suspension, at its second, and so on, until one run is left to finish.

There are two moments at each suspension: *early*, while what the coroutine waits for is still to come,
and *late*, when that has come and the coroutine has not yet been told. The late moment loses results: whoever
holds a new socket at that moment must close it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from leaks import open_files

MOMENTS = ("early", "late")
LIMIT = 20.0
# More suspensions than any operation has; who gets here never finishes.
MAXIMUM = 200


class _Interrupted:
    """Awaits a coroutine and cancels the task that does so at the suspension of a number."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, moment: str) -> None:
        self._coroutine = coroutine
        self._number = number
        self._moment = moment
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        error: BaseException | None = None
        while True:
            try:
                awaited = next(steps) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                error = None
            if self.suspensions == self._number:
                self._interrupt(awaited)
            self.suspensions += 1
            try:
                yield awaited
            except BaseException as raised:  # for the coroutine to hear
                error = raised

    def _interrupt(self, awaited: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._moment == "late" and awaited is not None:
            # Before the task's own callback, which wakes it.
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            task.get_loop().call_soon(task.cancel)


async def interrupt_everywhere(
    operation: Callable[[], Coroutine[Any, Any, Any]],
    moment: str,
    settled: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Run `operation` until one run of it finishes, cancelled one suspension later each time.

    After each run no file may be open that was not before. Returns how many suspensions there are.
    """
    async with asyncio.timeout(LIMIT):
        await operation()  # what it opens once and for all
        await _settle(settled)
    gc.collect()
    files = open_files()
    for number in range(MAXIMUM):
        async with asyncio.timeout(LIMIT):
            run = _Interrupted(operation(), number, moment)
            task = asyncio.ensure_future(_await(run))
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
                raise AssertionError(f"suspension {number}") from outcome
            suspensions = run.suspensions
            del run, task, outcome
            await _settle(settled)
            await _until_closed(files, number)
        if suspensions <= number:
            return suspensions
    raise AssertionError("it never finishes")


async def _await(run: _Interrupted) -> None:
    await run


async def _settle(settled: Callable[[], Awaitable[None]] | None) -> None:
    # The loop goes on: a timer and a thread are waited for as if nothing had happened.
    await asyncio.sleep(0.001)
    if settled is not None:
        await settled()


async def _until_closed(files: dict[int, str], number: int) -> None:
    for _ in range(500):
        if open_files() == files:
            return
        gc.collect()
        await asyncio.sleep(0.002)
    left = {file: name for file, name in open_files().items() if files.get(file) != name}
    raise AssertionError(f"cancelled at suspension {number}, these stay open: {left}")
