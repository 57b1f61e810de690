"""Ways in: create a loop, or run one coroutine on a loop of its own.

Everything around the coroutine (cancelling what is left, closing generators and executor, Ctrl-C)
is `asyncio.Runner`'s work, so it behaves as the running Python's version documents.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ._rust import native_task_factory
from .loop import EventLoop

Result = TypeVar("Result")


def new_event_loop() -> EventLoop:
    """Create an event loop on the best driver this machine allows."""
    return EventLoop()


def run(
    main: Coroutine[Any, Any, Result],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    native_tasks: bool = False,
) -> Result:
    """Run a coroutine on a new loop and return its result, as `asyncio.run` does.

    `native_tasks` makes aioxide's own tasks and futures in place of asyncio's (see `native_task_factory`).
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("aioxide.run() cannot be called from a running event loop")
    factory = loop_factory or new_event_loop
    if native_tasks:
        factory = functools.partial(_with_native_tasks, factory)
    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(main)


def _with_native_tasks(factory: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    loop = factory()
    if not isinstance(loop, EventLoop):
        loop.close()
        raise TypeError(f"native tasks need an aioxide event loop, not {loop!r}")
    loop.set_task_factory(native_task_factory)
    return loop
