"""Connections on sockets that receive and send in their own way: of a class that puts methods of its own in
place of `recv` and its family, as for tunnels, counters and tests.

Rust's transports use the descriptor alone. asyncio's own transport calls the methods, so such a socket gets
that one, with this loop's watchers beneath it, and TLS over it where that is asked for.
"""

from __future__ import annotations

import _socket
from asyncio import selector_events
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

from . import _rust
from ._native_loop import NativeLoop

_USUAL_METHODS = {name: getattr(_socket.socket, name) for name in ("recv", "recv_into", "send", "sendmsg")}


class OwnSockets(NativeLoop):
    """Transports of sockets with methods of their own."""

    # By descriptor, as asyncio's transports write themselves down; made for the first of them.
    _transports: Mapping[int, Any] = MappingProxyType({})

    def _make_socket_transport(
        self,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
    ) -> Any:
        make = self._make_own if _has_own_methods(sock) else super()._make_socket_transport
        return make(sock, protocol, waiter, extra=extra, server=server, context=context)

    def _make_ssl_transport(
        self,
        rawsock: Any,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
        **options: Any,
    ) -> Any:
        if not _has_own_methods(rawsock):
            return super()._make_ssl_transport(
                rawsock, protocol, sslcontext, waiter, extra=extra, server=server, context=context, **options
            )
        tls = _rust.TlsTransport(self, protocol, sslcontext, waiter, **options)
        self._make_own(rawsock, tls, None, extra=extra, server=server, context=context)
        return tls

    def _make_own(
        self, sock: Any, protocol: Any, waiter: Any, *, extra: Any, server: Any, context: Any
    ) -> Any:
        if not self._transports:
            self._transports = WeakValueDictionary()
        # asyncio gives and takes contexts since Python 3.15.
        contexts = {} if context is None else {"context": context}
        return _OwnSocketTransport(self, sock, protocol, waiter, extra, server, **contexts)

    def _has_transport(self, descriptor: int) -> bool:
        if self._transports and (own := self._transports.get(descriptor)) and not own.is_closing():
            return True
        return super()._has_transport(descriptor)


class _OwnSocketTransport(selector_events._SelectorSocketTransport):  # type: ignore[misc, name-defined]
    """asyncio's transport, described without asking a selector."""

    def __repr__(self) -> str:
        if self._sock is None:
            state = "closed"
        else:
            state = f"{'closing' if self._closing else 'open'} fd={self._sock_fd}"
        return f"<{type(self).__name__} {state} bufsize={self.get_write_buffer_size()}>"


def _has_own_methods(sock: Any) -> bool:
    kind = type(sock)
    return any(getattr(kind, name, usual) is not usual for name, usual in _USUAL_METHODS.items())
