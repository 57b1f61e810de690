"""Ways in: create a loop, or run one coroutine on a loop of its own.

Everything around the coroutine (cancelling what is left, closing generators and executor, Ctrl-C)
is `asyncio.Runner`'s work, so it behaves as the running Python's version documents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

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
) -> Result:
    """Run a coroutine on a new loop and return its result, as `asyncio.run` does."""
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("aioxide.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory or new_event_loop) as runner:
        return runner.run(main)
