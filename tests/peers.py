"""The other end of a connection: plain blocking sockets, in this thread or in one of their own.

A peer that is not the loop under test cannot share its bugs.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

LIMIT = 20.0


@contextlib.contextmanager
def listening(family: int = socket.AF_INET, backlog: int = 16) -> Iterator[socket.socket]:
    """A blocking server socket on a free port of the loopback."""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        server.listen(backlog)
        server.settimeout(LIMIT)
        yield server


@contextlib.contextmanager
def connected_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection: (non-blocking, for the loop; blocking, for the test)."""
    with listening() as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    theirs.settimeout(LIMIT)
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@contextlib.contextmanager
def in_thread(function: Callable[..., Any], *arguments: Any) -> Iterator[threading.Thread]:
    """Run a blocking function beside the loop; what it raises is raised here at the end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function(*arguments)
        except BaseException as error:  # handed to the thread of the test
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(LIMIT)
    if raised:
        raise raised[0]
    assert not thread.is_alive(), "the peer did not finish"


def reset(connection: socket.socket) -> None:
    """Close so that the other end sees ECONNRESET."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """Receive `count` bytes; an early end is an error."""
    parts = []
    while count:
        part = connection.recv(min(count, 1 << 16))
        if not part:
            raise EOFError(f"{count} bytes are missing")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def receive_all(connection: socket.socket) -> bytes:
    """Receive until the other end closes its half."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def unused_port() -> int:
    """Return a port of the loopback where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_it_blocks(function: Callable[..., Any], *arguments: Any) -> int:
    """Repeat a call on a non-blocking file until it would block; return the sum of the counts it returned."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while total < 1 << 30:
            result = function(*arguments)
            total += result if isinstance(result, int) else len(result)
        raise AssertionError("it never blocks")
    return total
