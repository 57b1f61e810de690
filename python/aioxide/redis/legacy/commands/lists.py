"""Lists."""

from __future__ import annotations

from typing import Any

from ..connection import UNSET, Encoding
from ..replies import ok
from .sending import Key, Result, Sending, integer


class ListCommands(Sending):
    """Commands on lists."""

    def lpush(self, key: Key, value: Any, *values: Any) -> Result:
        """Put values in front; return the length."""
        return self._do("LPUSH", key, value, *values)

    def rpush(self, key: Key, value: Any, *values: Any) -> Result:
        """Append values; return the length."""
        return self._do("RPUSH", key, value, *values)

    def lpushx(self, key: Key, value: Any) -> Result:
        """Put a value in front of a list that exists."""
        return self._do("LPUSHX", key, value)

    def rpushx(self, key: Key, value: Any) -> Result:
        """Append a value to a list that exists."""
        return self._do("RPUSHX", key, value)

    def lpop(self, key: Key, *, encoding: Encoding = UNSET) -> Result:
        """Take the first value, or None."""
        return self._do("LPOP", key, encoding=encoding)

    def rpop(self, key: Key, *, encoding: Encoding = UNSET) -> Result:
        """Take the last value, or None."""
        return self._do("RPOP", key, encoding=encoding)

    def lrange(self, key: Key, start: int, stop: int, *, encoding: Encoding = UNSET) -> Result:
        """Return a part of a list."""
        return self._do("LRANGE", key, integer("start", start), integer("stop", stop), encoding=encoding)

    def llen(self, key: Key) -> Result:
        """Return the length."""
        return self._do("LLEN", key)

    def lindex(self, key: Key, index: int, *, encoding: Encoding = UNSET) -> Result:
        """Return a value by its place."""
        return self._do("LINDEX", key, integer("index", index), encoding=encoding)

    def linsert(self, key: Key, pivot: Any, value: Any, before: bool = False) -> Result:
        """Insert a value next to another; return the length, -1 where that is not there."""
        return self._do("LINSERT", key, "BEFORE" if before else "AFTER", pivot, value)

    def lrem(self, key: Key, count: int, value: Any) -> Result:
        """Remove values; return how many."""
        return self._do("LREM", key, integer("count", count), value)

    def lset(self, key: Key, index: int, value: Any) -> Result:
        """Set a value by its place."""
        return self._do("LSET", key, integer("index", index), value, to=ok)

    def ltrim(self, key: Key, start: int, stop: int) -> Result:
        """Keep a part of a list."""
        return self._do("LTRIM", key, integer("start", start), integer("stop", stop), to=ok)

    def rpoplpush(self, sourcekey: Key, destkey: Key, *, encoding: Encoding = UNSET) -> Result:
        """Move the last value of a list to the front of another."""
        return self._do("RPOPLPUSH", sourcekey, destkey, encoding=encoding)

    def blpop(self, key: Key, *keys: Key, timeout: int = 0, encoding: Encoding = UNSET) -> Result:
        """Wait for a first value: [key, value], or None when the time is up."""
        return self._do("BLPOP", key, *keys, integer("timeout", timeout), encoding=encoding)

    def brpop(self, key: Key, *keys: Key, timeout: int = 0, encoding: Encoding = UNSET) -> Result:
        """Wait for a last value: [key, value], or None when the time is up."""
        return self._do("BRPOP", key, *keys, integer("timeout", timeout), encoding=encoding)

    def brpoplpush(
        self, sourcekey: Key, destkey: Key, timeout: int = 0, encoding: Encoding = UNSET
    ) -> Result:
        """Wait for a last value and move it to the front of another list."""
        return self._do("BRPOPLPUSH", sourcekey, destkey, integer("timeout", timeout), encoding=encoding)
