"""Protocols that write down what a transport tells them and let a test await it."""

from __future__ import annotations

import asyncio
from typing import Any


def forget_failed_handshakes(loop: asyncio.AbstractEventLoop, reported: list[dict[str, Any]]) -> None:
    """Forget what debug mode reports of handshakes that a server could not complete."""
    for context in reported:
        assert loop.get_debug()
        assert context["message"] == "Error on transport creation for incoming connection"
        assert isinstance(context["exception"], OSError)
        assert isinstance(context["protocol"], asyncio.Protocol)
    reported.clear()


class Recorder(asyncio.Protocol):
    """Records calls in order; `made`, `lost`, `eof` and `received(count)` can be awaited."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, keep_open_on_eof: bool = False) -> None:
        self.loop = loop
        self.calls: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.made: asyncio.Future[Any] = loop.create_future()
        self.eof: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self.paused = asyncio.Event()
        self._keep_open_on_eof = keep_open_on_eof
        self._progress = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("connection_made")
        self.transport = transport
        self.made.set_result(transport)

    def data_received(self, data: bytes) -> None:
        if not self.calls or self.calls[-1] != "data_received":
            self.calls.append("data_received")
        self.data += data
        self._progress.set()

    def eof_received(self) -> bool:
        self.calls.append("eof_received")
        self.eof.set_result(None)
        self._progress.set()
        return self._keep_open_on_eof

    def connection_lost(self, error: Exception | None) -> None:
        self.calls.append("connection_lost")
        self.lost.set_result(error)
        self._progress.set()

    def pause_writing(self) -> None:
        self.calls.append("pause_writing")
        self.writable.clear()
        self.paused.set()

    def resume_writing(self) -> None:
        self.calls.append("resume_writing")
        self.paused.clear()
        self.writable.set()

    async def received(self, count: int) -> bytes:
        """Wait until `count` bytes have arrived and return all that did."""
        while len(self.data) < count and not self.lost.done() and not self.eof.done():
            self._progress.clear()
            await self._progress.wait()
        return bytes(self.data)


class BufferedRecorder(asyncio.BufferedProtocol):
    """The same for BufferedProtocol, with a buffer of a chosen size."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.buffer = bytearray(size)
        self.hints: list[int] = []
        self.counts: list[int] = []
        self.data = bytearray()
        self.transport: Any = None
        self.eof: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self._progress = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.counts.append(nbytes)
        self.data += self.buffer[:nbytes]
        self._progress.set()

    def eof_received(self) -> bool:
        self.eof.set_result(None)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)
        self._progress.set()

    async def received(self, count: int) -> bytes:
        """Wait until `count` bytes have arrived and return all that did."""
        while len(self.data) < count and not self.lost.done():
            self._progress.clear()
            await self._progress.wait()
        return bytes(self.data)
