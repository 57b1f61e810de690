"""The ground every chapter of the loop stands on: Rust's half first, asyncio's base class behind it.

`_rust.EventLoop` runs callbacks, timers, readiness and transports. `asyncio.BaseEventLoop` is the
documented extension point: what Rust does not define (connections, servers, executors, exception
handlers, argument checks) is exactly that of the running Python's version. Each `_*.py` module next
to this one adds one chapter that `BaseEventLoop` leaves to its subclasses; `loop.py` joins them.

# Invariants
- Rust's methods win over those of `BaseEventLoop`; a chapter's win over both.
- `BaseEventLoop`'s own queues stay unused; `_ready` and `_scheduled` show copies of Rust's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

from . import _rust


class NativeLoop(_rust.EventLoop, asyncio.BaseEventLoop):  # type: ignore[misc]
    """Rust's event loop, completed by asyncio's base class."""

    _thread_id: int | None
    _debug: bool
    _default_executor: Any
    _task_factory: Any

    # What this package uses of BaseEventLoop beyond its documented names.
    _asyncgen_finalizer_hook: Callable[[AsyncGenerator[Any, Any]], None]
    _asyncgen_firstiter_hook: Callable[[AsyncGenerator[Any, Any]], None]
    _check_running: Callable[[], None]
    _check_sendfile_params: Callable[..., None]
    _create_connection_transport: Callable[..., Awaitable[Any]]
    _ensure_resolved: Callable[..., Awaitable[Any]]
    _getaddrinfo_debug: Callable[..., Any]
    _make_ssl_transport: Callable[..., Any]
    _sendfile_fallback: Callable[..., Coroutine[Any, Any, int]]
    _set_coroutine_origin_tracking: Callable[[bool], None]

    def __init__(self, driver: str | None = None) -> None:
        # `driver` was consumed by `_rust.EventLoop.__new__`.
        asyncio.BaseEventLoop.__init__(self)

    def _ensure_fd_no_transport(self, fd: Any) -> int:
        """Return the descriptor of an int or a file object; refuse one that a live transport owns."""
        number = fd
        if not isinstance(number, int):
            try:
                number = int(number.fileno())
            except (AttributeError, TypeError, ValueError):
                raise ValueError(f"Invalid file object: {fd!r}") from None
        if number < 0:
            raise ValueError(f"Invalid file descriptor: {number}")
        if self._has_transport(number):
            raise RuntimeError(f"File descriptor {fd!r} is used by transport")
        return number
