"""The client that a worker makes for itself when it is given an address; the one place that chooses it."""

from __future__ import annotations

from ..client import Redis


def connect(url: str) -> Redis:
    """Make a client that the worker closes."""
    client = Redis.from_url(url)
    assert isinstance(client, Redis)
    return client
