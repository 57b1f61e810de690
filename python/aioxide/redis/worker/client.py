"""The client that a worker makes for itself when it is given an address; the one place that chooses it."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis


def connect(url: str) -> Redis:
    """Make a client that the worker closes."""
    client: Any = Redis.from_url(url)
    return client  # type: ignore[no-any-return]
