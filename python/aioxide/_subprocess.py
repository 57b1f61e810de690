"""Subprocesses: `subprocess.Popen` starts them, a pidfd tells when they exit.

A pidfd (pidfd_open(2)) names one process for as long as it is open and becomes readable when that
process has exited. So there is no SIGCHLD handler and no child watcher, any thread's loop may start
processes, and a signal can never reach another process that inherited the number. Where the kernel
or a sandbox has no pidfds, a thread waits instead. Pipes and protocol calls are those of asyncio's
`BaseSubprocessTransport`.

# Invariants
- One place reads the exit status (`_reap`), once; the waiting thread leaves it to that place.
- A process that outlives the loop keeps running; only its descriptor is closed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from asyncio.base_subprocess import BaseSubprocessTransport
from asyncio.log import logger
from typing import Any

from ._native_loop import NativeLoop

# What asyncio reports for a process whose status somebody else has read.
_STATUS_UNKNOWN = 255


class _SubprocessTransport(BaseSubprocessTransport):
    """A child process with its pipes."""

    # None once the protocol was told that all is over.
    _proc: subprocess.Popen[bytes]

    pidfd: int | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self.exited = asyncio.Event()
        self.pipes_settled = asyncio.Event()
        super().__init__(*args, **options)
        self.pid = self._proc.pid

    def _start(
        self, args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, bufsize: int, **kwargs: Any
    ) -> None:
        self._proc = subprocess.Popen(
            args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **kwargs
        )

    async def _connect_pipes(self, waiter: Any) -> None:
        try:
            await super()._connect_pipes(waiter)
        finally:
            if self._closed:
                self._close_pipes()
            self.pipes_settled.set()

    def close(self) -> None:
        """Close the pipes and kill the process if it still runs."""
        if self._loop is not None and self._loop.is_closed():
            # Nobody can be told any more that the pipes are closed: that is done when they are collected.
            self._pipes = {}
        super().close()

    def send_signal(self, number: int) -> None:
        """Send the process a signal; nothing happens if it has exited."""
        self._check_proc()
        if self._returncode is not None or self._proc.returncode is not None:
            return
        try:
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM)."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process (SIGKILL)."""
        self.send_signal(signal.SIGKILL)

    def _reap(self) -> None:
        """Read the status of the process, which has exited, and tell the protocol."""
        status = self._proc.returncode
        if status is None:
            try:
                _, raw = os.waitpid(self.pid, 0)
                status = _exit_code(raw)
            except ChildProcessError:
                # `Popen.poll` on another thread may have been first; it keeps the status.
                status = self._proc.returncode
        if status is None:
            status = _STATUS_UNKNOWN
            logger.warning(
                "child process pid %d exit status already read: will report returncode %d",
                self.pid,
                status,
            )
        self.exited.set()
        self._process_exited(status)

    def forget_exit(self) -> None:
        """Read the status of the process, which has exited, on behalf of a loop that is closed."""
        process = self._proc
        if process is not None:
            process.poll()

    async def abandon(self) -> None:
        """Kill the process, wait for its end and close its pipes, connected or not."""
        self.close()
        await self.pipes_settled.wait()
        self._close_pipes()
        await self.exited.wait()

    def _close_pipes(self) -> None:
        """Close also those pipes that were connected after `close` looked, or not at all."""
        process = self._proc
        if process is None:
            return
        for number, pipe in enumerate((process.stdin, process.stdout, process.stderr)):
            protocol: Any = self._pipes.get(number)
            if protocol is not None:
                protocol.pipe.close()
            elif pipe is not None:
                pipe.close()


class Subprocesses(NativeLoop):
    """Child processes of the loop."""

    def __init__(self, driver: str | None = None) -> None:
        super().__init__(driver)
        self._watched_children: set[_SubprocessTransport] = set()

    async def _make_subprocess_transport(
        self,
        protocol: Any,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> _SubprocessTransport:
        self._check_closed()
        connected = self.create_future()
        transport = _SubprocessTransport(
            self, protocol, args, shell, stdin, stdout, stderr, bufsize, connected, extra, **kwargs
        )
        try:
            self._watch_child(transport)
        except BaseException:
            # Nobody else will tell of its end, and a process that was killed does not keep us waiting.
            transport.close()
            transport._reap()
            await transport.abandon()
            raise
        try:
            await connected
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            await transport.abandon()
            raise
        return transport

    def _watch_child(self, transport: _SubprocessTransport) -> None:
        """Arrange for `_reap` once the process has exited."""
        try:
            pidfd = os.pidfd_open(transport.pid)
        except (AttributeError, OSError):
            self._wait_in_thread(transport)
            return
        try:
            self._add_reader(pidfd, self._child_exited, transport)
        except OSError:
            os.close(pidfd)
            self._wait_in_thread(transport)
            return
        transport.pidfd = pidfd
        self._watched_children.add(transport)

    def _child_exited(self, transport: _SubprocessTransport) -> None:
        self._forget_child(transport)
        transport._reap()

    def _forget_child(self, transport: _SubprocessTransport) -> None:
        self._watched_children.discard(transport)
        pidfd, transport.pidfd = transport.pidfd, None
        if pidfd is not None:
            self._remove_reader(pidfd)
            os.close(pidfd)

    def _release_children(self) -> None:
        """Stop watching the processes that are still running; part of closing the loop."""
        for transport in list(self._watched_children):
            self._forget_child(transport)

    def _wait_in_thread(self, transport: _SubprocessTransport) -> None:
        pid = transport.pid
        threading.Thread(
            target=self._wait_for_exit, args=(pid, transport), name=f"aioxide-waitpid-{pid}", daemon=True
        ).start()

    def _wait_for_exit(self, pid: int, transport: _SubprocessTransport) -> None:
        try:
            # waitid(2): WNOWAIT leaves the status to be read by `_reap`.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            # Somebody else has read the status, so the process has exited; `_reap` reports it.
            logger.debug("child process pid %d was waited for elsewhere", pid)
        try:
            self.call_soon_threadsafe(transport._reap)
        except RuntimeError:
            logger.warning("Loop %r that handles pid %d is closed", self, pid)
            transport.forget_exit()


def _exit_code(status: int) -> int:
    try:
        return os.waitstatus_to_exitcode(status)
    except ValueError:
        # A status this Python does not understand is still better than none.
        return status
