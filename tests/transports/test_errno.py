"""Errors of the kernel reach the protocol as Python's own calls would raise them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct

import pytest


class Recorder(asyncio.Protocol):
    """Remembers how the connection ended."""

    def __init__(self) -> None:
        self.made: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.made.set_result(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def reset(peer: socket.socket) -> None:
    """Close a connection with RST (SO_LINGER of zero, socket(7))."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


async def connected_pair() -> tuple[Recorder, socket.socket]:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, protocol = await loop.create_connection(Recorder, *listener.getsockname())
        peer, _ = listener.accept()
    return protocol, peer


async def test_a_reset_while_reading_has_its_errno_and_text(loop):
    protocol, peer = await connected_pair()
    reset(peer)
    error = await protocol.lost
    assert type(error) is ConnectionResetError
    assert error.errno == errno.ECONNRESET
    assert error.strerror == os.strerror(errno.ECONNRESET)


async def test_a_failed_write_has_its_errno_and_text(loop):
    protocol, peer = await connected_pair()
    transport = await protocol.made
    transport.pause_reading()
    reset(peer)
    while not protocol.lost.done():
        transport.write(b"x" * 100_000)
        await asyncio.sleep(0)
    error = protocol.lost.result()
    assert isinstance(error, BrokenPipeError | ConnectionResetError)
    assert error.errno in (errno.EPIPE, errno.ECONNRESET)
    assert error.strerror == os.strerror(error.errno)


async def test_a_descriptor_that_cannot_be_watched_has_its_errno(loop, tmp_path):
    path = tmp_path / "file"
    with path.open("w") as file, pytest.raises(PermissionError) as caught:
        loop.add_reader(file, print)
    assert caught.value.errno == errno.EPERM
    assert caught.value.strerror == os.strerror(errno.EPERM)
