"""Names and addresses: `getaddrinfo`, `getnameinfo` on threads of their own.

Look-ups block inside libc for as long as a name server likes. They do not run on the default
executor, where they would wait behind other work and `asyncio.run` would wait for them; their
threads are daemons, so a hanging one delays neither the loop's close nor the interpreter's exit.
What libc answers without asking anybody is not sent to a thread at all.

# Invariants
- `socket.getaddrinfo` is looked up when it is called: programs and tests replace it.
- Idle threads end with the loop; a busy one ends after its look-up, whose result nobody reads.
- Only the loop's thread starts threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

from ._native_loop import NativeLoop

# A few hanging look-ups must not stop the others; many threads asking at once gain nothing.
MAXIMUM_LOOKUP_THREADS = 8

_Work = tuple["concurrent.futures.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class _LookupThreads:
    """A few daemon threads that take work from one queue, started when they are first needed."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._unfinished = 0
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], *args: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            self._unfinished += 1
            unfinished = self._unfinished
        self._waiting.put((future, function, args))
        if len(self._threads) < min(unfinished, MAXIMUM_LOOKUP_THREADS):
            self._start_thread()
        return future

    def _start_thread(self) -> None:
        number = len(self._threads) + 1
        thread = threading.Thread(target=self._work, name=f"aioxide-lookup-{number}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # No more threads to be had: those that run take this look-up too, if there are any.
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def close(self) -> None:
        """Let every thread end; look-ups still waiting for a thread are cancelled."""
        while True:
            try:
                work = self._waiting.get_nowait()
            except queue.Empty:
                break
            if work is not None:
                work[0].cancel()
                self._finish_one()
        for _ in self._threads:
            self._waiting.put(None)
        with self._lock:
            all_are_idle = self._unfinished == 0
        if all_are_idle:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            future, function, args = work
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args)
                except BaseException as error:
                    self._finish_one()
                    future.set_exception(error)
                else:
                    self._finish_one()
                    future.set_result(result)
                    del result
            else:
                self._finish_one()
            # Nothing of this look-up may live on while the thread waits for the next.
            del work, future, function, args

    def _finish_one(self) -> None:
        # Before the result is known: who asks again because of it finds this thread free.
        with self._lock:
            self._unfinished -= 1


class Resolver(NativeLoop):
    """Name resolution of the loop."""

    def __init__(self, driver: str | None = None) -> None:
        super().__init__(driver)
        self._lookup_threads: _LookupThreads | None = None

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Translate a host and a port into addresses, as `socket.getaddrinfo` does."""
        look_up = self._getaddrinfo_debug if self._debug else socket.getaddrinfo
        if _is_literal(host) and _is_number(port):
            return look_up(host, port, family, type, proto, flags)
        return await self._look_up(look_up, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """Translate an address into a host and a port, as `socket.getnameinfo` does."""
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        if flags & numeric == numeric and _is_literal(sockaddr[0]):
            return socket.getnameinfo(sockaddr, flags)
        return await self._look_up(socket.getnameinfo, sockaddr, flags)  # type: ignore[no-any-return]

    def _look_up(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self._check_closed()
        if self._lookup_threads is None:
            self._lookup_threads = _LookupThreads()
        return asyncio.wrap_future(self._lookup_threads.submit(function, *args), loop=self)

    def _release_resolver(self) -> None:
        """Let the look-up threads end without waiting for them; part of closing the loop."""
        threads, self._lookup_threads = self._lookup_threads, None
        if threads is not None:
            threads.close()


def _is_literal(host: object) -> bool:
    # getaddrinfo(3): no host means the wildcard or loopback address.
    if host is None:
        return True
    if isinstance(host, bytes | bytearray):
        try:
            host = host.decode("ascii")
        except UnicodeDecodeError:
            return False
    if not isinstance(host, str):
        return False
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False


def _is_number(port: object) -> bool:
    # A service's name is looked up in files or by name servers.
    if port is None or isinstance(port, int):
        return True
    return isinstance(port, str | bytes) and port.isdigit()
