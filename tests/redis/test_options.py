"""What the client offers beyond redis-py: a cache, shared connections, commands that may run twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from services import Service

pytest.importorskip("redis.asyncio", reason="redis-py cannot be had for this Python")

import aioxide.redis as redis
from redis.cache import CacheConfig


@pytest.fixture
def address(server: Service, loop_name: str) -> dict[str, Any]:
    if loop_name == "asyncio":
        pytest.skip("there it is redis-py's client and nothing more")
    return {"host": server.host, "port": server.port}


async def until(condition: Any) -> None:
    """Let the loop go on until something holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def connections_of(clients: list[dict[str, str]], name: str) -> int:
    return sum(client["name"] == name for client in clients)


async def test_a_reply_is_kept_until_its_key_changes(
    loop: asyncio.AbstractEventLoop, address: dict[str, Any]
) -> None:
    async with (
        redis.Redis(**address, cache_config=CacheConfig()) as client,
        redis.Redis(**address) as other,
    ):
        await other.hset("kept", mapping={"field": "1"})
        for _ in range(3):
            found = await client.hgetall("kept")
            assert found == {b"field": b"1"}
            found.clear()  # It is the caller's own.
        assert client.cache is not None
        assert (client.cache.hits, client.cache.misses, len(client.cache)) == (2, 1, 1)
        await other.hset("kept", "field", "2")
        await until(lambda: client.cache is not None and not len(client.cache))
        assert await client.hgetall("kept") == {b"field": b"2"}


async def test_a_cache_forgets_the_least_recently_used(
    loop: asyncio.AbstractEventLoop, address: dict[str, Any]
) -> None:
    async with redis.Redis(**address, cache_config=CacheConfig(max_size=3)) as client:
        for key in ("a", "b", "c", "a", "d"):
            await client.get(key)
        assert client.cache is not None
        assert len(client.cache) == 3
        hits = client.cache.hits
        for key in ("a", "c", "d"):
            await client.get(key)
        assert client.cache.hits == hits + 3


async def test_a_cache_is_empty_after_its_connection_is_lost(
    loop: asyncio.AbstractEventLoop, address: dict[str, Any]
) -> None:
    async with (
        redis.Redis(**address, cache_config=CacheConfig()) as client,
        redis.Redis(**address) as other,
    ):
        await client.get("lost")
        assert client.cache is not None
        assert len(client.cache) == 1
        await other.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: client.cache is not None and not len(client.cache))
        await other.set("lost", "found")
        assert await client.get("lost") == b"found"


async def test_what_writes_is_never_answered_by_the_cache(
    loop: asyncio.AbstractEventLoop, address: dict[str, Any]
) -> None:
    async with redis.Redis(**address, cache_config=CacheConfig()) as client:
        await client.delete("counter")
        assert [await client.incr("counter") for _ in range(3)] == [1, 2, 3]


async def test_a_cache_needs_resp3_and_one_connection(
    loop: asyncio.AbstractEventLoop, address: dict[str, Any]
) -> None:
    with pytest.raises(redis.exceptions.RedisError, match="RESP version 3"):
        redis.Redis(**address, protocol=2, cache_config=CacheConfig())
    with pytest.raises(ValueError, match="one shared connection"):
        redis.Redis(**address, connections=2, cache_config=CacheConfig())


async def test_several_connections_share_the_commands(
    loop: asyncio.AbstractEventLoop, address: dict[str, Any]
) -> None:
    async with redis.Redis(**address, connections=3, client_name="several") as client:
        await client.delete("several")
        counts = await asyncio.gather(*[client.incr("several") for _ in range(100)])
        assert sorted(counts) == list(range(1, 101))
        # The command that asks has a connection of redis-py's own.
        assert connections_of(await client.client_list(), "several") == 4
    with pytest.raises(ValueError, match="connections must be 1 or more"):
        redis.Redis(**address, connections=0)


async def test_a_command_that_may_run_twice_is_sent_again(
    loop: asyncio.AbstractEventLoop, loop_name: str
) -> None:
    """The server dies after it received the command, and before it answers."""
    if loop_name == "asyncio":
        pytest.skip("there it is redis-py's client and nothing more")
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_first = not received
        try:
            while line := await reader.readline():
                words = [line]
                for _ in range(2 * int(line[1:])):
                    words.append(await reader.readline())
                command = b" ".join(words[2::2]).replace(b"\r\n", b"")
                if command.startswith(b"HELLO"):
                    writer.write(b"%0\r\n")
                elif command.startswith(b"CLIENT"):
                    writer.write(b"+OK\r\n")
                else:
                    received.append(command)
                    if is_first:
                        break
                    writer.write(b"+value\r\n")
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with redis.Redis(host="127.0.0.1", port=port, idempotent=["get"]) as client:
        assert await client.get("key") == b"value"
        assert received == [b"GET key", b"GET key"]
        received.clear()
    async with redis.Redis(host="127.0.0.1", port=port, idempotent=["get"]) as client:
        with pytest.raises(redis.ConnectionError, match="may have run"):
            await client.set("key", "value")
        assert received == [b"SET key value"]
    server.close()
    await server.wait_closed()
