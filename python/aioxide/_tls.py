"""TLS on a connection that exists already: `start_tls`. All other TLS is `_rust.TlsTransport`'s own.

# Invariants
- Nothing that came before the upgrade is lost: reading stops until TLS is the transport's protocol, and what
  a stream reader holds already belongs to TLS.
- A failed upgrade closes the transport.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from . import _rust
from ._native_loop import NativeLoop


class Tls(NativeLoop):
    """Upgrade connections to TLS."""

    async def start_tls(
        self,
        transport: Any,
        protocol: Any,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Upgrade a connection to TLS; return the `TlsTransport` that `protocol` must use from now on.

        None where `transport` was closed meanwhile.
        """
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        tls = _rust.TlsTransport(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            call_connection_made=False,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        transport.pause_reading()
        _move_received(protocol, tls)
        transport.set_protocol(tls)
        made = self.call_soon(tls.connection_made, transport)
        resumed = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            transport.close()
            made.cancel()
            resumed.cancel()
            raise
        finally:
            # It keeps its exception, the exception's traceback this frame, and this frame the transport.
            del waiter
        return None if tls.get_protocol() is None else tls


def _move_received(protocol: Any, tls: _rust.TlsTransport) -> None:
    """Give TLS what a client that did not wait for our answer has sent of its handshake."""
    if not isinstance(protocol, asyncio.StreamReaderProtocol):
        return
    reader = getattr(protocol, "_stream_reader", None)
    if isinstance(reader, _rust.StreamReader):
        if received := reader._take_received():
            tls._feed(received)
    elif buffer := getattr(reader, "_buffer", None):
        tls._feed(buffer)
        buffer.clear()
