"""Keys of any type, scripts, HyperLogLog and geography."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from ..connection import UNSET, Encoding
from ..replies import as_float, as_text, ok, scanned
from .sending import Key, Result, Sending, following, integer, matching


class KeyCommands(Sending):
    """Commands on keys of any type."""

    def delete(self, key: Key, *keys: Key) -> Result:
        """Delete keys; return how many there were."""
        return self._do("DEL", key, *keys)

    def unlink(self, key: Key, *keys: Key) -> Result:
        """Delete keys, freeing their memory later; return how many there were."""
        return self._do("UNLINK", key, *keys)

    def exists(self, key: Key, *keys: Key) -> Result:
        """Return how many of these keys exist."""
        return self._do("EXISTS", key, *keys)

    def touch(self, key: Key, *keys: Key) -> Result:
        """Mark keys as used; return how many there are."""
        return self._do("TOUCH", key, *keys)

    def expire(self, key: Key, timeout: float) -> Result:
        """Have a key expire after seconds; tell whether it exists."""
        if isinstance(timeout, float):
            return self.pexpire(key, int(timeout * 1000))
        return self._do("EXPIRE", key, integer("timeout", timeout), to=bool)

    def expireat(self, key: Key, timestamp: float) -> Result:
        """Have a key expire at a time, in seconds since the epoch."""
        if isinstance(timestamp, float):
            return self.pexpireat(key, int(timestamp * 1000))
        return self._do("EXPIREAT", key, integer("timestamp", timestamp), to=bool)

    def pexpire(self, key: Key, timeout: int) -> Result:
        """Have a key expire after milliseconds."""
        return self._do("PEXPIRE", key, integer("timeout", timeout), to=bool)

    def pexpireat(self, key: Key, timestamp: int) -> Result:
        """Have a key expire at a time, in milliseconds since the epoch."""
        return self._do("PEXPIREAT", key, integer("timestamp", timestamp), to=bool)

    def persist(self, key: Key) -> Result:
        """Have a key not expire; tell whether it would have."""
        return self._do("PERSIST", key, to=bool)

    def ttl(self, key: Key) -> Result:
        """Return in how many seconds a key expires: -1 never, -2 there is none."""
        return self._do("TTL", key)

    def pttl(self, key: Key) -> Result:
        """Return in how many milliseconds a key expires: -1 never, -2 there is none."""
        return self._do("PTTL", key)

    def keys(self, pattern: Any, *, encoding: Encoding = UNSET) -> Result:
        """Return all keys that match."""
        return self._do("KEYS", pattern, encoding=encoding)

    def randomkey(self, *, encoding: Encoding = UNSET) -> Result:
        """Return any key."""
        return self._do("RANDOMKEY", encoding=encoding)

    def rename(self, key: Key, newkey: Key) -> Result:
        """Rename a key."""
        if key == newkey:
            raise ValueError("key and newkey are the same")
        return self._do("RENAME", key, newkey, to=ok)

    def renamenx(self, key: Key, newkey: Key) -> Result:
        """Rename a key if the new name is free."""
        if key == newkey:
            raise ValueError("key and newkey are the same")
        return self._do("RENAMENX", key, newkey, to=bool)

    def type(self, key: Key) -> Result:
        """Return the type of a key."""
        return self._do("TYPE", key)

    def move(self, key: Key, db: int) -> Result:
        """Move a key to another database."""
        return self._do("MOVE", key, integer("db", db), to=bool)

    def dump(self, key: Key) -> Result:
        """Return a key's value in Redis' own format."""
        return self._do("DUMP", key, encoding=None)

    def restore(self, key: Key, ttl: int, value: bytes) -> Result:
        """Make a key from what `dump` returned."""
        return self._do("RESTORE", key, integer("ttl", ttl), value, to=ok)

    def object_encoding(self, key: Key) -> Result:
        """Return how a value is kept in memory."""
        return self._do("OBJECT", "ENCODING", key, encoding="utf-8")

    def object_idletime(self, key: Key) -> Result:
        """Return for how many seconds a key has not been used."""
        return self._do("OBJECT", "IDLETIME", key)

    def object_refcount(self, key: Key) -> Result:
        """Return how often a value is referred to."""
        return self._do("OBJECT", "REFCOUNT", key)

    def sort(
        self,
        key: Key,
        *get_patterns: Any,
        by: Any = None,
        offset: int | None = None,
        count: int | None = None,
        asc: Any = None,
        alpha: bool = False,
        store: Key | None = None,
    ) -> Result:
        """Return the elements of a list, set or sorted set in order, or store them."""
        words: list[Any] = ["BY", by] if by is not None else []
        if offset is not None and count is not None:
            words += ["LIMIT", offset, count]
        for pattern in get_patterns:
            words += ["GET", pattern]
        words += [asc] if asc is not None else []
        words += ["ALPHA"] if alpha else []
        words += ["STORE", store] if store is not None else []
        return self._do("SORT", key, *words)

    def scan(self, cursor: int = 0, match: Any = None, count: int | None = None) -> Result:
        """Return some keys: (next cursor, keys)."""
        return self._do("SCAN", cursor, *matching(match, count), to=scanned())

    def iscan(self, *, match: Any = None, count: int | None = None) -> AsyncIterator[Any]:
        """Return all keys, one by one."""
        return following(lambda cursor: self.scan(cursor, match, count))

    def wait(self, numslaves: int, timeout: int) -> Result:
        """Wait until so many replicas have what was written; return how many have."""
        return self._do("WAIT", numslaves, timeout)

    def eval(self, script: Any, keys: Sequence[Key] = (), args: Sequence[Any] = ()) -> Result:
        """Run a script."""
        return self._do("EVAL", script, len(keys), *keys, *args)

    def evalsha(self, digest: Any, keys: Sequence[Key] = (), args: Sequence[Any] = ()) -> Result:
        """Run a script that the server knows."""
        return self._do("EVALSHA", digest, len(keys), *keys, *args)

    def script_load(self, script: Any) -> Result:
        """Make a script known; return its digest."""
        return self._do("SCRIPT", "LOAD", script)

    def script_exists(self, digest: Any, *digests: Any) -> Result:
        """Return which scripts the server knows, as 1 and 0."""
        return self._do("SCRIPT", "EXISTS", digest, *digests)

    def script_flush(self) -> Result:
        """Forget all scripts."""
        return self._do("SCRIPT", "FLUSH", to=ok)

    def script_kill(self) -> Result:
        """End the script that runs."""
        return self._do("SCRIPT", "KILL", to=ok)

    def pfadd(self, key: Key, value: Any, *values: Any) -> Result:
        """Count elements; tell whether the estimate has changed."""
        return self._do("PFADD", key, value, *values)

    def pfcount(self, key: Key, *keys: Key) -> Result:
        """Return about how many different elements were counted."""
        return self._do("PFCOUNT", key, *keys)

    def pfmerge(self, destkey: Key, sourcekey: Key, *sourcekeys: Key) -> Result:
        """Unite counts."""
        return self._do("PFMERGE", destkey, sourcekey, *sourcekeys, to=ok)

    def geoadd(self, key: Key, longitude: float, latitude: float, member: Any, *more: Any) -> Result:
        """Add places; return how many are new."""
        return self._do("GEOADD", key, longitude, latitude, member, *more)

    def geodist(self, key: Key, member1: Any, member2: Any, unit: str = "m") -> Result:
        """Return the distance of two places."""
        return self._do("GEODIST", key, member1, member2, unit, to=as_float)

    def geohash(self, key: Key, member: Any, *members: Any, encoding: Encoding = UNSET) -> Result:
        """Return places as hashes."""
        return self._do("GEOHASH", key, member, *members, encoding=encoding)

    def geopos(self, key: Key, member: Any, *members: Any) -> Result:
        """Return the coordinates of places, None for those that are not there."""
        return self._do("GEOPOS", key, member, *members, encoding=None, to=_coordinates)


def _coordinates(reply: list[Any]) -> list[tuple[float, ...] | None]:
    return [None if place is None else tuple(float(as_text(one)) for one in place) for place in reply]
