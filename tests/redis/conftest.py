"""Fixtures for everything that speaks with Redis."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from services import Service, Unavailable, redis_server


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else can take."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        yield nobody.getsockname()[1]


@pytest.fixture
def unused_port_number() -> int:
    """A port that was free a moment ago, for a server that a test starts again and again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    """A redis-server for the tests of one file."""
    try:
        with redis_server() as service:
            yield service
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def url(server: Service) -> str:
    """Where it is."""
    return f"redis://{server.host}:{server.port}"
