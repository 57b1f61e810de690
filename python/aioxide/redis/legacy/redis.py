"""aioredis 1's `Redis`: all commands as methods, on a shared connection or on one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Generator
from typing import Any

from .channels import Channel
from .commands import Commands
from .connection import (
    Address,
    Connection,
    ConnectionsPool,
    Encoding,
    Lease,
    connected,
    settings_of,
)
from .replies import Convert
from .transactions import MultiExec, Pipeline


class Redis(Commands):
    """Commands on a connection or a pool."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._watching: Any = None

    def __repr__(self) -> str:
        return f"<Redis db={self.db}{' closed' if self.closed else ''}>"

    @property
    def connection(self) -> Connection:
        """Return what the commands are sent through."""
        return self._connection

    @property
    def db(self) -> int:
        """Return the number of the database."""
        return self._connection.db

    @property
    def encoding(self) -> str | None:
        """Return the encoding of replies, None for bytes."""
        return self._connection.encoding

    @property
    def closed(self) -> bool:
        """Tell whether it has been closed."""
        return self._connection.closed

    @property
    def in_transaction(self) -> bool:
        """Tell whether MULTI was sent by hand: not through this interface."""
        return False

    def send(
        self, words: tuple[Any, ...], encoding: Encoding, convert: Convert | None
    ) -> asyncio.Future[Any]:
        """Send a command now; return a future of its result."""
        return self._connection.send(words, encoding, convert)

    async def select(self, db: int) -> bool:
        """Use another database from now on."""
        return await self._connection.select(db)

    async def auth(self, password: str) -> bool:
        """Use a password from now on."""
        return await self._connection.auth(password)

    def close(self) -> None:
        """Begin to close; `wait_closed` waits until it is done."""
        self._connection.close()

    async def wait_closed(self) -> None:
        """Wait until it is closed."""
        if self._watching is not None:
            await self.unwatch()
        await self._connection.wait_closed()

    def __await__(self) -> Generator[Any, Any, Lease]:
        """Acquire a connection of a pool for `with await redis as connection`."""
        pool = self._pool()
        connection = yield from pool.acquire().__await__()
        return Lease(Redis(connection), lambda: pool.release(connection))

    @contextlib.asynccontextmanager
    async def get_connection(self) -> AsyncIterator[Redis]:
        """Provide a connection of a pool for exclusive use."""
        async with self._pool().get() as connection:
            yield Redis(connection)

    def _pool(self) -> ConnectionsPool:
        if not isinstance(self._connection, ConnectionsPool):
            raise TypeError("there is no pool: it was made by create_redis")
        return self._connection

    def multi_exec(self) -> MultiExec:
        """Collect commands that are done together."""
        watching, self._watching = self._watching, None
        return MultiExec(self._connection, watching)

    def pipeline(self) -> Pipeline:
        """Collect commands that are sent together."""
        return Pipeline(self._connection)

    async def watch(self, key: Any, *keys: Any) -> bool:
        """Have the next `multi_exec` do nothing if one of these keys changes before."""
        if self._watching is None:
            self._watching = self._connection.client.pipeline(transaction=True)
        await self._watching.watch(key, *keys)
        return True

    async def unwatch(self) -> bool:
        """Forget what is watched."""
        watching, self._watching = self._watching, None
        if watching is not None:
            await watching.reset()
        return True

    @property
    def channels(self) -> dict[bytes, Channel]:
        """Return the channels that are subscribed."""
        return self._connection.pubsub_channels

    @property
    def patterns(self) -> dict[bytes, Channel]:
        """Return the patterns that are subscribed."""
        return self._connection.pubsub_patterns

    @property
    def in_pubsub(self) -> int:
        """Return how many channels and patterns are subscribed."""
        return self._connection.in_pubsub

    async def subscribe(
        self, channel: str | bytes | Channel, *channels: str | bytes | Channel
    ) -> list[Channel]:
        """Subscribe to channels."""
        return await self._connection.subscriptions.subscribe(channel, *channels)

    async def psubscribe(
        self, pattern: str | bytes | Channel, *patterns: str | bytes | Channel
    ) -> list[Channel]:
        """Subscribe to all channels that match patterns."""
        return await self._connection.subscriptions.subscribe(pattern, *patterns, is_pattern=True)

    async def unsubscribe(
        self, channel: str | bytes | Channel, *channels: str | bytes | Channel
    ) -> list[Any]:
        """Unsubscribe from channels."""
        left = await self._connection.subscriptions.unsubscribe(channel, *channels)
        return [[b"unsubscribe", one.name, self.in_pubsub] for one in left]

    async def punsubscribe(
        self, pattern: str | bytes | Channel, *patterns: str | bytes | Channel
    ) -> list[Any]:
        """Unsubscribe from patterns."""
        left = await self._connection.subscriptions.unsubscribe(pattern, *patterns, is_pattern=True)
        return [[b"punsubscribe", one.name, self.in_pubsub] for one in left]

    def publish_json(self, channel: Any, value: Any) -> asyncio.Future[int]:
        """Publish a value as JSON."""
        return self.publish(channel, json.dumps(value))


async def create_redis(
    address: Address,
    *,
    db: int | None = None,
    password: str | None = None,
    ssl: Any = None,
    encoding: str | None = None,
    timeout: float | None = None,
    loop: Any = None,
) -> Redis:
    """Connect to a server: a URL, a (host, port), or the path of a Unix socket."""
    settings, encoding = settings_of(address, db, password, ssl, encoding, timeout)
    return Redis(await connected(Connection(settings, encoding)))


async def create_redis_pool(
    address: Address,
    *,
    db: int | None = None,
    password: str | None = None,
    ssl: Any = None,
    encoding: str | None = None,
    minsize: int = 1,
    maxsize: int = 10,
    timeout: float | None = None,
    loop: Any = None,
) -> Redis:
    """Connect to a server, for many users."""
    settings, encoding = settings_of(address, db, password, ssl, encoding, timeout)
    return Redis(await connected(ConnectionsPool(settings, encoding, minsize, maxsize)))
