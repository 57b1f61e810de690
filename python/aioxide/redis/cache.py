"""Client-side caching: replies that the server promises to take back (Redis docs, "Client-side caching").

The shared connection asks the server to track what it reads. A reply to a command that only reads is kept
until the server says that one of its keys changed, or until the connection is lost, when nobody would say it
any more.

A reply and what takes it back come over the same connection, in order, so a reply is never kept after it was
taken back.
"""

import asyncio
import copy
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from redis.cache import CacheConfig
from redis.exceptions import RedisError

from aioxide._rust import RedisConnection

__all__ = ["Cache", "CacheConfig"]

_IMMUTABLE = (bytes, str, int, float, bool, type(None))


class Cache:
    """Replies by command, the least recently used ones given up first."""

    def __init__(self, config: CacheConfig, encode: Callable[[Any], bytes]) -> None:
        self.config = config
        self.hits = 0
        self.misses = 0
        self._encode = encode
        self._replies: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._users: dict[bytes, set[tuple[Any, ...]]] = {}

    def __len__(self) -> int:
        return len(self._replies)

    def is_wanted(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
        """Return whether the reply to a command is one to keep: its keys are known, its arguments plain."""
        name = arguments[0]
        return (
            bool(options.get("keys"))
            and isinstance(name, str)
            and self.config.is_allowed_to_cache(name)
            and all(isinstance(argument, _IMMUTABLE) for argument in arguments)
        )

    def get(self, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        """Return whether the reply to a command is known, and the reply, the caller's own."""
        try:
            reply = self._replies[arguments]
        except KeyError:
            self.misses += 1
            return False, None
        self.hits += 1
        self._replies.move_to_end(arguments)
        return True, reply if isinstance(reply, _IMMUTABLE) else copy.deepcopy(reply)

    def put(self, arguments: tuple[Any, ...], keys: Any, reply: Any) -> None:
        """Keep a reply."""
        while self._replies and self.config.is_exceeds_max_size(len(self._replies) + 1):
            self._forget(next(iter(self._replies)))
        self._replies[arguments] = reply if isinstance(reply, _IMMUTABLE) else copy.deepcopy(reply)
        for key in keys:
            self._users.setdefault(self._encode(key), set()).add(arguments)

    def invalidate(self, keys: list[Any] | None) -> None:
        """Forget every reply that one of the keys is part of; None means all keys."""
        if keys is None:
            self.clear()
            return
        for key in keys:
            for arguments in list(self._users.get(self._encode(key), ())):
                self._forget(arguments)

    def clear(self) -> None:
        """Forget everything."""
        self._replies.clear()
        self._users.clear()

    def _forget(self, arguments: tuple[Any, ...]) -> None:
        self._replies.pop(arguments, None)
        # The keys of a command are among its arguments.
        for argument in arguments[1:]:
            users = self._users.get(key := self._encode(argument))
            if users is not None:
                users.discard(arguments)
                if not users:
                    del self._users[key]


class CachedConnection:
    """A shared connection whose replies are kept."""

    def __init__(self, connection: RedisConnection, cache: Cache, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._cache = cache
        task = loop.create_task(_invalidate(connection, cache), name="aioxide.redis invalidations")
        self._end = weakref.finalize(self, task.cancel)
        self._end.atexit = False

    def execute_command(self, *arguments: Any, **options: Any) -> Awaitable[Any]:
        """Return an awaitable of the reply to a command, from the cache if it is there."""
        if not self._cache.is_wanted(arguments, options):
            return self._connection.execute_command(*arguments, **options)
        return self._cached(arguments, options)

    async def _cached(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        is_known, reply = self._cache.get(arguments)
        if is_known:
            return reply
        keys = options["keys"]
        reply = await self._connection.execute_command(*arguments, **options)
        self._cache.put(arguments, keys, reply)
        return reply

    def close(self) -> None:
        """Listen no more."""
        self._end()
        self._cache.clear()


async def _invalidate(connection: RedisConnection, cache: Cache) -> None:
    """Take the server's word for what changed, as long as the connection lives."""
    while True:
        try:
            message = await connection.next_message()
        except RedisError:
            cache.clear()
            if connection.stage == "closed":
                return
            continue
        if isinstance(message, list) and message and message[0] in (b"invalidate", "invalidate"):
            cache.invalidate(message[1])
