"""redis-py's asyncio client on a real redis-server: a shop with stock, orders, news and an audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from services import Service, Unavailable, redis_server

redis = pytest.importorskip("redis.asyncio", reason="redis-py cannot be had for this Python")

CLIENTS = 30


@pytest.fixture(scope="session")
def server() -> Iterator[Service]:
    try:
        with redis_server() as service:
            yield service
    except Unavailable as reason:
        pytest.skip(str(reason))


@asynccontextmanager
async def connected(server: Service, **options: Any) -> AsyncIterator[Any]:
    """Make a client on an empty database."""
    async with redis.Redis(host=server.host, port=server.port, decode_responses=True, **options) as client:
        await client.flushall()
        yield client


@asynccontextmanager
async def connected_by_unix_socket(server: Service) -> AsyncIterator[Any]:
    async with redis.Redis(unix_socket_path=server.unix_socket, decode_responses=True) as client:
        await client.flushall()
        yield client


@asynccontextmanager
async def connected_by_tls(server: Service) -> AsyncIterator[Any]:
    options = {"ssl": True, "ssl_ca_certs": str(server.certificate), "decode_responses": True}
    async with redis.Redis(host=server.host, port=server.tls_port, **options) as client:
        await client.flushall()
        yield client


@pytest.fixture(params=[connected, connected_by_unix_socket, connected_by_tls], ids=["TCP", "Unix", "TLS"])
def connect(request: pytest.FixtureRequest, server: Service) -> Any:
    if request.param is connected_by_tls and server.certificate is None:
        pytest.skip("there is no openssl program, or redis-server was built without TLS")
    return lambda: request.param(server)


async def test_values_of_every_kind(loop: asyncio.AbstractEventLoop, connect: Any) -> None:
    async with connect() as client:
        assert await client.ping()
        await client.set("greeting", "hello", ex=100)
        assert await client.get("greeting") == "hello"
        assert 0 < await client.ttl("greeting") <= 100
        assert await client.get("nothing") is None

        await client.hset("cart", mapping={"apples": 3, "pears": 4})
        assert await client.hgetall("cart") == {"apples": "3", "pears": "4"}
        await client.zadd("board", {"ann": 10, "bob": 30, "cid": 20})
        assert await client.zrevrange("board", 0, 1, withscores=True) == [("bob", 30.0), ("cid", 20.0)]

        await client.mset({f"key:{number}": number for number in range(500)})
        assert sorted([key async for key in client.scan_iter("key:*")]) == sorted(
            f"key:{number}" for number in range(500)
        )
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            await client.incr("cart")


async def test_a_value_of_megabytes(loop: asyncio.AbstractEventLoop, server: Service) -> None:
    value = bytes(range(256)) * (8 << 12)  # 8 MiB, more than any socket buffer
    async with redis.Redis(unix_socket_path=server.unix_socket) as client:
        await client.set("blob", value)
        assert await client.get("blob") == value
        assert await client.getrange("blob", -4, -1) == b"\xfc\xfd\xfe\xff"


async def test_a_pipeline_answers_in_order(loop: asyncio.AbstractEventLoop, connect: Any) -> None:
    async with connect() as client:
        async with client.pipeline(transaction=False) as pipeline:
            for number in range(1000):
                pipeline.set(f"n:{number}", number)
                pipeline.get(f"n:{number}")
            answers = await pipeline.execute()
        assert answers == [answer for number in range(1000) for answer in (True, str(number))]

        async with client.pipeline(transaction=True) as pipeline:
            pipeline.set("word", "text").incr("word").get("word")
            answers = await pipeline.execute(raise_on_error=False)
        assert answers[0] is True
        assert isinstance(answers[1], redis.ResponseError)
        assert answers[2] == "text"


async def test_buyers_compete_for_the_last_items(loop: asyncio.AbstractEventLoop, server: Service) -> None:
    """WATCH, MULTI, EXEC: exactly as many orders as items, however the buyers interleave."""
    collisions = 0

    async def buy(client: Any, buyer: int) -> bool:
        nonlocal collisions
        async with client.pipeline() as pipeline:
            while True:
                await pipeline.watch("stock")
                left = int(await pipeline.get("stock"))
                if left == 0:
                    return False
                pipeline.multi()
                pipeline.decr("stock").rpush("orders", buyer)
                try:
                    await pipeline.execute()
                except redis.WatchError:
                    collisions += 1
                    continue
                return True

    async with connected(server) as client:
        await client.set("stock", 10)
        bought = await asyncio.gather(*(buy(client, buyer) for buyer in range(CLIENTS)))
        assert sum(bought) == 10
        assert await client.get("stock") == "0"
        assert len(set(await client.lrange("orders", 0, -1))) == 10
        assert collisions > 0


async def test_published_news_reach_every_reader(loop: asyncio.AbstractEventLoop, connect: Any) -> None:
    async with connect() as client:

        async def read(subscribed: asyncio.Event) -> list[str]:
            received = []
            async with client.pubsub() as channel:
                await channel.subscribe("news")
                await channel.psubscribe("weather.*")
                async for message in channel.listen():
                    if message["type"] in ("subscribe", "psubscribe"):
                        if message["data"] == 2:
                            subscribed.set()
                        continue
                    if message["data"] == "end":
                        break
                    received.append(f"{message['channel']}={message['data']}")
                await channel.unsubscribe()
                await channel.punsubscribe()
            return received

        ready = [asyncio.Event() for _ in range(5)]
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(subscribed)) for subscribed in ready]
            for subscribed in ready:
                await subscribed.wait()
            for number in range(100):
                assert await client.publish("news", number) == 5
                assert await client.publish("weather.moon", number) == 5
            await client.publish("news", "end")
        expected = [line for n in range(100) for line in (f"news={n}", f"weather.moon={n}")]
        assert [reader.result() for reader in readers] == [expected] * 5


async def test_workers_wait_for_jobs_and_can_be_cancelled(
    loop: asyncio.AbstractEventLoop, server: Service
) -> None:
    async with connected(server) as client:

        async def work() -> list[str]:
            done = []
            while (job := (await client.blpop(["jobs"]))[1]) != "stop":
                done.append(job)
            return done

        async def blocked(count: int) -> None:
            while (await client.info("clients"))["blocked_clients"] != count:
                await asyncio.sleep(0.005)

        workers = [asyncio.create_task(work()) for _ in range(4)]
        await blocked(4)
        workers[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await workers[0]
        await blocked(3)
        for number in range(60):
            await client.rpush("jobs", number)
        await client.rpush("jobs", *["stop"] * 3)
        done = await asyncio.gather(*workers[1:])
        assert sorted(int(job) for jobs in done for job in jobs) == list(range(60))

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.blpop(["jobs"])
        assert await client.blpop(["jobs"], timeout=0.05) is None
        assert await client.ping()


async def test_a_stream_read_by_a_group(loop: asyncio.AbstractEventLoop, server: Service) -> None:
    async with connected(server) as client:
        await client.xgroup_create("audit", "readers", id="$", mkstream=True)

        async def read(name: str) -> list[int]:
            seen: list[int] = []
            while True:
                answer = await client.xreadgroup("readers", name, {"audit": ">"}, count=7, block=2000)
                for identifier, fields in answer[0][1]:
                    await client.xack("audit", "readers", identifier)
                    if fields["number"] == "end":
                        return seen
                    seen.append(int(fields["number"]))

        readers = [asyncio.create_task(read(name)) for name in ("one", "two")]
        for number in [*range(100), "end"]:
            await client.xadd("audit", {"number": number})
        done, waiting = await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
        await client.xadd("audit", {"number": "end"})
        await asyncio.gather(*waiting)
        assert sorted(number for reader in (*done, *waiting) for number in reader.result()) == list(
            range(100)
        )
        assert (await client.xpending("audit", "readers"))["pending"] == 0


async def test_a_pool_of_few_connections_serves_many(
    loop: asyncio.AbstractEventLoop, server: Service
) -> None:
    pool = redis.BlockingConnectionPool(host=server.host, port=server.port, max_connections=4, timeout=20)
    client = redis.Redis.from_pool(pool)
    await client.flushall()

    async def count(number: int) -> None:
        try:
            # Some give up in the middle of a command: their connection must not give the next an old answer.
            async with asyncio.timeout(0.001 if number % 5 == 0 else None):
                for step in range(20):
                    key = f"own:{number}"
                    assert int(await client.incr(key)) == step + 1
                    assert int(await client.get(key)) == step + 1
        except TimeoutError:
            assert number % 5 == 0

    async with client:
        await asyncio.gather(*(count(number) for number in range(CLIENTS)))
        connected_now = (await client.info("clients"))["connected_clients"]
        assert connected_now <= 4


async def test_a_lost_connection_is_replaced(loop: asyncio.AbstractEventLoop, server: Service) -> None:
    async with connected(server) as admin, connected(server, client_name="victim") as client:
        await client.set("kept", "yes")
        for _ in range(3):
            [victim] = [one["id"] for one in await admin.client_list() if one["name"] == "victim"]
            await admin.client_kill_filter(_id=victim)
            assert await client.get("kept") == "yes"
        await admin.set("lock-free", 1)
        async with client.lock("lock", timeout=10, blocking_timeout=5):
            assert not await admin.lock("lock", timeout=10).acquire(blocking=False)
