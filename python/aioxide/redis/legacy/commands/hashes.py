"""Hashes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ..connection import UNSET, Encoding
from ..replies import as_dict, as_float, as_pairs, ok, scanned
from .sending import Key, Result, Sending, following, integer, matching, number


class HashCommands(Sending):
    """Commands on hashes."""

    def hset(self, key: Key, field: Any, value: Any) -> Result:
        """Set a field; 1 if it is new."""
        return self._do("HSET", key, field, value)

    def hsetnx(self, key: Key, field: Any, value: Any) -> Result:
        """Set a field if there is none; 1 if it was set."""
        return self._do("HSETNX", key, field, value)

    def hget(self, key: Key, field: Any, *, encoding: Encoding = UNSET) -> Result:
        """Return a field, or None."""
        return self._do("HGET", key, field, encoding=encoding)

    def hgetall(self, key: Key, *, encoding: Encoding = UNSET) -> Result:
        """Return all fields as a dictionary."""
        return self._do("HGETALL", key, encoding=encoding, to=as_dict)

    def hmget(self, key: Key, field: Any, *fields: Any, encoding: Encoding = UNSET) -> Result:
        """Return the values of fields."""
        return self._do("HMGET", key, field, *fields, encoding=encoding)

    def hmset(self, key: Key, field: Any, value: Any, *pairs: Any) -> Result:
        """Set fields: field, value, field, value."""
        if len(pairs) % 2:
            raise TypeError("length of pairs must be even number")
        return self._do("HMSET", key, field, value, *pairs, to=ok)

    def hmset_dict(self, key: Key, *dictionaries: dict[Any, Any], **fields: Any) -> Result:
        """Set fields: a dictionary, keywords, or both."""
        if not dictionaries and not fields:
            raise TypeError("args or kwargs must be specified")
        merged: dict[Any, Any] = {}
        for one in dictionaries:
            if not isinstance(one, dict):
                raise TypeError("args must be dicts")
            merged |= one
        merged |= fields
        if not merged:
            raise ValueError("the dictionary is empty")
        return self._do("HMSET", key, *(word for pair in merged.items() for word in pair), to=ok)

    def hdel(self, key: Key, field: Any, *fields: Any) -> Result:
        """Delete fields; return how many there were."""
        return self._do("HDEL", key, field, *fields)

    def hexists(self, key: Key, field: Any) -> Result:
        """Tell whether there is a field."""
        return self._do("HEXISTS", key, field, to=bool)

    def hincrby(self, key: Key, field: Any, increment: int = 1) -> Result:
        """Add to a field; return the sum."""
        return self._do("HINCRBY", key, field, integer("increment", increment))

    def hincrbyfloat(self, key: Key, field: Any, increment: float = 1.0) -> Result:
        """Add a fraction to a field; return the sum."""
        return self._do("HINCRBYFLOAT", key, field, number("increment", increment), to=as_float)

    def hkeys(self, key: Key, *, encoding: Encoding = UNSET) -> Result:
        """Return the names of all fields."""
        return self._do("HKEYS", key, encoding=encoding)

    def hvals(self, key: Key, *, encoding: Encoding = UNSET) -> Result:
        """Return the values of all fields."""
        return self._do("HVALS", key, encoding=encoding)

    def hlen(self, key: Key) -> Result:
        """Return how many fields there are."""
        return self._do("HLEN", key)

    def hstrlen(self, key: Key, field: Any) -> Result:
        """Return the length of a field."""
        return self._do("HSTRLEN", key, field)

    def hscan(self, key: Key, cursor: int = 0, match: Any = None, count: int | None = None) -> Result:
        """Return some fields: (next cursor, pairs)."""
        return self._do("HSCAN", key, cursor, *matching(match, count), to=scanned(as_pairs))

    def ihscan(self, key: Key, *, match: Any = None, count: int | None = None) -> AsyncIterator[Any]:
        """Return all fields, pair by pair."""
        return following(lambda cursor: self.hscan(key, cursor, match, count))
