"""Sorted sets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from ..connection import UNSET, Encoding
from ..replies import as_score, as_scored, scanned
from .sending import Key, Result, Sending, following, integer, limits, matching, number

INFINITY = float("inf")


class SortedSetCommands(Sending):
    """Commands on sorted sets."""

    ZSET_EXCLUDE_MIN = "ZSET_EXCLUDE_MIN"
    ZSET_EXCLUDE_MAX = "ZSET_EXCLUDE_MAX"
    ZSET_EXCLUDE_BOTH = "ZSET_EXCLUDE_BOTH"
    ZSET_AGGREGATE_SUM = "ZSET_AGGREGATE_SUM"
    ZSET_AGGREGATE_MIN = "ZSET_AGGREGATE_MIN"
    ZSET_AGGREGATE_MAX = "ZSET_AGGREGATE_MAX"
    ZSET_IF_NOT_EXIST = "ZSET_IF_NOT_EXIST"
    ZSET_IF_EXIST = "ZSET_IF_EXIST"

    def zadd(self, key: Key, score: float, member: Any, *pairs: Any, exist: str | None = None) -> Result:
        """Add members, or set their scores: score, member, score, member; return how many are new."""
        if len(pairs) % 2:
            raise TypeError("length of pairs must be even number")
        for one in (score, *pairs[::2]):
            number("score", one)
        condition = {None: (), self.ZSET_IF_EXIST: ("XX",), self.ZSET_IF_NOT_EXIST: ("NX",)}[exist]
        return self._do("ZADD", key, *condition, score, member, *pairs)

    def zcard(self, key: Key) -> Result:
        """Return how many members there are."""
        return self._do("ZCARD", key)

    def zcount(
        self, key: Key, min: float = -INFINITY, max: float = INFINITY, *, exclude: str | None = None
    ) -> Result:
        """Return how many members have a score between two."""
        if number("min", min) > number("max", max):
            raise ValueError("min could not be greater than max")
        return self._do("ZCOUNT", key, *self._bounds(exclude, min, max))

    def zincrby(self, key: Key, increment: float, member: Any) -> Result:
        """Add to a score; return the sum."""
        return self._do("ZINCRBY", key, number("increment", increment), member, to=as_score)

    def zscore(self, key: Key, member: Any) -> Result:
        """Return a score, or None."""
        return self._do("ZSCORE", key, member, to=as_score)

    def zrank(self, key: Key, member: Any) -> Result:
        """Return a member's place from the lowest score, or None."""
        return self._do("ZRANK", key, member)

    def zrevrank(self, key: Key, member: Any) -> Result:
        """Return a member's place from the highest score, or None."""
        return self._do("ZREVRANK", key, member)

    def zrem(self, key: Key, member: Any, *members: Any) -> Result:
        """Remove members; return how many there were."""
        return self._do("ZREM", key, member, *members)

    def zrange(
        self,
        key: Key,
        start: int = 0,
        stop: int = -1,
        withscores: bool = False,
        encoding: Encoding = UNSET,
    ) -> Result:
        """Return members by their place, or (member, score) pairs."""
        return self._range("ZRANGE", key, _places(start, stop), withscores, encoding)

    def zrevrange(
        self, key: Key, start: int, stop: int, withscores: bool = False, encoding: Encoding = UNSET
    ) -> Result:
        """Return members by their place from the highest score, or (member, score) pairs."""
        return self._range("ZREVRANGE", key, _places(start, stop), withscores, encoding)

    def _range(
        self,
        command: str,
        key: Key,
        bounds: tuple[Any, Any],
        withscores: bool,
        encoding: Encoding,
        limited: Sequence[Any] = (),
    ) -> Result:
        words = [*bounds, *(["WITHSCORES"] if withscores else []), *limited]
        return self._do(command, key, *words, encoding=encoding, to=as_scored if withscores else None)

    def zrangebyscore(
        self,
        key: Key,
        min: float = -INFINITY,
        max: float = INFINITY,
        withscores: bool = False,
        offset: int | None = None,
        count: int | None = None,
        *,
        exclude: str | None = None,
        encoding: Encoding = UNSET,
    ) -> Result:
        """Return members by their score, or (member, score) pairs."""
        bounds = self._bounds(exclude, min, max)
        return self._range("ZRANGEBYSCORE", key, bounds, withscores, encoding, limits(offset, count))

    def zrevrangebyscore(
        self,
        key: Key,
        max: float = INFINITY,
        min: float = -INFINITY,
        *,
        exclude: str | None = None,
        withscores: bool = False,
        offset: int | None = None,
        count: int | None = None,
        encoding: Encoding = UNSET,
    ) -> Result:
        """Return members by their score, from the highest, or (member, score) pairs."""
        low, high = self._bounds(exclude, min, max)
        return self._range("ZREVRANGEBYSCORE", key, (high, low), withscores, encoding, limits(offset, count))

    def _bounds(self, exclude: str | None, low: float, high: float) -> tuple[Any, Any]:
        number("min", low)
        number("max", high)
        return (
            f"({low}" if exclude in (self.ZSET_EXCLUDE_MIN, self.ZSET_EXCLUDE_BOTH) else low,
            f"({high}" if exclude in (self.ZSET_EXCLUDE_MAX, self.ZSET_EXCLUDE_BOTH) else high,
        )

    def zlexcount(
        self,
        key: Key,
        min: bytes = b"-",
        max: bytes = b"+",
        include_min: bool = True,
        include_max: bool = True,
    ) -> Result:
        """Return how many members are between two."""
        return self._do("ZLEXCOUNT", key, *_lexical(min, max, include_min, include_max))

    def zrangebylex(
        self,
        key: Key,
        min: bytes = b"-",
        max: bytes = b"+",
        include_min: bool = True,
        include_max: bool = True,
        offset: int | None = None,
        count: int | None = None,
        encoding: Encoding = UNSET,
    ) -> Result:
        """Return the members between two."""
        words = (*_lexical(min, max, include_min, include_max), *limits(offset, count))
        return self._do("ZRANGEBYLEX", key, *words, encoding=encoding)

    def zrevrangebylex(
        self,
        key: Key,
        min: bytes = b"-",
        max: bytes = b"+",
        include_min: bool = True,
        include_max: bool = True,
        offset: int | None = None,
        count: int | None = None,
        encoding: Encoding = UNSET,
    ) -> Result:
        """Return the members between two, from the last."""
        low, high = _lexical(min, max, include_min, include_max)
        return self._do("ZREVRANGEBYLEX", key, high, low, *limits(offset, count), encoding=encoding)

    def zremrangebylex(
        self,
        key: Key,
        min: bytes = b"-",
        max: bytes = b"+",
        include_min: bool = True,
        include_max: bool = True,
    ) -> Result:
        """Remove the members between two; return how many."""
        return self._do("ZREMRANGEBYLEX", key, *_lexical(min, max, include_min, include_max))

    def zremrangebyrank(self, key: Key, start: int, stop: int) -> Result:
        """Remove members by their place; return how many."""
        return self._do("ZREMRANGEBYRANK", key, *_places(start, stop))

    def zremrangebyscore(
        self, key: Key, min: float = -INFINITY, max: float = INFINITY, *, exclude: str | None = None
    ) -> Result:
        """Remove members by their score; return how many."""
        return self._do("ZREMRANGEBYSCORE", key, *self._bounds(exclude, min, max))

    def zinterstore(
        self, destkey: Key, key: Key, *keys: Key, with_weights: bool = False, aggregate: str | None = None
    ) -> Result:
        """Store what all sets have; with weights, each is (key, weight)."""
        return self._store("ZINTERSTORE", destkey, (key, *keys), with_weights, aggregate)

    def zunionstore(
        self, destkey: Key, key: Key, *keys: Key, with_weights: bool = False, aggregate: str | None = None
    ) -> Result:
        """Store what any set has; with weights, each is (key, weight)."""
        return self._store("ZUNIONSTORE", destkey, (key, *keys), with_weights, aggregate)

    def _store(
        self, command: str, destkey: Key, keys: tuple[Any, ...], with_weights: bool, aggregate: str | None
    ) -> Result:
        words: list[Any] = [key for key, _ in keys] if with_weights else list(keys)
        if with_weights:
            words += ["WEIGHTS", *(weight for _, weight in keys)]
        if aggregate is not None:
            words += ["AGGREGATE", aggregate.removeprefix("ZSET_AGGREGATE_")]
        return self._do(command, destkey, len(keys), *words)

    def zpopmin(self, key: Key, count: int | None = None, *, encoding: Encoding = UNSET) -> Result:
        """Take the members with the lowest scores: member, score, ... in one list."""
        return self._do("ZPOPMIN", key, *(() if count is None else (count,)), encoding=encoding)

    def zpopmax(self, key: Key, count: int | None = None, *, encoding: Encoding = UNSET) -> Result:
        """Take the members with the highest scores: member, score, ... in one list."""
        return self._do("ZPOPMAX", key, *(() if count is None else (count,)), encoding=encoding)

    def zscan(self, key: Key, cursor: int = 0, match: Any = None, count: int | None = None) -> Result:
        """Return some members: (next cursor, pairs)."""
        return self._do("ZSCAN", key, cursor, *matching(match, count), to=scanned(as_scored))

    def izscan(self, key: Key, *, match: Any = None, count: int | None = None) -> AsyncIterator[Any]:
        """Return all members, pair by pair."""
        return following(lambda cursor: self.zscan(key, cursor, match, count))


def _places(start: int, stop: int) -> tuple[Any, Any]:
    return integer("start", start), integer("stop", stop)


def _lexical(low: bytes, high: bytes, include_low: bool, include_high: bool) -> tuple[bytes, bytes]:
    for name, bound in (("min", low), ("max", high)):
        if not isinstance(bound, bytes):
            raise TypeError(f"{name} argument must be bytes")
    return (
        low if low == b"-" else (b"[" if include_low else b"(") + low,
        high if high == b"+" else (b"[" if include_high else b"(") + high,
    )
