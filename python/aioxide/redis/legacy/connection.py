"""Where commands go: a client of aioxide's under aioredis 1's names of connections and pools.

Commands are sent when they are called, not when they are awaited, as aioredis 1 had it: a call returns a
future. Replies arrive raw, because the client's own converters are taken out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any

from redis.asyncio.connection import BlockingConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from ..client import Redis as Client
from .channels import Channel, Subscriptions
from .errors import ConnectionClosedError, PoolClosedError
from .replies import Convert, decoded

Address = str | tuple[str, int]


class Unset:
    """Stands for an argument that was not given, where None means something."""


UNSET = Unset()
Encoding = str | None | Unset


def words_of(words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Check what is sent: bytes, text and numbers, as aioredis 1 does."""
    for word in words:
        if isinstance(word, bool) or not isinstance(word, (bytes, bytearray, str, int, float)):
            raise TypeError(f"an argument of a command is bytes, str, int or float, not {word!r}")
    return tuple(bytes(word) if isinstance(word, bytearray) else word for word in words)


def make_client(settings: Mapping[str, Any]) -> Client:
    """Make a client whose replies are raw, and whose users wait when all its connections are taken."""
    # RESP2's replies are those that aioredis 1 knew.
    client = Client(**settings, protocol=2, retry=Retry(ExponentialBackoff(cap=0.5, base=0.01), 3))
    if not client.single_connection_client:
        pool = client.connection_pool
        waiting = BlockingConnectionPool(
            max_connections=pool.max_connections,
            timeout=None,
            connection_class=pool.connection_class,
            **pool.connection_kwargs,
        )
        client = Client(connection_pool=waiting)
        client.auto_close_connection_pool = True
    # They turn replies into redis-py's shapes.
    client.response_callbacks.clear()
    return client


class Connection:
    """A client of one database, with aioredis 1's methods of a connection or a pool of them."""

    def __init__(self, settings: Mapping[str, Any], encoding: str | None) -> None:
        self._settings = dict(settings)
        self.encoding = encoding
        self.client = make_client(self._settings)
        self._subscriptions: Subscriptions | None = None
        self._running: set[asyncio.Future[Any]] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def db(self) -> int:
        """Return the number of the database."""
        return int(self._settings["db"])

    @property
    def closed(self) -> bool:
        """Tell whether it has been closed."""
        return self._closing is not None

    def execute(self, command: bytes | str, *words: Any, encoding: Encoding = UNSET) -> asyncio.Future[Any]:
        """Send a command; return a future of its reply."""
        return self.send((command, *words), encoding, None)

    def send(
        self, words: tuple[Any, ...], encoding: Encoding, convert: Convert | None
    ) -> asyncio.Future[Any]:
        """Send a command now; return a future of its reply, decoded and converted."""
        if self.closed:
            raise self._closed_error()
        command, *arguments = words_of(words)
        name = command.decode() if isinstance(command, bytes) else command
        codec = self.encoding if isinstance(encoding, Unset) else encoding
        running = asyncio.ensure_future(self._run((name.upper(), *arguments), codec, convert))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return running

    async def _run(self, words: tuple[Any, ...], encoding: str | None, convert: Convert | None) -> Any:
        reply = decoded(await self.client.execute_command(*words), encoding)
        return reply if convert is None else convert(reply)

    def _closed_error(self) -> Exception:
        return ConnectionClosedError("the connection is closed")

    async def select(self, db: int) -> bool:
        """Use another database from now on."""
        if isinstance(db, bool) or not isinstance(db, int):
            raise TypeError(f"the number of a database is an int, not {db!r}")
        if db < 0:
            raise ValueError(f"the number of a database is not negative: {db}")
        return await self._reconnect(db=db)

    async def auth(self, password: str) -> bool:
        """Use a password from now on."""
        return await self._reconnect(password=password)

    async def _reconnect(self, **changes: Any) -> bool:
        """Go on with other settings, if the server accepts them."""
        client = make_client({**self._settings, **changes})
        try:
            is_right = await client.execute_command("PING")
        except BaseException:
            await client.aclose()
            raise
        former, self.client = self.client, client
        self._settings.update(changes)
        # What was sent before has a right to its reply.
        if self._running:
            await asyncio.wait(list(self._running))
        await former.aclose()
        return bool(is_right)

    @property
    def subscriptions(self) -> Subscriptions:
        """Return what is subscribed, on a connection of its own."""
        if self.closed:
            raise self._closed_error()
        if self._subscriptions is None:
            self._subscriptions = Subscriptions(self.client)
        return self._subscriptions

    @property
    def pubsub_channels(self) -> dict[bytes, Channel]:
        """Return the channels that are subscribed, by name."""
        return self._subscriptions.channels if self._subscriptions else {}

    @property
    def pubsub_patterns(self) -> dict[bytes, Channel]:
        """Return the patterns that are subscribed, by name."""
        return self._subscriptions.patterns if self._subscriptions else {}

    @property
    def in_pubsub(self) -> int:
        """Return how many channels and patterns are subscribed."""
        return len(self.pubsub_channels) + len(self.pubsub_patterns)

    def close(self) -> None:
        """Begin to close; `wait_closed` waits until it is done."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def wait_closed(self) -> None:
        """Wait until it is closed."""
        if self._closing is not None:
            await self._closing

    async def _close(self) -> None:
        if self._subscriptions is not None:
            await self._subscriptions.close()
        for running in list(self._running):
            running.cancel()
        await self.client.aclose()


class ConnectionsPool(Connection):
    """What `create_pool` returns: connections for exclusive use, and `execute` for everything else."""

    def __init__(self, settings: Mapping[str, Any], encoding: str | None, minsize: int, maxsize: int) -> None:
        if not 0 <= minsize <= maxsize or maxsize < 1:
            raise ValueError(f"a pool has 0 <= minsize <= maxsize, and room: {minsize}, {maxsize}")
        super().__init__({**settings, "max_connections": maxsize}, encoding)
        self.minsize = minsize
        self.maxsize = maxsize
        self._acquired: set[Connection] = set()
        self._has_room = asyncio.Event()

    @property
    def size(self) -> int:
        """Return how many connections are in use, the shared one included."""
        return 1 + len(self._acquired)

    @property
    def freesize(self) -> int:
        """Return how many connections wait to be used: the shared one."""
        return 1

    async def acquire(self) -> Connection:
        """Return a connection that nobody else uses until it is released."""
        while not self.closed and len(self._acquired) >= self.maxsize:
            self._has_room.clear()
            await self._has_room.wait()
        if self.closed:
            raise self._closed_error()
        settings = {**self._settings, "single_connection_client": True}
        connection = Connection(settings, self.encoding)
        self._acquired.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Give a connection back; it is not used again, since it may be in any state."""
        if connection not in self._acquired:
            raise AssertionError("this connection is not of this pool")
        self._acquired.discard(connection)
        self._has_room.set()
        connection.close()

    @contextlib.asynccontextmanager
    async def get(self) -> AsyncIterator[Connection]:
        """Provide a connection for exclusive use: `async with pool.get() as connection`."""
        connection = await self.acquire()
        try:
            yield connection
        finally:
            self.release(connection)
            await connection.wait_closed()

    def __await__(self) -> Generator[Any, Any, Lease]:
        """Acquire for `with await pool as connection`."""
        connection = yield from self.acquire().__await__()
        return Lease(connection, lambda: self.release(connection))

    async def clear(self) -> None:
        """Close free connections, of which there are none."""

    def _closed_error(self) -> Exception:
        return PoolClosedError("the pool is closed")

    async def _close(self) -> None:
        for connection in list(self._acquired):
            self.release(connection)
            await connection.wait_closed()
        await super()._close()


class Lease:
    """Gives a connection back at the end of a block: `with await pool as connection`."""

    def __init__(self, held: Any, release: Callable[[], None]) -> None:
        self._held = held
        self._release = release

    def __enter__(self) -> Any:
        return self._held

    def __exit__(self, *_: object) -> None:
        self._release()


def settings_of(
    address: Address,
    db: int | None,
    password: str | None,
    ssl: Any,
    encoding: str | None,
    timeout: float | None,
) -> tuple[dict[str, Any], str | None]:
    """Return the client's arguments, and the encoding; what the address says comes first."""
    if timeout is not None and timeout <= 0:
        raise ValueError(f"timeout has to be greater than 0, not {timeout}")
    if ssl is not None and not isinstance(ssl, bool):
        raise NotImplementedError("pass ssl=True or a rediss:// address: contexts are not supported here")
    settings: dict[str, Any] = {"db": db or 0, "password": password, "socket_timeout": None}
    if ssl:
        settings["ssl"] = True
    if not isinstance(address, str):
        settings["host"], settings["port"] = address
    elif "://" not in address:
        settings["unix_socket_path"] = address
    else:
        named: dict[str, Any] = dict(parse_url(address))
        kind = named.pop("connection_class", None)
        encoding = named.pop("encoding", encoding)
        timeout = float(named.pop("timeout", timeout or 0)) or None
        if kind is SSLConnection:
            settings["ssl"] = True
        if "path" in named:
            settings["unix_socket_path"] = named.pop("path")
        settings.update(named)
    settings["socket_connect_timeout"] = timeout
    return settings, encoding


async def connected(connection: Any) -> Any:
    """Return a connection that the server has answered, or close it and raise."""
    try:
        await connection.execute("PING")
    except BaseException:
        connection.close()
        await connection.wait_closed()
        raise
    return connection


async def create_connection(
    address: Address,
    *,
    db: int | None = None,
    password: str | None = None,
    ssl: Any = None,
    encoding: str | None = None,
    timeout: float | None = None,
    loop: Any = None,
) -> Connection:
    """Connect to a server, for one user: a URL, a (host, port), or the path of a Unix socket."""
    settings, encoding = settings_of(address, db, password, ssl, encoding, timeout)
    made = Connection({**settings, "single_connection_client": True}, encoding)
    return await connected(made)


async def create_pool(
    address: Address,
    *,
    db: int | None = None,
    password: str | None = None,
    ssl: Any = None,
    encoding: str | None = None,
    minsize: int = 1,
    maxsize: int = 10,
    timeout: float | None = None,
    create_connection_timeout: float | None = None,
    loop: Any = None,
) -> ConnectionsPool:
    """Connect to a server, for many users."""
    settings, encoding = settings_of(
        address, db, password, ssl, encoding, create_connection_timeout or timeout
    )
    return await connected(ConnectionsPool(settings, encoding, minsize, maxsize))
