"""What the chapters share: how a command is sent, and how a cursor is followed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..connection import UNSET, Encoding
from ..replies import Convert

Key = Any
Result = asyncio.Future[Any]


class Sending(ABC):
    """Something that takes commands."""

    @abstractmethod
    def send(self, words: tuple[Any, ...], encoding: Encoding, convert: Convert | None) -> Result:
        """Take a command; return a future of its result."""

    def _do(self, *words: Any, encoding: Encoding = UNSET, to: Convert | None = None) -> Result:
        return self.send(words, encoding, to)


def matching(match: Any, count: int | None) -> list[Any]:
    """Return the options of a SCAN."""
    return [
        *(("MATCH", match) if match is not None else ()),
        *(("COUNT", count) if count is not None else ()),
    ]


async def following(scan: Callable[[int], Result]) -> AsyncIterator[Any]:
    """Return everything that a SCAN finds, one by one."""
    cursor = 0
    while True:
        cursor, found = await scan(cursor)
        for one in found:
            yield one
        if not cursor:
            return


def integer(name: str, value: Any) -> int:
    """Return an argument that must be an integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} argument must be int, not {value!r}")
    return value


def number(name: str, value: Any) -> int | float:
    """Return an argument that must be a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} argument must be int or float, not {value!r}")
    return value


def limits(offset: int | None, count: int | None) -> list[Any]:
    """Return LIMIT, of which both numbers are given or none."""
    if (offset is None) != (count is None):
        raise TypeError("offset and count must both be specified")
    if offset is None:
        return []
    return ["LIMIT", integer("offset", offset), integer("count", count)]
