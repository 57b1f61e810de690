"""aioxide.redis on a real server: every route of a command, and what becomes of commands when things break.

On stock asyncio the client is redis-py's; what is claimed there too runs on all loops.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cancellation_storm import storm
from services import Service

pytest.importorskip("redis.asyncio", reason="redis-py cannot be had for this Python")
import aioxide.redis as redis
import redis as pyredis
from aioxide.redis.pipeline import Pipeline


@asynccontextmanager
async def connected(server: Service, **options: Any) -> AsyncIterator[redis.Redis]:
    """Make a client on an empty database."""
    async with redis.Redis(unix_socket_path=server.unix_socket, **options) as client:
        await client.flushall()
        yield client


@pytest.mark.parametrize("protocol", [2, 3])
async def test_replies_are_alike_in_both_protocols(
    loop: asyncio.AbstractEventLoop, server: Service, protocol: int
) -> None:
    async with connected(server, protocol=protocol, decode_responses=True) as client:
        await client.hset("hash", mapping={"a": 1, "b": 2})
        assert await client.hgetall("hash") == {"a": "1", "b": "2"}
        await client.sadd("set", "x", "y")
        assert await client.smembers("set") == {"x", "y"}
        await client.zadd("board", {"ann": 1, "bob": 2.5})
        assert await client.zscore("board", "bob") == 2.5
        assert await client.zrange("board", 0, -1) == ["ann", "bob"]
        assert (await client.config_get("maxmemory"))["maxmemory"] == "0"
        assert (await client.info("server"))["redis_version"]


async def test_each_route_of_a_command(loop: asyncio.AbstractEventLoop, server: Service) -> None:
    async with connected(server, client_name="somebody") as client:
        assert await client.execute_command("set", "key", b"\x00\xff\r\n")
        assert await client.get("key") == b"\x00\xff\r\n"
        waiting = asyncio.ensure_future(client.blpop("list"))
        await until_blocked(client)
        assert await client.ping()  # not behind the one that blocks
        await client.rpush("list", "item")
        assert await waiting == (b"list", b"item")
        assert await client.client_getname() in ("somebody", b"somebody")
        assert await client.wait(0, 10) == 0


async def until_blocked(client: redis.Redis, count: int = 1) -> None:
    async with asyncio.timeout(10):
        while (await client.info("clients"))["blocked_clients"] != count:
            await asyncio.sleep(0)


async def test_blocking_commands_are_bounded_by_the_pool(
    loop: asyncio.AbstractEventLoop, server: Service
) -> None:
    pool = redis.BlockingConnectionPool.from_url(
        f"unix://{server.unix_socket}", max_connections=3, timeout=10
    )
    async with redis.Redis.from_pool(pool) as client, connected(server) as pusher:
        waiting = [asyncio.ensure_future(client.blpop(f"list:{number}", 10)) for number in range(6)]
        for number in range(6):
            await pusher.rpush(f"list:{number}", number)
        assert [reply[1] for reply in await asyncio.gather(*waiting)] == [b"%d" % n for n in range(6)]


async def test_a_cancelled_blocking_command_gives_its_place_back(
    loop: asyncio.AbstractEventLoop, server: Service
) -> None:
    async with (
        connected(server) as other,
        redis.Redis(unix_socket_path=server.unix_socket, max_connections=2) as client,
    ):
        for _ in range(20):
            waiting = asyncio.ensure_future(client.blpop("nothing"))
            await until_blocked(other)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until_blocked(other, 0)


async def test_errors_are_those_of_redis_py(
    loop: asyncio.AbstractEventLoop, server: Service, is_aioxide: bool
) -> None:
    async with connected(server) as client:
        await client.set("text", "text")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await client.lpush("text", "x")
        with pytest.raises(redis.DataError, match="Invalid input of type: 'list'"):
            await client.set("text", ["no"])  # type: ignore[arg-type]
        with pytest.raises(redis.exceptions.NoScriptError):
            await client.evalsha("0" * 40, 0)
        await client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get")
        url = f"unix://reader:secret@{server.unix_socket}"
        async with redis.from_url(url) as reader:
            assert await reader.get("text") == b"text"
            with pytest.raises(redis.exceptions.NoPermissionError):
                await reader.set("text", "other")
        async with redis.from_url(f"unix://reader:wrong@{server.unix_socket}") as stranger:
            # On asyncio redis-py makes another of it.
            expected = redis.AuthenticationError if is_aioxide else redis.ConnectionError
            with pytest.raises(expected, match="invalid username-password pair"):
                await stranger.get("text")
        await client.execute_command("ACL", "DELUSER", "reader")


async def test_transactions_refused_aborted_and_lost(
    loop: asyncio.AbstractEventLoop, server: Service
) -> None:
    async with connected(server) as client:
        with pytest.raises(redis.ResponseError, match="Command # 2"):
            await client.pipeline().set("a", 1).execute_command("NONSENSE").execute()
        assert await client.get("a") is None
        replies = await client.pipeline().set("a", "x").incr("a").get("a").execute(raise_on_error=False)
        assert replies[0] is True
        assert isinstance(replies[1], redis.ResponseError)
        assert replies[2] == b"x"
        async with client.pipeline() as watched:
            await watched.watch("a")
            await client.set("a", "changed")
            watched.multi()
            watched.get("a")
            with pytest.raises(redis.WatchError):
                await watched.execute()


async def test_a_pipeline_of_ones_own_may_collect_commands_in_its_own_way(
    loop: asyncio.AbstractEventLoop, server: Service
) -> None:
    class Counting(Pipeline):
        names: list[str]

        def pipeline_execute_command(self, *args: Any, **options: Any) -> Any:
            self.names.append(args[0])
            return super().pipeline_execute_command(*args, **options)

    async with connected(server) as client:
        pipe = Counting(client.connection_pool, client.response_callbacks, False, None)
        pipe.names = []
        assert await pipe.set("a", 1).get("a").execute() == [True, b"1"]
        assert pipe.names == ["SET", "GET"]


async def test_a_server_that_is_loading_fails_the_whole_pipeline(
    loop: asyncio.AbstractEventLoop, server: Service
) -> None:
    loading = "return redis.error_reply('LOADING Redis is loading the dataset in memory')"
    async with connected(server, retry=None) as client:
        with pytest.raises(redis.BusyLoadingError):
            await client.eval(loading, 0)
        for transaction in (False, True):
            pipe = client.pipeline(transaction=transaction).eval(loading, 0)
            with pytest.raises(redis.BusyLoadingError):
                await pipe.execute(raise_on_error=False)
        assert await client.ping()


async def test_what_is_huge_comes_and_goes(loop: asyncio.AbstractEventLoop, server: Service) -> None:
    value = random.Random(1).randbytes(64 << 20)
    async with connected(server) as client:
        await client.set("huge", value)
        assert await client.get("huge") == value
        await client.rpush("list", *range(100_000))
        assert await client.lrange("list", 0, -1) == [b"%d" % number for number in range(100_000)]


async def test_callbacks_of_the_program_shape_replies(
    loop: asyncio.AbstractEventLoop, server: Service
) -> None:
    async def shape(reply: bytes, **options: Any) -> str:
        await asyncio.sleep(0)
        return reply.decode() + "?"

    async with connected(server) as client:
        await client.set("key", "value")
        client.set_response_callback("GET", lambda reply, **options: reply.decode() + "!")
        assert await client.get("key") == "value!"
        client.set_response_callback("GET", shape)
        assert await client.get("key") == "value?"


async def test_who_listens_locks_scans_and_scripts(loop: asyncio.AbstractEventLoop, server: Service) -> None:
    async with connected(server, decode_responses=True) as client:
        async with client.pubsub(ignore_subscribe_messages=True) as listener:
            await listener.subscribe("news")
            async with asyncio.timeout(10):
                while not await client.publish("news", "extra"):
                    await asyncio.sleep(0)
                while (message := await listener.get_message(timeout=1)) is None:
                    pass
            assert message["data"] == "extra"
        async with client.lock("lock", timeout=10) as lock:
            assert await lock.owned()
            assert not await client.lock("lock").acquire(blocking=False)
        await client.mset({f"key:{number}": number for number in range(1000)})
        assert len({key async for key in client.scan_iter("key:*")}) == 1000
        assert await client.register_script("return ARGV[1]")(args=["said"]) == "said"
        await client.xgroup_create("stream", "group", mkstream=True)
        identifier = await client.xadd("stream", {"field": "value"})
        replies = await client.xreadgroup("group", "me", {"stream": ">"}, block=1000)
        assert "value" in str(replies)
        assert await client.xack("stream", "group", identifier) == 1


async def test_a_closed_client_ends_who_waits(
    loop: asyncio.AbstractEventLoop, server: Service, is_aioxide: bool
) -> None:
    if not is_aioxide:
        pytest.skip("redis-py's blocked command goes on, and nobody hears of its end")
    async with connected(server) as other:
        client = redis.Redis(unix_socket_path=server.unix_socket)
        waiting = asyncio.ensure_future(client.blpop("nothing"))
        await until_blocked(other)
        await client.aclose()
        with pytest.raises(redis.ConnectionError):
            await asyncio.wait_for(waiting, 10)


def test_one_client_on_several_loops(loop_factory: Any, server: Service) -> None:
    client = redis.Redis(unix_socket_path=server.unix_socket)

    async def use(number: int) -> None:
        await client.set("key", number)
        assert await client.get("key") == b"%d" % number
        await client.connection_pool.disconnect()

    for number in range(3):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(use(number))


async def test_a_client_that_is_forgotten_leaves_nothing(
    loop: asyncio.AbstractEventLoop, server: Service, is_aioxide: bool
) -> None:
    if not is_aioxide:
        pytest.skip("redis-py's own connection warns")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = redis.Redis(unix_socket_path=server.unix_socket)
        await client.set("key", 1)
        del client
        gc.collect()


async def received(client: redis.Redis) -> int:
    return int((await client.info("stats"))["total_connections_received"])


STORM = 50_000


async def test_cancelled_callers_cost_no_connection_and_nobody_gets_anothers_reply(
    loop: asyncio.AbstractEventLoop, server: Service, is_aioxide: bool
) -> None:
    if not is_aioxide:
        pytest.skip("redis-py makes a connection for each caller")
    async with connected(server) as client:
        before = await received(client)
        survivors = await storm(client, STORM, random.Random(5))
        assert STORM // 4 < survivors < STORM
        assert await received(client) == before


async def test_killed_connections_and_cancelled_callers(
    loop: asyncio.AbstractEventLoop, server: Service, is_aioxide: bool
) -> None:
    if not is_aioxide:
        pytest.skip("redis-py's connections are many")
    async with connected(server) as client, redis.Redis(unix_socket_path=server.unix_socket) as killer:
        assert await storm(client, STORM, random.Random(6), killer) > STORM // 4


async def test_the_first_commands_of_a_burst_leave_before_the_last_are_made(
    loop: asyncio.AbstractEventLoop, server: Service, is_aioxide: bool
) -> None:
    """The server works at these while the program makes those: all of them are of one turn of the loop."""
    if not is_aioxide:
        pytest.skip("redis-py sends each command by itself")
    async with connected(server) as client:
        with pyredis.Redis(unix_socket_path=server.unix_socket) as observer:
            observer.ping()
            seen = []

            def look() -> None:
                deadline = time.monotonic() + 10
                while not (seen and seen[-1]) and time.monotonic() < deadline:
                    seen.append(observer.exists("burst"))

            commands = [asyncio.ensure_future(client.incr("burst")) for _ in range(100)]
            loop.call_soon(look)
            assert sorted(await asyncio.gather(*commands)) == list(range(1, 101))
            assert seen[-1]
