"""Unix stream sockets: `create_unix_connection`, `create_unix_server`.

# Invariants
- A socket file is removed when its server stops only if it is still the one that server made.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import errno
import os
import socket
import sys
from asyncio.log import logger
from collections.abc import Callable
from typing import Any

from ._native_loop import NativeLoop
from ._rust import remove_socket_file, socket_inode

# asyncio removes the file of a stopped server by default from 3.13 on.
_CLEANUP_BY_DEFAULT = sys.version_info >= (3, 13)


class UnixSockets(NativeLoop):
    """Connections and servers on Unix stream sockets."""

    def __init__(self, driver: str | None = None) -> None:
        super().__init__(driver)
        self._socket_files: dict[socket.socket, tuple[str | bytes, int | None]] = {}

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], Any],
        path: Any = None,
        *,
        ssl: Any = None,
        sock: socket.socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Connect to a Unix stream socket."""
        if ssl:
            if server_hostname is None:
                raise ValueError("you have to pass server_hostname when using ssl")
        else:
            if server_hostname is not None:
                raise ValueError("server_hostname is only meaningful with ssl")
            _refuse_without_ssl(ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self.sock_connect(sock, os.fspath(path))
            except BaseException:
                sock.close()
                raise
        elif sock is None:
            raise ValueError("no path and sock were specified")
        else:
            _check_unix_stream(sock)
            sock.setblocking(False)
        return await self._create_connection_transport(
            sock,
            protocol_factory,
            ssl,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    async def create_unix_server(  # type: ignore[override]  # `Doors` serves start_serving
        self,
        protocol_factory: Callable[[], Any],
        path: Any = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        ssl: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        cleanup_socket: bool = _CLEANUP_BY_DEFAULT,
    ) -> asyncio.Server:
        """Return a server on a Unix stream socket that does not accept yet."""
        if isinstance(ssl, bool):
            raise TypeError("ssl argument must be an SSLContext or None")
        if not ssl:
            _refuse_without_ssl(ssl_handshake_timeout, ssl_shutdown_timeout)
        if path is not None:
            if sock is not None:
                raise ValueError("path and sock can not be specified at the same time")
            sock = _bind(os.fspath(path))
        elif sock is None:
            raise ValueError("path was not specified, and no sock specified")
        else:
            _check_unix_stream(sock)
        if cleanup_socket:
            self._remember_socket_file(sock)
        sock.setblocking(False)
        return asyncio.base_events.Server(
            self, [sock], protocol_factory, ssl, backlog, ssl_handshake_timeout, ssl_shutdown_timeout
        )

    def _remember_socket_file(self, sock: socket.socket) -> None:
        path = sock.getsockname()
        if _is_file(path):
            try:
                self._socket_files[sock] = path, socket_inode(os.fsdecode(path))
            except FileNotFoundError:
                # Somebody removed it already: nothing to clean up.
                return

    def _stop_serving(self, sock: socket.socket) -> None:
        """Stop accepting, close the socket and remove its file if that is ours to do."""
        remembered = self._socket_files.pop(sock, None)
        super()._stop_serving(sock)
        if remembered is None:
            return
        path, inode = remembered
        try:
            if inode is not None:
                remove_socket_file(os.fsdecode(path), inode)
        except FileNotFoundError:
            return
        except OSError as error:
            logger.error("Unable to clean up listening UNIX socket %r: %r", path, error)


def _bind(path: str | bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_file(path):
            _remove_stale(path)
        sock.bind(path)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(errno.EADDRINUSE, f"Address {path!r} is already in use") from None
        raise
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str | bytes) -> None:
    try:
        remove_socket_file(os.fsdecode(path), None)
    except FileNotFoundError:
        return
    except OSError as error:
        # The directory may allow creating a socket and nothing else; bind(2) decides.
        logger.error("Unable to check or remove stale UNIX socket %r: %r", path, error)


def _is_file(path: str | bytes) -> bool:
    # unix(7): a name that is empty or starts with a null byte is abstract, without a file.
    return bool(path) and path[0] not in (0, "\0")


def _check_unix_stream(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")


def _refuse_without_ssl(handshake_timeout: float | None, shutdown_timeout: float | None) -> None:
    if handshake_timeout is not None:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if shutdown_timeout is not None:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")
