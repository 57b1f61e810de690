"""Programs as the users of other people's libraries write them, on stock asyncio and on both drivers.

One file per library, each a page of what its users do, against a real counterpart on the loopback. A test
takes `loop` (tests/conftest.py), which demands that nothing is left behind; a library that makes a loop of
its own gets `loop_factory`; one that is started as a program gets `loop_environment`. `requirements.txt` pins
the libraries; `pytest.importorskip` at the head of a file skips it where its library cannot be had.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from children import without_debug_mode
from recorder import forget_failed_handshakes


@pytest.fixture
def loop_environment(loop_name: str, loop_factory: object) -> dict[str, str]:
    """Make the environment in which `aioxide:new_event_loop` uses the driver under test."""
    chosen = {"AIOXIDE_DRIVER": loop_name} if loop_name in ("uring", "epoll") else {}
    return without_debug_mode(**chosen, PYTHONWARNINGS="always::ResourceWarning")


@functools.cache
def certificate() -> tuple[trustme.CA, trustme.LeafCert]:
    """Return an authority and the certificate of this machine that it signed."""
    authority = trustme.CA()
    return authority, authority.issue_cert("localhost", "127.0.0.1")


@pytest.fixture
def server_tls() -> ssl.SSLContext:
    """Make the context of a server on this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate()[1].configure_cert(context)
    return context


@pytest.fixture
def client_tls() -> ssl.SSLContext:
    """Make the context of a client that trusts such a server and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate()[0].configure_trust(context)
    return context


@pytest.fixture
def failed_handshakes(loop: asyncio.AbstractEventLoop, reported: list[dict[str, Any]]) -> Iterator[None]:
    """The test has handshakes that a server cannot complete."""
    yield
    forget_failed_handshakes(loop, reported)


@pytest.fixture
def certificate_file(tmp_path: Path) -> str:
    """Write the key and the certificate of a server on this machine to one file, for a program."""
    path = tmp_path / "server.pem"
    certificate()[1].private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)
