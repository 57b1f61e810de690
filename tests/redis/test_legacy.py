"""aioredis 1's names: programs as its tutorials had them, with its signatures and shapes of results."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from services import Service, Unavailable, redis_server

pytest.importorskip("redis.asyncio", reason="redis-py cannot be had for this Python")

import aioxide.redis as aioredis
from aioxide.redis import legacy


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Any]:
    """Make a pool on an empty database, as a tutorial does."""
    redis = await aioredis.create_redis_pool(url, **options)
    try:
        await redis.flushall()
        yield redis
    finally:
        redis.close()
        await redis.wait_closed()


async def test_the_first_page_of_the_tutorial(loop: asyncio.AbstractEventLoop, url: str) -> None:
    redis = await aioredis.create_redis_pool(url, minsize=5, maxsize=10)
    assert await redis.set("my-key", "value") is True
    assert await redis.get("my-key", encoding="utf-8") == "value"
    assert await redis.get("my-key") == b"value"
    assert not redis.closed
    redis.close()
    await redis.wait_closed()
    assert redis.closed
    with pytest.raises(legacy.PoolClosedError):
        await redis.get("my-key")


@pytest.mark.parametrize("make", [aioredis.create_redis, aioredis.create_redis_pool])
async def test_every_kind_of_address(loop: asyncio.AbstractEventLoop, server: Service, make: Any) -> None:
    host, port = server.host, server.port
    addresses = [
        f"redis://{host}:{port}/3?encoding=utf-8&timeout=5",
        (host, port),
        server.unix_socket,
        f"unix://{server.unix_socket}",
    ]
    for address in addresses:
        redis = await make(address, db=2, encoding="utf-8", timeout=5)
        assert redis.db == (3 if address is addresses[0] else 2)
        await redis.set("where", str(address))
        assert await redis.get("where") == str(address)
        redis.close()
        await redis.wait_closed()


async def test_a_server_that_is_not_there_is_said_at_once(
    loop: asyncio.AbstractEventLoop, unused_port: int
) -> None:
    with pytest.raises(legacy.ConnectionClosedError):
        await aioredis.create_redis(("127.0.0.1", unused_port), timeout=1)
    with pytest.raises(NotImplementedError, match="ssl=True"):
        await aioredis.create_redis(("127.0.0.1", unused_port), ssl=object())
    with pytest.raises(ValueError, match="timeout"):
        await aioredis.create_redis(("127.0.0.1", unused_port), timeout=0)
    with pytest.raises(ValueError, match="minsize"):
        await aioredis.create_pool(("127.0.0.1", unused_port), minsize=5, maxsize=2)


async def test_calls_are_sent_when_they_are_made(
    loop: asyncio.AbstractEventLoop, url: str, is_aioxide: bool
) -> None:
    async with connected(url) as redis:
        # As in "built-in pipelining": nothing is awaited until the end, and the order is kept.
        futures = [redis.rpush("list", number) for number in range(100)]
        futures.append(redis.lrange("list", 0, -1))
        *lengths, everything = await asyncio.gather(*futures)
        if is_aioxide:
            # One connection carries them all; elsewhere redis-py uses several.
            assert lengths == list(range(1, 101))
            assert everything == [b"%d" % number for number in range(100)]
        assert sorted(lengths) == list(range(1, 101))


async def test_strings(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as redis:
        assert await redis.set("a", 1, expire=100) is True
        assert 0 < await redis.ttl("a") <= 100
        assert await redis.set("a", 2, pexpire=5000, exist=redis.SET_IF_EXIST) is True
        assert 0 < await redis.pttl("a") <= 5000
        assert await redis.set("a", 3, exist=redis.SET_IF_NOT_EXIST) is False
        assert await redis.set("b", 1, expire=0.5) is True
        assert 0 < await redis.pttl("b") <= 500
        assert await redis.incr("a") == 3
        assert await redis.incrby("a", 10) == 13
        assert await redis.decrby("a", 3) == 10
        assert await redis.incrbyfloat("a", 0.5) == 10.5
        assert await redis.mset("x", 1, "y", b"2") is True
        assert await redis.mset({"z": 3.5}) is True
        assert await redis.mget("x", "y", "nothing", "z", encoding="utf-8") == ["1", "2", None, "3.5"]
        assert await redis.setnx("x", 1) is False
        assert await redis.getset("x", "old") == b"1"
        assert await redis.append("x", "er") == 5
        assert await redis.getrange("x", 0, 2) == b"old"
        assert await redis.setrange("x", 0, "b") == 5
        assert await redis.strlen("x") == 5
        assert await redis.setex("x", 1.5, "soon") is True
        assert await redis.psetex("x", 1500, "soon") is True
        assert await redis.setbit("bits", 7, 1) == 0
        assert await redis.getbit("bits", 7) == 1
        assert await redis.bitcount("bits") == 1
        assert await redis.bitpos("bits", 1) == 7
        assert await redis.bitop_not("other", "bits") == 1
        with pytest.raises(TypeError):
            redis.set("a", None)
        with pytest.raises(TypeError):
            redis.incrby("a", "1")
        with pytest.raises(legacy.ReplyError, match="WRONGTYPE"):
            await redis.lpush("x", 1)


async def test_keys(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as redis:
        await redis.mset({f"key:{number}": number for number in range(25)})
        assert await redis.exists("key:1", "key:2", "nothing") == 2
        assert await redis.delete("key:1", "nothing") == 1
        assert await redis.expire("key:2", 10) is True
        assert await redis.expire("nothing", 10) is False
        assert await redis.pexpire("key:2", 10_000) is True
        assert await redis.expireat("key:2", int(time.time()) + 100) is True
        assert await redis.persist("key:2") is True
        assert await redis.ttl("key:2") == -1
        assert await redis.type("key:2") == b"string"
        assert len(await redis.keys("key:*", encoding="utf-8")) == 24
        assert (await redis.randomkey()).startswith(b"key:")
        assert await redis.rename("key:2", "two") is True
        assert await redis.renamenx("two", "key:3") is False
        cursor, found = await redis.scan(match="key:*", count=1000)
        assert (cursor, len(found)) == (0, 23)
        assert sorted([key async for key in redis.iscan(match="key:*")]) == sorted(found)
        dumped = await redis.dump("two")
        assert await redis.restore("copy", 0, dumped) is True
        assert await redis.get("copy") == b"2"
        assert await redis.eval("return {KEYS[1], ARGV[1]}", keys=["k"], args=["v"]) == [b"k", b"v"]
        digest = await redis.script_load("return 7")
        assert await redis.evalsha(digest) == 7
        assert await redis.script_exists(digest) == [1]
        assert await redis.dbsize() == 25


async def test_hashes(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url, encoding="utf-8") as redis:
        assert await redis.hset("hash", "a", 1) == 1
        assert await redis.hmset("hash", "b", 2, "c", 3) is True
        assert await redis.hmset_dict("hash", {"d": 4}, e=5) is True
        assert await redis.hgetall("hash") == {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}
        assert await redis.hgetall("hash", encoding=None) == {
            b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4", b"e": b"5",
        }  # fmt: skip
        assert await redis.hget("hash", "a") == "1"
        assert await redis.hmget("hash", "a", "nothing") == ["1", None]
        assert await redis.hexists("hash", "a") is True
        assert await redis.hincrby("hash", "a", 2) == 3
        assert await redis.hincrbyfloat("hash", "a", 0.25) == 3.25
        assert await redis.hdel("hash", "a", "b") == 2
        assert sorted(await redis.hkeys("hash")) == ["c", "d", "e"]
        assert sorted(await redis.hvals("hash")) == ["3", "4", "5"]
        assert await redis.hlen("hash") == 3
        cursor, pairs = await redis.hscan("hash")
        assert (cursor, sorted(pairs)) == (0, [("c", "3"), ("d", "4"), ("e", "5")])
        assert sorted([pair async for pair in redis.ihscan("hash", match="c")]) == [("c", "3")]


async def test_lists(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as redis:
        assert await redis.rpush("list", "b", "c") == 2
        assert await redis.lpush("list", "a") == 3
        assert await redis.lrange("list", 0, -1, encoding="utf-8") == ["a", "b", "c"]
        assert await redis.linsert("list", "b", "x", before=True) == 4
        assert await redis.lindex("list", 1) == b"x"
        assert await redis.lset("list", 1, "y") is True
        assert await redis.lrem("list", 0, "y") == 1
        assert await redis.ltrim("list", 0, 1) is True
        assert await redis.llen("list") == 2
        assert await redis.rpoplpush("list", "other") == b"b"
        assert await redis.lpop("list") == b"a"
        assert await redis.rpop("list") is None
        assert await redis.blpop("nothing", "other") == [b"other", b"b"]
        assert await redis.brpop("nothing", timeout=1) is None
        waiting = redis.blpop("later", encoding="utf-8")
        # The others are not kept waiting by one who blocks.
        assert await redis.rpush("later", "came") == 1
        assert await waiting == ["later", "came"]


async def test_sets(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as redis:
        assert await redis.sadd("a", 1, 2, 3) == 3
        assert await redis.sadd("b", 3, 4) == 2
        assert sorted(await redis.smembers("a", encoding="utf-8")) == ["1", "2", "3"]
        assert await redis.sismember("a", 1) == 1
        assert await redis.scard("a") == 3
        assert sorted(await redis.sdiff("a", "b")) == [b"1", b"2"]
        assert await redis.sinter("a", "b") == [b"3"]
        assert len(await redis.sunion("a", "b")) == 4
        assert await redis.sunionstore("c", "a", "b") == 4
        assert await redis.smove("a", "b", 1) == 1
        assert await redis.srem("b", 1, 9) == 1
        assert await redis.spop("a") in (b"2", b"3")
        assert len(await redis.srandmember("c", 2)) == 2
        assert sorted([one async for one in redis.isscan("c")]) == [b"1", b"2", b"3", b"4"]


async def test_sorted_sets(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url, encoding="utf-8") as redis:
        assert await redis.zadd("board", 1, "ann") == 1
        assert await redis.zadd("board", 2, "bob", 3.5, "cid") == 2
        assert await redis.zadd("board", 9, "ann", exist=redis.ZSET_IF_NOT_EXIST) == 0
        assert await redis.zrange("board") == ["ann", "bob", "cid"]
        assert await redis.zrange("board", 0, -1, withscores=True) == [("ann", 1), ("bob", 2), ("cid", 3.5)]
        assert await redis.zrevrange("board", 0, 0, withscores=True) == [("cid", 3.5)]
        assert await redis.zincrby("board", 2, "ann") == 3
        assert await redis.zscore("board", "ann") == 3
        assert await redis.zscore("board", "nobody") is None
        assert await redis.zrank("board", "ann") == 1
        assert await redis.zrevrank("board", "ann") == 1
        assert await redis.zcount("board", 2, 3.5, exclude=redis.ZSET_EXCLUDE_BOTH) == 1
        assert await redis.zrangebyscore("board", 2, 3) == ["bob", "ann"]
        assert await redis.zrangebyscore("board", offset=1, count=1, withscores=True) == [("ann", 3)]
        assert await redis.zrevrangebyscore("board", 3, 2) == ["ann", "bob"]
        assert (
            await redis.zunionstore("sum", ("board", 2), with_weights=True, aggregate="ZSET_AGGREGATE_SUM")
            == 3
        )
        assert await redis.zscore("sum", "bob") == 4
        assert await redis.zinterstore("both", "board", "sum") == 3
        assert await redis.zrem("board", "ann", "nobody") == 1
        assert await redis.zremrangebyscore("board", max=2) == 1
        assert await redis.zremrangebyrank("board", 0, -1) == 1
        assert [pair async for pair in redis.izscan("sum", match="bob")] == [("bob", 4)]
        assert await redis.zpopmin("sum") == ["bob", "4"]
        await redis.zadd("words", 0, "a", 0, "b", 0, "c")
        assert await redis.zrangebylex("words", b"a", b"c", include_max=False) == ["a", "b"]
        assert await redis.zlexcount("words") == 3
        with pytest.raises(TypeError, match="even number"):
            redis.zadd("board", 1, "ann", 2)
        with pytest.raises(TypeError, match="score"):
            redis.zadd("board", "ann", 1)


async def test_streams(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as redis:
        first = await redis.xadd("log", OrderedDict([("b", 1), ("a", 2)]))
        second = await redis.xadd("log", {"c": 3}, max_len=1000)
        await redis.xadd("log", {"c": 4}, message_id=b"99999999999999-1", max_len=2, exact_len=True)
        assert await redis.xlen("log") == 2
        assert await redis.xdel("log", "99999999999999-1") == 1
        assert await redis.xrange("log") == [(second, OrderedDict([(b"c", b"3")]))]
        assert await redis.xrevrange("log", count=1) == [(second, OrderedDict([(b"c", b"3")]))]
        assert first < second
        await redis.delete("log")

        id = await redis.xadd("log", OrderedDict([("b", 1), ("a", 2)]))
        [(stream, read, fields)] = await redis.xread(["log"], latest_ids=[0])
        assert (stream, read) == (b"log", id)
        assert isinstance(fields, OrderedDict)
        assert list(fields.items()) == [(b"b", b"1"), (b"a", b"2")]
        assert await redis.xread(["log"], timeout=10, count=5) == []
        assert await redis.xread(["log"], timeout=None) == []
        waiting = asyncio.ensure_future(redis.xread(["log", "other"]))
        await asyncio.sleep(0.05)
        await redis.xadd("other", {"k": "v"})
        assert [(stream, dict(fields)) for stream, _, fields in await waiting] == [(b"other", {b"k": b"v"})]
        with pytest.raises(ValueError, match="same length"):
            redis.xread(["log"], latest_ids=[1, 2])
        with pytest.raises(TypeError, match="timeout"):
            redis.xread(["log"], timeout=1.5)


async def test_a_consumer_group_as_its_page_has_it(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url, encoding="utf-8") as redis:
        assert await redis.xgroup_create("log", "group", latest_id="$", mkstream=True) is True
        with pytest.raises(legacy.ReplyError, match="BUSYGROUP"):
            await redis.xgroup_create("log", "group")
        ids = [await redis.xadd("log", {"n": number}) for number in range(4)]
        read = await redis.xread_group("group", "one", ["log"], timeout=1000, count=3, latest_ids=[">"])
        assert [(stream, id, dict(fields)) for stream, id, fields in read] == [
            ("log", ids[number], {"n": str(number)}) for number in range(3)
        ]
        assert await redis.xack("log", "group", ids[0]) == 1
        assert await redis.xpending("log", "group") == [2, ids[1], ids[2], [["one", "2"]]]
        [[id, consumer, _, count], _] = await redis.xpending("log", "group", "-", "+", 10, "one")
        assert (id, consumer, count) == (ids[1], "one", 1)
        [(claimed, fields)] = await redis.xclaim("log", "group", "two", 0, ids[1])
        assert (claimed, fields["n"]) == (ids[1], "1")
        assert await redis.xack("log", "group", *ids[1:3]) == 2
        [group] = await redis.xinfo_groups("log")
        assert (group["name"], group["pending"]) == ("group", 0)
        assert {one["name"] for one in await redis.xinfo_consumers("log", "group")} == {"one", "two"}
        assert (await redis.xinfo_stream("log"))["length"] == 4
        assert await redis.xtrim("log", 1, exact_len=True) == 3
        assert await redis.xgroup_setid("log", "group", "0") is True
        assert await redis.xgroup_delconsumer("log", "group", "one") == 0
        assert await redis.xgroup_destroy("log", "group") is True


async def test_a_transaction(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as redis:
        transaction = redis.multi_exec()
        one = transaction.set("key1", "value1")
        two = transaction.incr("number")
        three = transaction.hgetall("nothing")
        assert not one.done()
        assert await transaction.execute() == [True, 1, {}]
        assert (await one, await two, await three) == (True, 1, {})
        assert await redis.multi_exec().execute() == []

        transaction = redis.multi_exec()
        good, bad = transaction.set("key1", "text"), transaction.incr("key1")
        with pytest.raises(legacy.MultiExecError):
            await transaction.execute()
        assert await good is True
        with pytest.raises(legacy.ReplyError, match="not an integer"):
            await bad
        transaction = redis.multi_exec()
        transaction.incr("key1")
        [error] = await transaction.execute(return_exceptions=True)
        assert isinstance(error, legacy.ReplyError)


async def test_a_watched_key_that_changes_ends_the_transaction(
    loop: asyncio.AbstractEventLoop, url: str
) -> None:
    async with connected(url) as redis:
        await redis.set("stock", 1)
        await redis.watch("stock")
        assert await redis.get("stock") == b"1"
        await redis.set("stock", 2)
        transaction = redis.multi_exec()
        lost = transaction.set("stock", 0)
        with pytest.raises(legacy.WatchVariableError):
            await transaction.execute()
        with pytest.raises(legacy.MultiExecError):
            await lost
        assert await redis.get("stock") == b"2"
        await redis.watch("stock")
        transaction = redis.multi_exec()
        transaction.decr("stock")
        assert await transaction.execute() == [1]
        await redis.watch("stock")
        await redis.unwatch()


async def test_a_pipeline(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url, encoding="utf-8") as redis:
        pipeline = redis.pipeline()
        first = pipeline.set("foo", "bar")
        second = pipeline.get("foo")
        third = pipeline.get("foo", encoding=None)
        assert await pipeline.execute() == [True, "bar", b"bar"]
        assert await asyncio.gather(first, second, third) == [True, "bar", b"bar"]
        pipeline = redis.pipeline()
        pipeline.incr("foo")
        pipeline.get("foo")
        with pytest.raises(legacy.PipelineError) as caught:
            await pipeline.execute()
        assert len(caught.value.args[1]) == 1


async def test_subscriptions(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as publisher:
        subscriber = await aioredis.create_redis(url)
        [channel] = await subscriber.subscribe("chan:1")
        [pattern] = await subscriber.psubscribe("chan:*")
        assert subscriber.in_pubsub == 2
        assert subscriber.channels[b"chan:1"] is channel
        assert subscriber.patterns[b"chan:*"] is pattern
        assert await publisher.publish("chan:1", "Hello") == 2
        assert await publisher.publish_json("chan:1", ["Hello", "world"]) == 2
        assert await channel.wait_message()
        assert await channel.get(encoding="utf-8") == "Hello"
        assert await channel.get_json() == ["Hello", "world"]
        assert await pattern.get(encoding="utf-8") == (b"chan:1", "Hello")
        assert await pattern.get(decoder=json.loads) == (b"chan:1", ["Hello", "world"])

        async def read() -> list[Any]:
            return [message async for message in channel.iter(encoding="utf-8")]

        reader = asyncio.create_task(read())
        for number in range(50):
            await publisher.publish("chan:1", number)
        await publisher.ping()
        while (await publisher.pubsub_numsub("chan:1"))[b"chan:1"] and len(pattern._messages) < 50:
            await asyncio.sleep(0.005)
        await subscriber.unsubscribe("chan:1")
        assert await reader == [str(number) for number in range(50)]
        assert not channel.is_active
        with pytest.raises(legacy.ChannelClosedError):
            await channel.get()
        assert await publisher.pubsub_channels("chan:*") == []
        subscriber.close()
        await subscriber.wait_closed()
        assert await pattern.wait_message()


async def test_a_connection_of_a_pool_is_used_alone(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url, maxsize=2) as redis:
        with await redis as alone:
            await alone.connection.execute("MULTI")
            assert await alone.connection.execute("SET", "key", "value") == b"QUEUED"
            # Nobody else is in the transaction.
            assert await redis.get("key") is None
            assert await alone.connection.execute("EXEC") == [b"OK"]
        assert await redis.get("key") == b"value"

    pool = await aioredis.create_pool(url, minsize=1, maxsize=2)
    async with pool.get() as connection:
        assert await connection.execute("GET", "key", encoding="utf-8") == "value"
    one, two = await pool.acquire(), await pool.acquire()
    third = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0.01)
    assert not third.done()
    pool.release(one)
    assert await (await third).execute("PING") == b"PONG"
    with pytest.raises(AssertionError):
        pool.release(one)
    pool.close()
    await pool.wait_closed()
    assert two.closed


async def test_a_raw_connection(loop: asyncio.AbstractEventLoop, url: str) -> None:
    connection = await aioredis.create_connection(url, encoding="utf-8")
    assert await connection.execute("set", "key", "value") == "OK"
    assert await connection.execute(b"get", "key") == "value"
    assert await connection.execute("get", "key", encoding=None) == b"value"
    assert await connection.execute("hgetall", "nothing") == []
    with pytest.raises(TypeError):
        connection.execute("get", None)
    connection.close()
    await connection.wait_closed()
    with pytest.raises(legacy.ConnectionClosedError):
        await connection.execute("get", "key")


async def test_another_database_is_selected_for_all(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as redis:
        await redis.set("where", "zero")
        before = redis.get("where")
        assert await redis.select(5) is True
        assert redis.db == 5
        assert await before == b"zero"
        assert await redis.get("where") is None
        with pytest.raises(ValueError, match="negative"):
            await redis.select(-1)
        with pytest.raises(legacy.ReplyError):
            await redis.select(99)
        assert redis.db == 5


async def test_a_password(loop: asyncio.AbstractEventLoop) -> None:
    try:
        # A server of its own: the others know no password.
        with redis_server() as service:
            await _use_a_password(service)
    except Unavailable as reason:
        pytest.skip(str(reason))


async def _use_a_password(service: Service) -> None:
    address = (service.host, service.port)
    redis = await aioredis.create_redis(address)
    await redis.config_set("requirepass", "secret")
    redis.close()
    await redis.wait_closed()
    with pytest.raises(legacy.RedisError):
        await aioredis.create_redis(address)
    with pytest.raises(legacy.AuthError):
        await aioredis.create_redis(address, password="wrong")
    redis = await aioredis.create_redis(address, password="secret")
    assert await redis.ping() == b"PONG"
    assert await redis.auth("secret") is True
    with pytest.raises(legacy.AuthError):
        await redis.auth("wrong")
    assert await redis.ping() == b"PONG"
    redis.close()
    await redis.wait_closed()


async def test_the_server_is_asked(loop: asyncio.AbstractEventLoop, url: str) -> None:
    async with connected(url) as redis:
        assert await redis.ping() == b"PONG"
        assert await redis.ping("hello", encoding="utf-8") == "hello"
        assert await redis.echo("hello") == b"hello"
        assert (await redis.info("server"))["server"]["redis_version"]
        assert abs(await redis.time() - time.time()) < 60
        assert (await redis.config_get("maxmemory"))["maxmemory"] == "0"
        assert await redis.config_set("maxmemory", 0) is True
        assert (await redis.role())[0] == b"master"
        assert [one.db for one in await redis.client_list()]
        assert await redis.geoadd("places", 13.4, 52.5, "Berlin", 2.35, 48.85, "Paris") == 2
        assert 870 < await redis.geodist("places", "Berlin", "Paris", "km") < 890
        [berlin, nowhere] = await redis.geopos("places", "Berlin", "Nowhere")
        assert berlin == pytest.approx((13.4, 52.5), abs=0.001)
        assert nowhere is None
        assert await redis.pfadd("seen", 1, 2, 3) == 1
        assert await redis.pfcount("seen") == 3
        assert await redis.flushdb() is True


async def test_a_cancelled_call_gives_up_its_own_reply_only(
    loop: asyncio.AbstractEventLoop, url: str
) -> None:
    async with connected(url) as redis:
        await redis.mset({f"key:{number}": number for number in range(200)})
        futures = [redis.get(f"key:{number}") for number in range(200)]
        await asyncio.sleep(0)
        for future in futures[::3]:
            future.cancel()
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 3:
                assert answer == b"%d" % number
            else:
                assert isinstance(answer, asyncio.CancelledError)
