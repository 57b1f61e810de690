"""Transports in debug mode: their callbacks are watched like everybody's."""

from __future__ import annotations

import asyncio
import logging
import socket
import time


class Failing(asyncio.Protocol):
    """Fails at the first bytes."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        raise ValueError("on purpose")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def accepted(factory):
    near, far = socket.socketpair()
    near.setblocking(False)
    _, protocol = await asyncio.get_running_loop().connect_accepted_socket(factory, near)
    return protocol, far


async def test_an_exception_of_a_protocol_is_reported_in_debug_mode(loop, caplog):
    loop.set_debug(True)
    loop.set_exception_handler(None)
    protocol, far = await accepted(Failing)
    with far, caplog.at_level(logging.ERROR, "asyncio"):
        far.send(b"x")
        error = await protocol.lost
    assert isinstance(error, ValueError)
    assert "protocol.data_received() call failed" in caplog.text
    assert "Exception in default exception handler" not in caplog.text
    caplog.clear()


async def test_a_slow_protocol_is_logged(loop, caplog):
    class Slow(Failing):
        def data_received(self, data: bytes) -> None:
            time.sleep(0.02)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    protocol, far = await accepted(Slow)
    with caplog.at_level(logging.WARNING, "asyncio"), far:
        far.send(b"x")
        far.shutdown(socket.SHUT_WR)
        await protocol.lost
    assert "took 0.0" in caplog.text
