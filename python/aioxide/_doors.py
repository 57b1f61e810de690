"""What opens something, and is refused at the door, before that, on closed loops.

asyncio's base class opens sockets first and fails afterwards, where it leaks them. What is asked for most, a
connection to a literal address, Rust makes by itself.
"""

from __future__ import annotations

import socket
from asyncio import base_events
from typing import Any

from ._native_loop import NativeLoop


async def _start_serving(server: Any) -> None:
    # asyncio's servers accept from the next turn on. Cancelled before that, nobody holds this one.
    try:
        await server.start_serving()
    except BaseException:
        server.close()
        raise


_Socket = socket.socket


def _may_connect_natively() -> bool:
    # Who replaces Python's sockets, in tests mostly, wants to see every connection.
    return vars(base_events).get("socket") is socket and socket.socket is _Socket


class Doors(NativeLoop):
    """Methods that open something."""

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """Connect to a TCP server, as `asyncio.BaseEventLoop.create_connection` does."""
        self._check_closed()
        is_usual = type(host) is str and type(port) is int and 0 < port < 65536
        if is_usual and not options and not self._debug and _may_connect_natively():
            connecting = self._connect(protocol_factory, host, port)
            if connecting is not None:
                return await connecting
        return await super().create_connection(protocol_factory, host, port, **options)

    async def create_server(self, *args: Any, start_serving: bool = True, **options: Any) -> Any:
        """Listen for TCP connections, as `asyncio.BaseEventLoop.create_server` does."""
        self._check_closed()
        server = await super().create_server(*args, start_serving=False, **options)
        if start_serving:
            await _start_serving(server)
        return server

    async def connect_accepted_socket(self, *args: Any, **options: Any) -> Any:
        """Wrap an accepted connection in a transport."""
        self._check_closed()
        return await super().connect_accepted_socket(*args, **options)

    async def create_unix_connection(self, *args: Any, **options: Any) -> Any:
        """Connect to a Unix stream socket."""
        self._check_closed()
        return await super().create_unix_connection(*args, **options)

    async def create_unix_server(self, *args: Any, start_serving: bool = True, **options: Any) -> Any:
        """Listen on a Unix stream socket."""
        self._check_closed()
        server = await super().create_unix_server(*args, **options)
        if start_serving:
            await _start_serving(server)
        return server

    async def create_datagram_endpoint(self, *args: Any, **options: Any) -> Any:
        """Open a datagram endpoint, as `asyncio.BaseEventLoop.create_datagram_endpoint` does."""
        self._check_closed()
        return await super().create_datagram_endpoint(*args, **options)
