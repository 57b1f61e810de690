"""The default executor: `run_in_executor(None, ...)` and with it `asyncio.to_thread`.

asyncio's is a `ThreadPoolExecutor` whose futures are chained to the loop's. For a call that asyncio
itself hands in that is one future with its lock and condition, and two hops, too many: they cost
more than the switch between the threads. Ours is a `ThreadPoolExecutor` too, with its threads, its
limits and its end, that also takes calls which bring their result straight to the loop. An executor
that the program sets or gives is used as by asyncio.

# Invariants
- The loop's future is touched on the loop's thread alone, but for the look whether it was cancelled.
- Where the running Python's `ThreadPoolExecutor` is not made as we know, calls go the usual way.
"""

from __future__ import annotations

import asyncio
import asyncio.futures
import concurrent.futures
import concurrent.futures.thread
from collections.abc import Callable
from typing import Any

from ._native_loop import NativeLoop

_pool: Any = concurrent.futures.thread


class _Call:
    """A call that waits for a thread, in the place of the pool's own work items."""

    __slots__ = ("_arguments", "_awaited", "_function", "_loop")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        awaited: asyncio.Future[Any],
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        self._loop = loop
        self._awaited = awaited
        self._function = function
        self._arguments = arguments

    def run(self, *_context: Any) -> None:
        """Call the function, on a thread of the pool."""
        if self._awaited.cancelled():
            return
        try:
            result = self._function(*self._arguments)
        except BaseException as error:
            self._tell(_fail, error)
            # The error's traceback leads to this frame.
            self = None  # type: ignore[assignment]
        else:
            self._tell(_succeed, result)

    @property
    def future(self) -> _Call:
        """What `shutdown(cancel_futures=True)` cancels."""
        return self

    def cancel(self) -> None:
        """Tell who waits that the function will not be called."""
        self._tell(_cancel, None)

    def _tell(self, how: Callable[[asyncio.Future[Any], Any], None], outcome: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(how, self._awaited, outcome)
        except RuntimeError:
            # Nobody can wait any more in a loop that is closed.
            if not self._loop.is_closed():
                raise


def _succeed(awaited: asyncio.Future[Any], result: Any) -> None:
    if not awaited.done():
        awaited.set_result(result)


def _cancel(awaited: asyncio.Future[Any], _outcome: None) -> None:
    awaited.cancel()


def _fail(awaited: asyncio.Future[Any], error: BaseException) -> None:
    """Set an exception as asyncio would: some it replaces by its own."""
    if not awaited.done():
        source: concurrent.futures.Future[Any] = concurrent.futures.Future()
        source.set_exception(error)
        asyncio.futures._chain_future(source, awaited)  # type: ignore[attr-defined]


class DefaultExecutor(concurrent.futures.ThreadPoolExecutor):
    """asyncio's default executor, with a shorter way for the loop's own calls."""

    _work_queue: Any
    _shutdown_lock: Any
    _adjust_thread_count: Callable[[], None]

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="asyncio")
        known = ("_work_queue", "_shutdown_lock", "_shutdown", "_adjust_thread_count")
        self._is_known = (
            all(hasattr(self, name) for name in known)
            and hasattr(_pool, "_global_shutdown_lock")
            and hasattr(_pool, "_shutdown")
        )

    def call(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> asyncio.Future[Any]:
        """Have a thread call the function; return the loop's future of its result."""
        if self._is_known:
            with self._shutdown_lock, _pool._global_shutdown_lock:
                if not (self._shutdown or _pool._shutdown):
                    awaited = loop.create_future()
                    self._work_queue.put(_Call(loop, awaited, function, arguments))
                    self._adjust_thread_count()
                    return awaited
        # It says why it takes nothing any more.
        return asyncio.wrap_future(self.submit(function, *arguments), loop=loop)


class Executors(NativeLoop):
    """Calls on other threads."""

    _check_callback: Callable[[Any, str], None]
    _check_default_executor: Callable[[], None]

    def run_in_executor(  # type: ignore[override]
        self, executor: concurrent.futures.Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Have `func(*args)` called by an executor (None: the default one); return a future of the result."""
        if executor is None:
            self._check_closed()
            if self._debug:
                self._check_callback(func, "run_in_executor")
            self._check_default_executor()
            if self._default_executor is None:
                self._default_executor = DefaultExecutor()
            if type(self._default_executor) is DefaultExecutor:
                return self._default_executor.call(self, func, args)
        return super().run_in_executor(executor, func, *args)
