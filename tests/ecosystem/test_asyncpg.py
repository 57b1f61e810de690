"""asyncpg on a real PostgreSQL: a small bank with accounts, transfers, imports and a news channel."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import io
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from services import Service, Unavailable, postgresql_server

asyncpg = pytest.importorskip("asyncpg", reason="asyncpg cannot be had for this Python")

ACCOUNTS = 8


@pytest.fixture(scope="session")
def server() -> Iterator[Service]:
    try:
        with postgresql_server() as service:
            yield service
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["TCP", "Unix", "TLS"])
def options(request: pytest.FixtureRequest, server: Service) -> dict[str, Any]:
    """Say how to connect. PostgreSQL starts TLS on a connection that has begun without."""
    host = server.unix_socket if request.param == "Unix" else server.host
    context: ssl.SSLContext | bool = False
    if request.param == "TLS":
        if server.certificate is None:
            pytest.skip("there is no openssl program to make a certificate with")
        context = ssl.create_default_context(cafile=server.certificate)
    return {"host": host, "port": server.port, "user": "tester", "database": "postgres", "ssl": context}


@asynccontextmanager
async def connected(options: dict[str, Any]) -> AsyncIterator[Any]:
    """Connect for the time of the block."""
    connection = await asyncpg.connect(**options)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def pool_with_accounts(options: dict[str, Any], size: int) -> AsyncIterator[Any]:
    """Make a pool, and a table of accounts that all its connections see."""
    async with asyncpg.create_pool(**options, min_size=1, max_size=size) as pool:
        await pool.execute(
            "DROP TABLE IF EXISTS accounts; CREATE TABLE accounts (id int PRIMARY KEY, balance int)"
        )
        await pool.executemany("INSERT INTO accounts VALUES ($1, 100)", [(n,) for n in range(ACCOUNTS)])
        yield pool


async def test_queries_speak_python_types(loop: asyncio.AbstractEventLoop, options: dict[str, Any]) -> None:
    async with connected(options) as connection:
        row = await connection.fetchrow(
            "SELECT $1::int AS number, $2::text AS word, $3::timestamptz AS moment, $4::numeric AS exact, "
            "$5::int[] AS many, $6::bytea AS blob, NULL AS nothing",
            *(7, "zwölf", datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC), decimal.Decimal("1.10")),
            *([1, 2, 3], bytes(range(256))),
        )
        assert dict(row) == {
            "number": 7,
            "word": "zwölf",
            "moment": datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC),
            "exact": decimal.Decimal("1.10"),
            "many": [1, 2, 3],
            "blob": bytes(range(256)),
            "nothing": None,
        }
        await connection.set_type_codec("json", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        assert await connection.fetchval("SELECT $1::json", {"a": [1, None]}) == {"a": [1, None]}
        # Far more than fits into one socket buffer, both ways.
        text = "x" * (4 << 20)
        assert await connection.fetchval("SELECT $1::text || $1", text) == text * 2


async def test_a_prepared_statement(loop: asyncio.AbstractEventLoop, options: dict[str, Any]) -> None:
    async with connected(options) as connection:
        statement = await connection.prepare(
            "SELECT n, n * $1::int AS product FROM generate_series(1, $2::int) n"
        )
        assert [attribute.name for attribute in statement.get_attributes()] == ["n", "product"]
        for factor in range(50):
            rows = await statement.fetch(factor, 20)
            assert [row["product"] for row in rows] == [factor * number for number in range(1, 21)]
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetchval("SELECT 1 / $1::int", 0)
        assert await connection.fetchval("SELECT 1") == 1


async def test_transactions_nest_and_roll_back(
    loop: asyncio.AbstractEventLoop, options: dict[str, Any]
) -> None:
    async def note(connection: Any, *texts: str | Exception) -> None:
        async with connection.transaction():
            for text in texts:
                if isinstance(text, Exception):
                    raise text
                await connection.execute("INSERT INTO notes VALUES ($1)", text)

    async with connected(options) as connection:
        await connection.execute("CREATE TEMP TABLE notes (text text UNIQUE)")
        async with connection.transaction():
            await connection.execute("INSERT INTO notes VALUES ('kept')")
            with pytest.raises(asyncpg.UniqueViolationError):
                await note(connection, "lost", "kept")
        with pytest.raises(LookupError):
            await note(connection, "lost too", LookupError())
        assert await connection.fetch("SELECT text FROM notes") == [("kept",)]


async def test_cursors_read_piece_by_piece(loop: asyncio.AbstractEventLoop, options: dict[str, Any]) -> None:
    async with connected(options) as connection, connection.transaction():
        query = "SELECT n FROM generate_series(1, 5000) n"
        seen = [row["n"] async for row in connection.cursor(query, prefetch=100)]
        assert seen == list(range(1, 5001))
        cursor = await connection.cursor(query)
        assert await cursor.forward(4000) == 4000
        assert (await cursor.fetchrow())["n"] == 4001
        assert len(await cursor.fetch(2000)) == 999


async def test_copy_in_and_out(
    loop: asyncio.AbstractEventLoop, options: dict[str, Any], tmp_path: Path
) -> None:
    records = [(number, f"name {number}", None if number % 7 else "seven") for number in range(20_000)]
    async with connected(options) as connection:
        await connection.execute("CREATE TEMP TABLE people (id int, name text, mark text)")
        assert await connection.copy_records_to_table("people", records=records) == "COPY 20000"

        async def slow_stream() -> AsyncIterator[bytes]:
            for number in range(20_000, 20_500):
                yield f"{number},name {number},\n".encode()
                await asyncio.sleep(0)

        assert await connection.copy_to_table("people", source=slow_stream(), format="csv") == "COPY 500"

        out = tmp_path / "people.csv"
        await connection.copy_from_table("people", output=out, format="csv", columns=["id", "name"])
        assert out.read_text().splitlines() == [f"{number},name {number}" for number in range(20_500)]

        pieces = io.BytesIO()

        async def collect(data: bytes) -> None:
            await asyncio.sleep(0)
            pieces.write(data)

        await connection.copy_from_query("SELECT id FROM people WHERE mark = $1", "seven", output=collect)
        assert [int(line) for line in pieces.getvalue().split()] == list(range(0, 20_000, 7))

        async def failing_stream() -> AsyncIterator[bytes]:
            yield b"1,one,\n"
            raise LookupError

        with pytest.raises(LookupError):
            await connection.copy_to_table("people", source=failing_stream(), format="csv")
        assert await connection.fetchval("SELECT count(*) FROM people") == 20_500


async def test_notifications_arrive(loop: asyncio.AbstractEventLoop, options: dict[str, Any]) -> None:
    received: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def listen(_connection: Any, _process: int, channel: str, payload: str) -> None:
        received.put_nowait((channel, payload))

    async with connected(options) as listener, connected(options) as speaker:
        await listener.add_listener("news", listen)
        await listener.add_listener("weather", listen)
        for number in range(50):
            await speaker.execute("SELECT pg_notify($1, $2)", "news", str(number))
        async with speaker.transaction():
            await speaker.execute("NOTIFY weather, 'sunny'")
        expected = [*(("news", str(number)) for number in range(50)), ("weather", "sunny")]
        assert [await received.get() for _ in expected] == expected
        await listener.remove_listener("news", listen)
        await listener.remove_listener("weather", listen)


async def test_transfers_keep_the_sum(loop: asyncio.AbstractEventLoop, options: dict[str, Any]) -> None:
    """Many transfers at once through a small pool; serialization failures and deadlocks are tried again."""
    async with pool_with_accounts(options, size=5) as pool:

        async def transfer(source: int, target: int) -> None:
            while True:
                try:
                    async with pool.acquire() as connection, connection.transaction(isolation="serializable"):
                        change = "UPDATE accounts SET balance = balance + $2 WHERE id = $1"
                        await connection.execute(change, source, -1)
                        await connection.execute(change, target, 1)
                        return
                except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError):
                    continue

        pairs = [(n % ACCOUNTS, (n * 3 + 1) % ACCOUNTS) for n in range(80)]
        pairs = [pair for pair in pairs if pair[0] != pair[1]]
        await asyncio.gather(*(transfer(*pair) for pair in pairs))
        balances = dict(await pool.fetch("SELECT id, balance FROM accounts"))
        expected = dict.fromkeys(range(ACCOUNTS), 100)
        for source, target in pairs:
            expected[source] -= 1
            expected[target] += 1
        assert balances == expected


async def test_giving_up_cancels_on_the_server(
    loop: asyncio.AbstractEventLoop, options: dict[str, Any]
) -> None:
    async with pool_with_accounts(options, size=2) as pool, connected(options) as watcher:

        async def sleepers(count: int) -> None:
            query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1"
            while await watcher.fetchval(query, "SELECT pg_sleep%") != count:
                await asyncio.sleep(0.01)

        with pytest.raises(TimeoutError):
            await pool.fetch("SELECT pg_sleep(60)", timeout=0.05)
        await sleepers(0)

        tasks = [asyncio.create_task(pool.fetch("SELECT pg_sleep(60)")) for _ in range(4)]
        await sleepers(2)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(outcome, asyncio.CancelledError)
            for outcome in await asyncio.gather(*tasks, return_exceptions=True)
        )
        await sleepers(0)
        assert [await pool.fetchval("SELECT $1::int", number) for number in range(10)] == list(range(10))

        async with pool.acquire(), pool.acquire():
            with pytest.raises(TimeoutError):
                await pool.acquire(timeout=0.05)


async def test_a_killed_connection_is_noticed_and_replaced(
    loop: asyncio.AbstractEventLoop, options: dict[str, Any]
) -> None:
    lost = asyncio.Event()
    async with pool_with_accounts(options, size=1) as pool, connected(options) as killer:
        async with pool.acquire() as connection:
            connection.add_termination_listener(lambda _connection: lost.set())
            assert await killer.fetchval("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await lost.wait()
            with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, OSError)):
                await connection.fetchval("SELECT 1")
        assert await pool.fetchval("SELECT count(*) FROM accounts") == ACCOUNTS


async def test_nobody_listens(
    loop: asyncio.AbstractEventLoop, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await asyncpg.connect(**{**options, "host": str(tmp_path)})
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(**{**options, "database": "missing"})
