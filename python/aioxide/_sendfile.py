"""Sending files: `sendfile` on a transport and `sock_sendfile` on a socket, by sendfile(2).

asyncio's base class has the arguments' checks and the fallback that reads and writes, for files that are
none to the kernel and transports that must see the bytes (TLS).

# Invariants
- However sending ends, the file's position is behind the last byte that was sent, the transport reads if it
  read before, and can be written again unless the connection is lost.
- One step sends a bounded piece and then waits for the loop: a fast peer starves nobody.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
from asyncio.exceptions import SendfileNotAvailableError
from collections.abc import Awaitable, Callable
from typing import Any

from . import _rust
from ._socket_calls import SocketCalls

# Bytes of one system call.
_PIECE = 256 * 1024

# asyncio since 3.14 moves the file's position also where there was nothing to send.
_MOVES_WITHOUT_SENDING = sys.version_info >= (3, 14)


class SendFile(SocketCalls):
    """Files sent by the kernel."""

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        """Send a file on a plain socket; `sock_sendfile` has checked the arguments."""
        size = _size(file)
        return await _send(sock, file, size, offset, count, lambda: self._until_writable(sock))

    async def _sendfile_native(self, transport: Any, file: Any, offset: int, count: int | None) -> int:
        """Send a file on a transport after what was written before; `sendfile` has checked the transport."""
        if not isinstance(transport, _rust.StreamTransport):
            raise SendfileNotAvailableError(f"sendfile is not available for transport {transport!r}")
        sock = transport.get_extra_info("socket")
        self._check_sendfile_params(sock, file, offset, count)
        size = _size(file)

        async def until_room() -> None:
            room = self.create_future()
            transport._await_room(room)
            await room

        transport._begin_file()
        was_reading = transport.is_reading()
        transport.pause_reading()
        try:
            if transport.get_write_buffer_size():
                await until_room()
            return await _send(sock, file, size, offset, count, until_room)
        finally:
            transport._end_file()
            if was_reading:
                transport.resume_reading()

    async def _sendfile_fallback(self, transport: Any, file: Any, offset: int, count: int | None) -> int:
        """Send a file by reading and writing it."""
        try:
            return await super()._sendfile_fallback(transport, file, offset, count)
        finally:
            # asyncio gives the protocol back, and will tell it to resume, but not that it is paused.
            if getattr(transport, "_protocol_paused", False) and not transport.is_closing():
                transport.get_protocol().pause_writing()


def _size(file: Any) -> int:
    try:
        return os.fstat(file.fileno()).st_size
    except (AttributeError, io.UnsupportedOperation, OSError):
        raise SendfileNotAvailableError("not a regular file") from None


async def _send(
    sock: Any,
    file: Any,
    size: int,
    offset: int,
    count: int | None,
    until_writable: Callable[[], Awaitable[None]],
) -> int:
    if not (count or size):
        return 0
    sent = 0
    is_known_to_the_kernel = False
    try:
        while True:
            piece = _PIECE if count is None else min(count - sent, _PIECE)
            try:
                length = os.sendfile(sock.fileno(), file.fileno(), offset + sent, piece)
            except BlockingIOError:
                await until_writable()
                continue
            except OSError as error:
                if sent:
                    raise
                # The fallback may know how to read it, or fails with an error that says more.
                raise SendfileNotAvailableError("os.sendfile call failed") from error
            is_known_to_the_kernel = True
            sent += length
            if not length or sent == count:
                return sent
            # Where the file ended when we began only the end is left to be seen.
            if offset + sent != size:
                await until_writable()
    finally:
        if sent or (is_known_to_the_kernel and _MOVES_WITHOUT_SENDING):
            # A file closed meanwhile has no position.
            with contextlib.suppress(ValueError):
                os.lseek(file.fileno(), offset + sent, os.SEEK_SET)
