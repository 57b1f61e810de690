"""Plain sockets and descriptors: `add_reader` and its family, `sock_recv` and its family.

A socket call is tried at once; if it would block, the task waits until the descriptor is ready and
tries again itself. Nothing is received, sent or accepted on the task's behalf while it waits, so a
cancelled call loses no data and no connection.

# Invariant
- A waiting call has an operation of its own, which is gone when the call ends, however it ends. It
  disturbs neither the descriptor's watchers nor other calls.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVarTuple

from ._native_loop import NativeLoop

Arguments = TypeVarTuple("Arguments")

_WOULD_BLOCK = (BlockingIOError, InterruptedError)


class SocketCalls(NativeLoop):
    """Readiness callbacks and socket calls of the loop."""

    def __init__(self, driver: str | None = None) -> None:
        super().__init__(driver)
        # What is watched under which number: kept open as asyncio's selector keeps it, and found again after
        # somebody has closed it without a word.
        self._watched_files: tuple[dict[int, Any], dict[int, Any]] = ({}, {})

    def add_reader(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """Call `callback(*args)` whenever the descriptor is readable."""
        number = self._ensure_fd_no_transport(fd)
        self._add_reader(number, callback, *args)
        self._watched_files[0][number] = fd

    def remove_reader(self, fd: Any) -> bool:
        """Stop watching the descriptor for reading; return False if it was not watched."""
        number = self._watched_number(fd)
        self._watched_files[0].pop(number, None)
        return self._remove_reader(number)

    def add_writer(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """Call `callback(*args)` whenever the descriptor is writable."""
        number = self._ensure_fd_no_transport(fd)
        self._add_writer(number, callback, *args)
        self._watched_files[1][number] = fd

    def remove_writer(self, fd: Any) -> bool:
        """Stop watching the descriptor for writing; return False if it was not watched."""
        number = self._watched_number(fd)
        self._watched_files[1].pop(number, None)
        return self._remove_writer(number)

    def _watched_number(self, fd: Any) -> int:
        """Return the descriptor of an int or a file object, and of a closed one that it is watched under."""
        try:
            return self._ensure_fd_no_transport(fd)
        except ValueError:
            for files in self._watched_files:
                for number, file in files.items():
                    if file is fd:
                        return number
            raise

    def _release_watched_files(self) -> None:
        for files in self._watched_files:
            files.clear()

    def sock_recv(self, sock: socket.socket, n: int) -> Coroutine[Any, Any, bytes]:
        """Receive up to `n` bytes."""
        if type(sock) is socket.socket and type(n) is int and n > 0 and not self._debug:
            return self._sock_recv(sock, n)
        return self._receive(sock, n)

    async def _receive(self, sock: socket.socket, n: int) -> bytes:
        # Sockets of other types may receive in their own way.
        self._check_socket(sock)
        while True:
            try:
                return sock.recv(n)
            except _WOULD_BLOCK:
                await self._until_readable(sock)

    def sock_recv_into(self, sock: socket.socket, buf: Any) -> Coroutine[Any, Any, int]:
        """Receive into a buffer; return the number of bytes."""
        if type(sock) is socket.socket and not self._debug:
            return self._sock_recv_into(sock, buf)
        return self._receive_into(sock, buf)

    async def _receive_into(self, sock: socket.socket, buf: Any) -> int:
        self._check_socket(sock)
        while True:
            try:
                return sock.recv_into(buf)
            except _WOULD_BLOCK:
                await self._until_readable(sock)

    async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
        """Receive a datagram; return its bytes and sender."""
        self._check_socket(sock)
        while True:
            try:
                return sock.recvfrom(bufsize)
            except _WOULD_BLOCK:
                await self._until_readable(sock)

    async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> tuple[int, Any]:
        """Receive a datagram into a buffer; return its size and sender."""
        self._check_socket(sock)
        if not nbytes:
            nbytes = len(buf)
        while True:
            try:
                return sock.recvfrom_into(buf, nbytes)
            except _WOULD_BLOCK:
                await self._until_readable(sock)

    def sock_sendall(self, sock: socket.socket, data: Any) -> Coroutine[Any, Any, None]:
        """Send all of the data."""
        if type(sock) is socket.socket and not self._debug:
            return self._sock_sendall(sock, data)
        return self._send_all(sock, data)

    async def _send_all(self, sock: socket.socket, data: Any) -> None:
        self._check_socket(sock)
        try:
            sent = sock.send(data)
        except _WOULD_BLOCK:
            sent = 0
        with memoryview(data) as view, view.cast("B") as octets:
            while sent < len(octets):
                await self._until_writable(sock)
                try:
                    sent += sock.send(octets[sent:])
                except _WOULD_BLOCK:
                    continue

    async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
        """Send a datagram to an address; return the number of bytes."""
        self._check_socket(sock)
        while True:
            try:
                return sock.sendto(data, address)
            except _WOULD_BLOCK:
                await self._until_writable(sock)

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection; return its non-blocking socket and the peer's address."""
        self._check_socket(sock)
        while True:
            try:
                connection, address = sock.accept()
            except _WOULD_BLOCK:
                await self._until_readable(sock)
            else:
                connection.setblocking(False)
                return connection, address

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to an address, resolving its host name if it has one."""
        self._check_socket(sock)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            resolved = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            address = resolved[0][4]
        try:
            sock.connect(address)
            return
        except _WOULD_BLOCK as error:
            if error.errno == errno.EAGAIN and sock.family == socket.AF_UNIX:
                # connect(2): the listener's queue is full and nothing was begun.
                raise
        # connect(2): interrupted or not, it goes on by itself; writable means it is over.
        await self._until_writable(sock)
        failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, f"Connect call failed {address}")

    def _check_socket(self, sock: socket.socket) -> None:
        # A socket of a type nobody imported cannot have been passed.
        ssl = sys.modules.get("ssl")
        if ssl is not None and isinstance(sock, ssl.SSLSocket):
            raise TypeError("Socket cannot be of type SSLSocket")
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")

    async def _until_readable(self, sock: socket.socket) -> None:
        await self._until_ready(sock, False)

    async def _until_writable(self, sock: socket.socket) -> None:
        await self._until_ready(sock, True)
