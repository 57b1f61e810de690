"""Sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ..connection import UNSET, Encoding
from ..replies import scanned
from .sending import Key, Result, Sending, following, matching


class SetCommands(Sending):
    """Commands on sets."""

    def sadd(self, key: Key, member: Any, *members: Any) -> Result:
        """Add members; return how many are new."""
        return self._do("SADD", key, member, *members)

    def srem(self, key: Key, member: Any, *members: Any) -> Result:
        """Remove members; return how many there were."""
        return self._do("SREM", key, member, *members)

    def smembers(self, key: Key, *, encoding: Encoding = UNSET) -> Result:
        """Return all members, as a list."""
        return self._do("SMEMBERS", key, encoding=encoding)

    def sismember(self, key: Key, member: Any) -> Result:
        """Return 1 for a member, else 0."""
        return self._do("SISMEMBER", key, member)

    def scard(self, key: Key) -> Result:
        """Return how many members there are."""
        return self._do("SCARD", key)

    def spop(self, key: Key, count: int | None = None, *, encoding: Encoding = UNSET) -> Result:
        """Take a member, or a list of several."""
        return self._do("SPOP", key, *(() if count is None else (count,)), encoding=encoding)

    def srandmember(self, key: Key, count: int | None = None, *, encoding: Encoding = UNSET) -> Result:
        """Return a member, or a list of several."""
        return self._do("SRANDMEMBER", key, *(() if count is None else (count,)), encoding=encoding)

    def smove(self, sourcekey: Key, destkey: Key, member: Any) -> Result:
        """Move a member; 1 if there was one."""
        return self._do("SMOVE", sourcekey, destkey, member)

    def sdiff(self, key: Key, *keys: Key) -> Result:
        """Return what the first set has and the others have not."""
        return self._do("SDIFF", key, *keys)

    def sdiffstore(self, destkey: Key, key: Key, *keys: Key) -> Result:
        """Store what the first set has and the others have not; return how many."""
        return self._do("SDIFFSTORE", destkey, key, *keys)

    def sinter(self, key: Key, *keys: Key) -> Result:
        """Return what all sets have."""
        return self._do("SINTER", key, *keys)

    def sinterstore(self, destkey: Key, key: Key, *keys: Key) -> Result:
        """Store what all sets have; return how many."""
        return self._do("SINTERSTORE", destkey, key, *keys)

    def sunion(self, key: Key, *keys: Key) -> Result:
        """Return what any set has."""
        return self._do("SUNION", key, *keys)

    def sunionstore(self, destkey: Key, key: Key, *keys: Key) -> Result:
        """Store what any set has; return how many."""
        return self._do("SUNIONSTORE", destkey, key, *keys)

    def sscan(self, key: Key, cursor: int = 0, match: Any = None, count: int | None = None) -> Result:
        """Return some members: (next cursor, members)."""
        return self._do("SSCAN", key, cursor, *matching(match, count), to=scanned())

    def isscan(self, key: Key, *, match: Any = None, count: int | None = None) -> AsyncIterator[Any]:
        """Return all members, one by one."""
        return following(lambda cursor: self.sscan(key, cursor, match, count))
