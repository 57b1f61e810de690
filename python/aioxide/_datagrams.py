"""Datagram endpoints: what a user sees of their socket. The rest is `asyncio.BaseEventLoop`'s and Rust's.

# Invariant
- Datagrams that wait for the end of the turn are sent before an option of the socket changes: with the time
  to live, interface or priority that held when they were given to `sendto`.
"""

from __future__ import annotations

import socket
import weakref
from asyncio.trsock import TransportSocket
from typing import Any

from . import _rust
from ._native_loop import NativeLoop


class Datagrams(NativeLoop):
    """The part of datagram endpoints that is Python."""

    def _face_of_socket(self, sock: socket.socket, transport: _rust.DatagramTransport) -> TransportSocket:
        """Return what `get_extra_info("socket")` will answer; called when the endpoint is made."""
        return _DatagramSocket(sock, transport)


class _DatagramSocket(TransportSocket):
    """asyncio's read-only face of a socket, in step with what its transport gathers."""

    __slots__ = ("_transport",)

    def __init__(self, sock: socket.socket, transport: _rust.DatagramTransport) -> None:
        super().__init__(sock)
        self._transport = weakref.ref(transport)

    def setsockopt(self, *args: Any) -> None:
        """Set an option for the datagrams that are sent from now on."""
        transport = self._transport()
        if transport is not None:
            transport.get_write_buffer_size()  # it is what the kernel did not take: the rest leaves first
        super().setsockopt(*args)
