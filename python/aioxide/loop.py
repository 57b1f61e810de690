"""`EventLoop`: the chapters joined, and the life of a loop (run, debug, close).

# Invariants
- What `run_forever` sets up (running loop, generator hooks, wake-up descriptor) it takes down again,
  however the turns ended.
- `close` releases everything even if one part fails, and the native half last: the parts before it
  still unregister their descriptors there.
- A loop copied into a child process by fork(2) never touches the kernel: its epoll instance or ring
  is shared with the parent. Rust refuses everything that would; closing and collecting it does nothing.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
from asyncio.log import logger
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from ._datagrams import Datagrams
from ._doors import Doors
from ._executor import Executors
from ._own_sockets import OwnSockets
from ._resolver import Resolver
from ._sendfile import SendFile
from ._signals import Signals
from ._subprocess import Subprocesses
from ._tls import Tls
from ._unix import UnixSockets


class EventLoop(  # type: ignore[misc]
    Doors, Datagrams, Signals, SendFile, Tls, OwnSockets, UnixSockets, Subprocesses, Resolver, Executors
):
    """An asyncio event loop that runs on Rust.

    `driver` is "auto", "uring" or "epoll"; None asks the environment variable AIOXIDE_DRIVER, then
    means "auto".
    """

    # What asyncio's base class and the chapters keep: in a loop without an instance dictionary the
    # interpreter finds methods without a look into it. Other attributes still make one.
    __slots__ = (
        "_asyncgens",
        "_asyncgens_shutdown_called",
        "_clock_resolution",
        "_closed",
        "_coroutine_origin_tracking_enabled",
        "_coroutine_origin_tracking_saved_depth",
        "_current_handle",
        "_debug",
        "_default_executor",
        "_exception_handler",
        "_executor_shutdown_called",
        "_internal_fds",
        "_lookup_threads",
        "_old_agen_hooks",
        "_signal_handlers",
        "_slow_callback_duration",
        "_socket_files",
        "_stopping",
        "_task_factory",
        "_thread_id",
        "_timer_cancelled_count",
        "_wakeup_descriptor",
        "_watched_children",
        "_watched_files",
    )

    def __repr__(self) -> str:
        name, _reason = self._driver()
        return (
            f"<{type(self).__module__.partition('.')[0]}.{type(self).__name__} driver={name} "
            f"running={self.is_running()} closed={self.is_closed()} debug={self.get_debug()}>"
        )

    def run_forever(self) -> None:
        """Run until `stop` is called."""
        self._check_closed()
        self._check_running()
        hooks = sys.get_asyncgen_hooks()
        with ExitStack() as teardown:
            self._thread_id = threading.get_ident()
            teardown.callback(self._forget_thread)
            self._set_coroutine_origin_tracking(self._debug)
            teardown.callback(self._set_coroutine_origin_tracking, False)
            teardown.callback(sys.set_asyncgen_hooks, *hooks)
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            teardown.callback(asyncio._set_running_loop, None)
            asyncio._set_running_loop(self)
            teardown.callback(self._leave_signals)
            self._enter_signals()
            self._run_turns()

    def _forget_thread(self) -> None:
        self._thread_id = None

    def close(self) -> None:
        """Release everything the loop holds; it must not be running. Executor threads are not waited for."""
        if self._is_forked_copy():
            return
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        # Callbacks of a stack run last in, first out.
        with ExitStack() as release:
            release.callback(self._close_native)
            release.callback(asyncio.BaseEventLoop.close, self)
            release.callback(self._release_watched_files)
            release.callback(self._release_resolver)
            release.callback(self._release_children)
            release.callback(self._release_signals)

    def __del__(self, _warn: Any = warnings.warn) -> None:
        # A forked copy is not this process's to close, and one whose making failed has nothing to close.
        if hasattr(self, "_watched_children") and not self._is_forked_copy():
            super().__del__(_warn)  # type: ignore[call-arg]

    def set_debug(self, enabled: bool) -> None:
        """Switch debug mode on or off."""
        super().set_debug(enabled)
        self._set_native_debug(bool(enabled))

    @property
    def slow_callback_duration(self) -> float:
        """Seconds a callback may take in debug mode before it is logged."""
        return self._slow_callback_duration

    @slow_callback_duration.setter
    def slow_callback_duration(self, seconds: float) -> None:
        self._set_slow_callback_duration(seconds)
        self._slow_callback_duration = seconds

    def _report_slow_callback(self, handle: Any, seconds: float) -> None:
        """Log a callback that held the loop for too long; called by the turn in debug mode."""
        owner = getattr(getattr(handle, "_callback", handle), "__self__", None)
        subject = repr(owner) if isinstance(owner, asyncio.Task) else str(handle)
        logger.warning("Executing %s took %.3f seconds", subject, seconds)

    def set_task_factory(self, factory: Any) -> None:
        """Let `factory(loop, coroutine, **options)` make the tasks; None restores the default."""
        super().set_task_factory(factory)
        self._task_factory = factory

    def _create_task_with_factory(
        self, coroutine: Coroutine[Any, Any, Any], options: dict[str, Any]
    ) -> asyncio.Task[Any]:
        """Make a task through the task factory, with the calling convention of this Python's version."""
        return asyncio.BaseEventLoop.create_task(self, coroutine, **options)


EventLoop._adopt_fast_methods()
