"""aioxide's own streams: asyncio's functions and classes, with native readers and writers.

The classes are asyncio's to `isinstance`, `issubclass` and every caller. What runs for each message is Rust,
inherited from `aioxide._rust`; what runs once for each connection is asyncio's own, inherited from there.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from asyncio.format_helpers import extract_stack
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from . import _rust

_DEFAULT_LIMIT = 2**16

ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


class StreamReader(_rust.StreamReader, asyncio.StreamReader):  # type: ignore[misc]
    """Reads from a connection, as `asyncio.StreamReader`."""

    def __init__(self, limit: int = _DEFAULT_LIMIT, loop: asyncio.AbstractEventLoop | None = None) -> None:
        loop = loop if loop is not None else asyncio.get_event_loop()
        _rust.StreamReader.__init__(self, limit, loop)
        if loop.get_debug():
            self._source_traceback = extract_stack(sys._getframe(1))


class StreamWriter(_rust.StreamWriter, asyncio.StreamWriter):
    """Writes to a connection, as `asyncio.StreamWriter`."""

    def __init__(self, transport: Any, protocol: Any, reader: Any, loop: asyncio.AbstractEventLoop) -> None:
        assert reader is None or isinstance(reader, asyncio.StreamReader)
        _rust.StreamWriter.__init__(self, transport, protocol, reader, loop)

    def __del__(self, _warn: Any = warnings.warn) -> None:
        # As since Python 3.13; the arguments of __init__ may have been wrong.
        if self._transport is None or self._transport.is_closing():
            return
        if self._loop.is_closed():
            _warn("loop is closed", ResourceWarning)
        else:
            self.close()
            _warn(f"unclosed {self!r}", ResourceWarning)


StreamReader._adopt_fast_methods()
StreamWriter._adopt_fast_methods()


class StreamReaderProtocol(asyncio.StreamReaderProtocol):
    """Adapts a transport to a reader, as `asyncio.StreamReaderProtocol`."""

    # Set by asyncio's class, and missing in what is known of its types.
    _client_connected_cb: ClientConnected | None
    _drain_waiters: Iterable[asyncio.Future[None]]
    _loop: asyncio.AbstractEventLoop
    _paused: bool
    _reject_connection: bool
    _stream_reader: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # A deque takes 760 bytes, a third of what an idle connection does, and hardly any ever waits.
        self._drain_waiters = ()

    async def _drain_helper(self) -> None:
        if self._paused and self._drain_waiters == ():
            self._drain_waiters = deque()
        await super()._drain_helper()  # type: ignore[misc]

    def connection_made(self, transport: Any) -> None:
        """Set up the streams; a server's callback gets our writer in place of asyncio's."""
        connected, self._client_connected_cb = self._client_connected_cb, None
        try:
            super().connection_made(transport)
        finally:
            self._client_connected_cb = connected
        if connected is None or self._reject_connection:
            return
        reader = self._stream_reader
        self._strong_reader = None
        writer = StreamWriter(transport, self, reader, self._loop)
        try:
            answer = connected(reader, writer)
        except Exception as error:
            self._report(transport, error)
            return
        if asyncio.iscoroutine(answer):
            self._task = self._loop.create_task(answer)
            self._task.add_done_callback(_Finish(self, transport))

    def _report(self, transport: Any, error: BaseException) -> None:
        message = "Unhandled exception in client_connected_cb"
        self._loop.call_exception_handler({"message": message, "exception": error, "transport": transport})
        transport.close()


class _Finish:
    """Called when the task of a server's callback is over. Takes a sixth of the memory of a closure."""

    __slots__ = ("_protocol", "_transport")

    def __init__(self, protocol: StreamReaderProtocol, transport: Any) -> None:
        self._protocol = protocol
        self._transport = transport

    def __call__(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._transport.close()
        elif error := task.exception():
            self._protocol._report(self._transport, error)


def _new_protocol(
    limit: int, loop: asyncio.AbstractEventLoop, connected: ClientConnected | None = None
) -> tuple[StreamReader, StreamReaderProtocol]:
    reader = StreamReader(limit=limit, loop=loop)
    return reader, StreamReaderProtocol(reader, connected, loop=loop)


async def open_connection(
    host: str | None = None, port: int | str | None = None, *, limit: int = _DEFAULT_LIMIT, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a TCP server, as `asyncio.open_connection`; its streams are aioxide's on aioxide's loop."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, _rust.EventLoop):
        return await asyncio.open_connection(host, port, limit=limit, **options)
    reader, protocol = _new_protocol(limit, loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **options)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_server(
    client_connected_cb: ClientConnected,
    host: Any = None,
    port: int | str | None = None,
    *,
    limit: int = _DEFAULT_LIMIT,
    **options: Any,
) -> asyncio.Server:
    """Listen for TCP connections, as `asyncio.start_server`; its streams are aioxide's on aioxide's loop."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, _rust.EventLoop):
        return await asyncio.start_server(client_connected_cb, host, port, limit=limit, **options)
    return await loop.create_server(
        lambda: _new_protocol(limit, loop, client_connected_cb)[1], host, port, **options
    )


async def open_unix_connection(
    path: Any = None, *, limit: int = _DEFAULT_LIMIT, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a Unix socket, as `asyncio.open_unix_connection`."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, _rust.EventLoop):
        return await asyncio.open_unix_connection(path, limit=limit, **options)
    reader, protocol = _new_protocol(limit, loop)
    transport, _ = await loop.create_unix_connection(lambda: protocol, path, **options)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_unix_server(
    client_connected_cb: ClientConnected, path: Any = None, *, limit: int = _DEFAULT_LIMIT, **options: Any
) -> asyncio.Server:
    """Listen on a Unix socket, as `asyncio.start_unix_server`."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, _rust.EventLoop):
        return await asyncio.start_unix_server(client_connected_cb, path, limit=limit, **options)
    return await loop.create_unix_server(
        lambda: _new_protocol(limit, loop, client_connected_cb)[1], path, **options
    )
