"""Signals: `add_signal_handler`, and Ctrl-C that interrupts the loop wherever it is.

Python's C-level signal handler writes the signal's number to a wake-up descriptor
(`signal.set_wakeup_fd`). Ours is a socket pair whose other end the loop watches, so a signal that
arrives between the last Python instruction and the wait in the kernel ends that wait. The
Python-level handler, if any, then runs by itself as soon as a callback does.

# Invariants
- On the main thread the wake-up descriptor is ours for as long as the loop runs, and for as long as
  a signal handler is registered; afterwards it is again what it was.
- Only the main thread of the main interpreter may touch signals; anywhere else the loop runs without.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import inspect
import os
import signal
import socket
import sys
import threading
import warnings
from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVarTuple

from ._native_loop import NativeLoop

Arguments = TypeVarTuple("Arguments")


class _WakeupDescriptor:
    """The socket pair between Python's C-level signal handler and the loop."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous: int | None = None

    def install(self) -> None:
        """Let signals be written to this pair, remembering where they went before."""
        replaced = signal.set_wakeup_fd(self._writer.fileno())
        if replaced != self._writer.fileno():
            self._previous = replaced

    def uninstall(self) -> None:
        """Let signals be written to where they went before; leave a descriptor set by others alone."""
        if self._previous is None:
            return
        previous, self._previous = self._previous, None
        found = signal.set_wakeup_fd(-1)
        if found != self._writer.fileno():
            previous = found
        try:
            signal.set_wakeup_fd(previous)
        except (ValueError, OSError) as error:
            # Its owner closed it in the meantime; -1 stays.
            logger.info("set_wakeup_fd(%d) failed: %s", previous, error)

    def signals(self) -> bytes:
        """Take the numbers of the signals that arrived."""
        numbers = b""
        while True:
            try:
                received = self.reader.recv(4096)
            except InterruptedError:
                continue
            except BlockingIOError:
                return numbers
            if not received:
                return numbers
            numbers += received

    def close(self) -> None:
        """Close both ends."""
        self.reader.close()
        self._writer.close()


class Signals(NativeLoop):
    """Signal handlers of the loop."""

    def __init__(self, driver: str | None = None) -> None:
        super().__init__(driver)
        self._signal_handlers: dict[int, Callable[[], object]] = {}
        self._wakeup_descriptor: _WakeupDescriptor | None = None

    def add_signal_handler(self, sig: int, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """Call `callback(*args)` on the loop whenever the signal arrives."""
        if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        _check_signal(sig)
        self._check_closed()
        try:
            # Refuses on any thread but the main one, before anything is changed.
            self._watch_signals()
        except (ValueError, OSError) as error:
            raise RuntimeError(str(error)) from error
        context = contextvars.copy_context()
        self._signal_handlers[sig] = lambda: self.call_soon(callback, *args, context=context)
        try:
            # With any Python-level handler, the C-level one writes to the wake-up descriptor.
            signal.signal(sig, _do_nothing)
            # Let the kernel restart interrupted system calls of other code.
            signal.siginterrupt(sig, False)
        except OSError as error:
            del self._signal_handlers[sig]
            self._leave_signals_unless_needed()
            raise _explain(error, sig) from error

    def remove_signal_handler(self, sig: int) -> bool:
        """Give the signal its default action back; return False if it had no handler here."""
        _check_signal(sig)
        if self._signal_handlers.pop(sig, None) is None:
            return False
        default = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            signal.signal(sig, default)
        except OSError as error:
            raise _explain(error, sig) from error
        finally:
            self._leave_signals_unless_needed()
        return True

    def _enter_signals(self) -> None:
        """Route signals to this loop while it runs, if it runs where Python handles signals."""
        if _on_main_thread():
            try:
                self._watch_signals()
            except ValueError:
                # Not the main interpreter: signals are not this loop's business.
                return

    def _leave_signals(self) -> None:
        """Give the wake-up descriptor back at the end of a run, unless handlers still need it."""
        descriptor = self._wakeup_descriptor
        if descriptor is not None and not self._signal_handlers and _on_main_thread():
            descriptor.uninstall()

    def _leave_signals_unless_needed(self) -> None:
        if not self.is_running():
            self._leave_signals()

    def _release_signals(self) -> None:
        """Remove every handler and close the wake-up descriptor; part of closing the loop."""
        descriptor = self._wakeup_descriptor
        try:
            if not sys.is_finalizing():
                for sig in list(self._signal_handlers):
                    self.remove_signal_handler(sig)
            elif self._signal_handlers:
                warnings.warn(
                    f"Closing the loop {self!r} on interpreter shutdown stage, "
                    "skipping signal handlers removal",
                    ResourceWarning,
                    stacklevel=3,
                    source=self,
                )
                self._signal_handlers.clear()
        finally:
            if descriptor is not None:
                self._wakeup_descriptor = None
                self._remove_reader(descriptor.reader.fileno())
                descriptor.close()

    def _watch_signals(self) -> None:
        descriptor = self._wakeup_descriptor
        if descriptor is not None:
            descriptor.install()
            return
        descriptor = _WakeupDescriptor()
        try:
            descriptor.install()
            self._add_reader(descriptor.reader.fileno(), self._deliver_signals)
        except BaseException:
            descriptor.uninstall()
            descriptor.close()
            raise
        self._wakeup_descriptor = descriptor

    def _deliver_signals(self) -> None:
        descriptor = self._wakeup_descriptor
        if descriptor is None:
            return
        for number in descriptor.signals():
            schedule = self._signal_handlers.get(number)
            if schedule is not None:
                schedule()


def _on_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _check_signal(sig: object) -> None:
    if not isinstance(sig, int):
        raise TypeError(f"sig must be an int, not {sig!r}")
    if sig not in signal.valid_signals():
        raise ValueError(f"invalid signal number {sig}")


def _explain(error: OSError, sig: int) -> Exception:
    if error.errno == errno.EINVAL:
        return RuntimeError(f"sig {sig} cannot be caught")
    return error


def _do_nothing(signum: int, frame: object) -> None:
    """Stand in for SIG_DFL, so that Python catches the signal."""


if sys.version_info < (3, 12):
    # From 3.12 asyncio does this itself. A forked child must not write its signals to the parent's loop.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1) and None)
