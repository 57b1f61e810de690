"""The client: redis-py's in every respect but the way its commands take."""

import asyncio
import functools
import inspect
import weakref
from collections.abc import Awaitable, Iterable
from typing import Any, cast

import redis.asyncio
from redis.exceptions import RedisError

from .._rust import _redis_route
from .cache import Cache, CacheConfig
from .engine import Engine
from .pipeline import Pipeline

__all__ = ["Redis", "StrictRedis", "from_url"]


def _otherwise(
    client: "weakref.ref[Redis]", arguments: tuple[Any, ...], options: dict[str, Any]
) -> Awaitable[Any]:
    """Return an awaitable of a command that the shared connection does not take."""
    owner = client()
    if owner is None:
        raise RuntimeError("the Redis client is gone")
    return owner._execute_otherwise(arguments, options)


class Redis(redis.asyncio.Redis):
    """redis-py's asyncio client on native connections.

    It takes redis-py's arguments, has its commands and raises its exceptions. All ordinary commands of a
    client share one connection: those that are issued together leave in one write, a caller that is cancelled
    gives up its own reply and nothing else. Commands that block in the server, transactions with WATCH and
    subscriptions use connections of their own. On an event loop that is not aioxide's it is redis-py's client
    and nothing more.
    """

    def __init__(
        self,
        *arguments: Any,
        connections: int = 1,
        idempotent: Iterable[str] = (),
        cache_config: CacheConfig | None = None,
        **keywords: Any,
    ) -> None:
        """Make a client; it connects with the first command.

        Beyond redis-py's arguments: ``connections`` is how many connections share the ordinary commands, and
        ``idempotent`` names commands that may run twice: they are sent again where a connection died before
        their reply. With ``cache_config`` replies are kept until the server says that they changed; it takes
        RESP3 and one shared connection.
        """
        if connections < 1:
            raise ValueError(f"connections must be 1 or more, not {connections}")
        if cache_config is not None and connections > 1:
            raise ValueError("a client with a cache has one shared connection")
        self.cache: Cache | None = None
        self._engine: Engine | None = None
        self._has_asynchronous_callbacks = False
        self._native_options: dict[str, Any] = {
            "connections": connections,
            "idempotent": frozenset(name.upper() for name in idempotent) or None,
        }
        super().__init__(*arguments, **keywords)
        if cache_config is not None:
            if self.connection_pool.connection_kwargs.get("protocol") not in (None, 3, "3"):
                raise RedisError("Client caching is only supported with RESP version 3")
            encode = self.get_encoder().encode
            self.cache = Cache(cache_config, lambda value: bytes(encode(value)))

    def execute_command(self, *arguments: Any, **options: Any) -> Awaitable[Any]:
        """Return an awaitable of the reply to a command."""
        engine = self.native_engine()
        if engine is None:
            return super().execute_command(*arguments, **options)
        return engine.execute_command(*arguments, **options)

    def _execute_otherwise(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Awaitable[Any]:
        """Run what the shared connection did not take: another loop's, or what needs its own connection."""
        before = self._engine
        engine = self.native_engine()
        if engine is None:
            return super().execute_command(*arguments, **options)
        if engine is not before:
            return engine.execute_command(*arguments, **options)
        if _redis_route(arguments) == "blocking":
            return engine.execute_blocking(arguments, options)
        return super().execute_command(*arguments, **options)

    def native_engine(self) -> Engine | None:
        """Return the native connections on the loop that runs; None where redis-py's own are to be used."""
        if self.single_connection_client or self._has_asynchronous_callbacks:
            return None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        engine = self._engine
        if engine is None or engine.loop is not loop:
            otherwise = functools.partial(_otherwise, weakref.ref(self))
            pool, callbacks = self.connection_pool, cast(dict[str, Any], self.response_callbacks)
            options = {**self._native_options, "cache": self.cache}
            engine = Engine.for_pool(loop, pool, callbacks, otherwise, **options)
            self._use(engine)
        return engine

    def _use(self, engine: Engine | None) -> None:
        """Let commands go straight to an engine's shared connection, or no more."""
        self._engine = engine
        self.__dict__.pop("execute_command", None)
        if engine is not None and type(self).execute_command is Redis.execute_command:
            self.__dict__["execute_command"] = engine.execute_command

    def set_response_callback(self, command: str, callback: Any) -> None:
        """Set what shapes the replies to a command."""
        super().set_response_callback(command, callback)
        if inspect.iscoroutinefunction(callback):
            # Only redis-py's own way awaits it.
            self._has_asynchronous_callbacks = True
            self._use(None)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline: commands that leave in one write, as one transaction unless told otherwise."""
        pool, callbacks = self.connection_pool, self.response_callbacks
        return Pipeline(pool, callbacks, transaction, shard_hint, self)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the client's connections; who waits for a reply gets a ConnectionError."""
        engine = self._engine
        self._use(None)
        if engine is not None:
            engine.close()
        await super().aclose(close_connection_pool)


StrictRedis = Redis


def from_url(url: str, **keywords: Any) -> Redis:
    """Return a client of the server that a redis://, rediss:// or unix:// URL names."""
    return cast(Redis, Redis.from_url(url, **keywords))
