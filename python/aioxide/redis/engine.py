"""The native connections behind a client, on one event loop.

All ordinary commands of a client share one connection. A command that blocks in the server gets one of its
own for as long as it takes, from a pool that the client's ``max_connections`` bounds.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.exceptions import ConnectionError, MaxConnectionsError, ResponseError

from aioxide._rust import EventLoop, RedisConnection

from . import exceptions
from .cache import Cache, CachedConnection
from .options import NotNative, connection_settings, sentinel_settings

__all__ = ["Engine"]

_POOLS: dict[type[ConnectionPool], tuple[type[AbstractConnection], ...]] = {
    ConnectionPool: (Connection, SSLConnection, UnixDomainSocketConnection),
    BlockingConnectionPool: (Connection, SSLConnection, UnixDomainSocketConnection),
    SentinelConnectionPool: (SentinelManagedConnection,),
}


class Engine:
    """The native connections of one client on one running loop."""

    def __init__(
        self,
        loop: Any,
        settings: dict[str, Any],
        callbacks: dict[str, Any],
        otherwise: Callable[[tuple[Any, ...], dict[str, Any]], Awaitable[Any]] | None,
        most: int,
        patience: float | None = 0,
        connections: int = 1,
        cache: Cache | None = None,
    ):
        self.loop: Any = loop
        tracks = cache is not None
        self.all_shared = [
            RedisConnection(loop, {**settings, "tracking": tracks}, callbacks, exceptions, tracks, otherwise)
            for _ in range(connections)
        ]
        self._cached = None if cache is None else CachedConnection(self.all_shared[0], cache, loop)
        self._turns = itertools.cycle(self.all_shared)
        self._settings = settings
        self._callbacks = callbacks
        self._stall_timeout = settings["stall_timeout"]
        self._idle: list[RedisConnection] = []
        self._busy: set[RedisConnection] = set()
        self._most = most
        self._patience = patience
        self._released = asyncio.Event()
        self._closed = False

    @classmethod
    def for_pool(
        cls,
        loop: asyncio.AbstractEventLoop,
        pool: ConnectionPool,
        callbacks: dict[str, Any],
        otherwise: Callable[[tuple[Any, ...], dict[str, Any]], Awaitable[Any]],
        *,
        connections: int = 1,
        idempotent: frozenset[str] | None = None,
        cache: Cache | None = None,
    ) -> "Engine | None":
        """Return the engine of a client with this pool; None where only redis-py can do what the pool wants.

        ``otherwise`` gets the commands that do not go over the ``connections`` shared ones; ``idempotent``
        are the names of commands that may be sent again; replies are kept in ``cache``.
        """
        if not isinstance(loop, EventLoop) or pool.connection_class not in _POOLS.get(type(pool), ()):
            return None
        try:
            uses_tls = pool.connection_class is SSLConnection
            settings = connection_settings(pool.connection_kwargs, uses_tls)
            if isinstance(pool, SentinelConnectionPool):
                settings = sentinel_settings(settings, pool)
        except NotNative:
            return None
        settings["idempotent"] = idempotent
        patience = pool.timeout if isinstance(pool, BlockingConnectionPool) else 0
        most = pool.max_connections
        return cls(loop, settings, callbacks, otherwise, most, patience, connections, cache)

    @property
    def shared(self) -> RedisConnection:
        """The shared connection whose turn it is."""
        return next(self._turns)

    @property
    def execute_command(self) -> Callable[..., Awaitable[Any]]:
        """What runs a command on a shared connection, or gives it to ``otherwise``."""
        if self._cached is not None:
            return self._cached.execute_command
        if len(self.all_shared) == 1:
            return self.all_shared[0].execute_command
        return self._execute_in_turn

    def _execute_in_turn(self, *arguments: Any, **options: Any) -> Awaitable[Any]:
        return self.shared.execute_command(*arguments, **options)

    def connection(self) -> RedisConnection:
        """Return another connection with the client's settings, for the caller alone."""
        return RedisConnection(self.loop, self._settings, self._callbacks, exceptions)

    async def execute_blocking(self, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Run a command that may wait in the server, on a connection of its own."""
        seconds = blocking_seconds(arguments)
        connection = await self._lease()
        try:
            stall = None if seconds is None or self._stall_timeout is None else seconds + self._stall_timeout
            connection.set_stall_timeout(stall)
            # What was popped for a connection that died is lost either way; who waits wants the next.
            return await connection.execute(arguments, options, True, _is_repeatable(arguments[0]))
        except ResponseError:
            raise
        except BaseException:
            # It may be blocked in the server for long still.
            connection.close()
            raise
        finally:
            self._release(connection)

    async def _lease(self) -> RedisConnection:
        if len(self._busy) >= self._most:
            # None waits for ever, as redis-py's pool does.
            if self._patience == 0:
                raise MaxConnectionsError("Too many connections")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    while len(self._busy) >= self._most:
                        self._released.clear()
                        await self._released.wait()
        if len(self._busy) >= self._most:
            raise ConnectionError("No connection available.")
        connection = self._idle.pop() if self._idle else self.connection()
        self._busy.add(connection)
        return connection

    def _release(self, connection: RedisConnection) -> None:
        self._busy.discard(connection)
        self._released.set()
        if self._closed:
            connection.close()
        elif connection.stage != "closed":
            self._idle.append(connection)

    def close(self) -> None:
        """Close every connection; who waits gets a ConnectionError."""
        self._closed = True
        if self._cached is not None:
            self._cached.close()
        for connection in self.all_shared:
            connection.close()
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()


def _is_repeatable(name: Any) -> bool:
    word = name.decode() if isinstance(name, bytes) else str(name)
    return not word.upper().startswith("WAIT")


_TIMEOUT_AT = {"BLMPOP": 1, "BZMPOP": 1, "BLMOVEM": 5}
"""Which word of a blocking command is its time-out, where it is not the last one."""


def blocking_seconds(arguments: tuple[Any, ...]) -> float | None:
    """Return how long a blocking command may wait in the server, in seconds; None for as long as it takes."""
    words = [argument.decode() if isinstance(argument, bytes) else argument for argument in arguments]
    name = str(words[0]).upper()
    try:
        if name in ("XREAD", "XREADGROUP"):
            upper = [str(word).upper() for word in words]
            seconds = float(words[upper.index("BLOCK") + 1]) / 1000
        elif name in ("WAIT", "WAITAOF"):
            seconds = float(words[-1]) / 1000
        else:
            seconds = float(words[_TIMEOUT_AT.get(name, -1)])
    except (ValueError, IndexError, TypeError):
        # The server will say what is wrong.
        return 0.0
    return seconds or None
