"""No more file descriptors: none at all, or exactly as many as a test allows."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from socket import socket

import pytest


@pytest.fixture
def few_files() -> Iterator[None]:
    """Lower the limit of open files; io_uring keeps the limit it saw when an operation was submitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def no_more_files(but: int = 0) -> Iterator[list[socket]]:
    """Let this process open `but` further files and no more, below the limit of `few_files`."""
    opened: list[socket] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(socket())
        for _ in range(but):
            opened.pop().close()
        yield opened
    finally:
        for sock in opened:
            sock.close()
