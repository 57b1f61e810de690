"""A cluster of real nodes: slots that move, nodes that die, keys in several slots."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aioxide.redis import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.cluster import LoadBalancingStrategy
from redis.crc import key_slot
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
)
from topologies import Cluster, cluster, only_native, requires_redis, started_cluster

__all__ = ["cluster", "only_native", "started_cluster"]

pytestmark = [
    requires_redis,
    # redis-py's own connections, from Python 3.14 on.
    pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning"),
]


@contextlib.asynccontextmanager
async def client_of(cluster: Cluster, **keywords: Any) -> AsyncIterator[RedisCluster]:
    host, port = cluster.address
    retry = Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.5), 60)
    async with RedisCluster(host, port, decode_responses=True, retry=retry, **keywords) as client:
        yield client


async def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.01)


def other_master(cluster: Cluster, slot: int) -> Any:
    source = cluster.master_of(slot)
    return next(master for master in cluster.masters() if master is not source)


@contextlib.asynccontextmanager
async def slot_that_moves(
    cluster: Cluster, slot: int, target: Any, least: Callable[[], int]
) -> AsyncIterator[None]:
    """Move a slot while work goes on, of which `least` counts the least.

    The body runs when the slot's keys have moved and the slot itself has not.
    """
    await until(lambda: least() > 5)
    cluster.begin_migration(slot, target)
    await asyncio.sleep(0.05)
    await asyncio.to_thread(cluster.move_keys, slot, target)
    yield
    seen = least()
    await until(lambda: least() > seen + 3)
    cluster.end_migration(slot, target)
    seen = least()
    await until(lambda: least() > seen + 5)


async def kill_under_load(cluster: Cluster, slot: int) -> tuple[float, float]:
    """Kill a slot's master, which stops answering before; return when that was and when it was replaced."""
    old = cluster.master_of(slot)
    old.pause()
    await asyncio.sleep(0.05)
    killed = time.monotonic()
    old.kill()
    await until(lambda: cluster.master_of(slot) is not old)
    return killed, time.monotonic()


async def test_keys_are_where_their_slots_are(cluster: Cluster, loop: Any) -> None:
    async with client_of(cluster) as client:
        for number in range(30):
            assert await client.set(f"key:{number}", number)
            assert await client.get(f"key:{number}") == str(number)
        for number in (1, 2, 3):
            owner = cluster.master_of(key_slot(f"key:{number}".encode()))
            assert owner.ask("GET", f"key:{number}") == str(number)
        assert await client.delete(*(f"key:{number}" for number in range(30))) == 30
        assert await client.dbsize() is not None
        assert await client.eval("return redis.call('incr', KEYS[1])", 1, "counter{x}") >= 1
        await client.delete("counter{x}", "queue")
        popped = asyncio.create_task(client.blpop("queue", timeout=5))
        await asyncio.sleep(0.01)
        await client.rpush("queue", "item")
        assert list(await popped) == ["queue", "item"]
        with pytest.raises(ResponseError):
            await client.incrby("counter{x}", "no number")


@pytest.mark.usefixtures("only_native")
async def test_commands_for_a_node_share_one_connection(cluster: Cluster, loop: Any) -> None:
    async with client_of(cluster, client_name="shared") as client:
        await asyncio.gather(*(client.set(f"key:{number}", number) for number in range(300)))
        for master in cluster.masters():
            assert str(master.ask("CLIENT LIST")).count("name=shared") == 1
        await client.delete(*(f"key:{number}" for number in range(300)))


async def test_keys_in_several_slots_are_refused_unless_they_may_be_split(
    cluster: Cluster, loop: Any
) -> None:
    values = {f"split:{number}": str(number) for number in range(12)}
    async with client_of(cluster) as client:
        with pytest.raises(RedisClusterException, match="same key slot"):
            await client.mset(values)
        with pytest.raises(RedisClusterException, match="same key slot"):
            await client.mget(list(values))
        await client.mset_nonatomic(values)
        assert await client.mget_nonatomic(list(values)) == list(values.values())
        assert await client.mget("{a}1", "{a}2") == [None, None]
        assert await client.exists(*values) == await client.unlink(*values) == 12
    async with client_of(cluster, split_multikey=True) as client:
        assert await client.mset(values)
        assert await client.mget([*values, "nothing"]) == [*values.values(), None]
        assert await client.mget(["split:1", "split:2", "split:1"]) == ["1", "2", "1"]
        assert await client.delete(*values) == 12


async def test_pipelines_keep_their_meaning(cluster: Cluster, loop: Any) -> None:
    async with client_of(cluster) as client:
        pipe = client.pipeline()
        for number in range(20):
            pipe.set(f"pipe:{number}", number).incr(f"pipe:{number}")
        assert await pipe.execute() == [result for number in range(20) for result in (True, number + 1)]
        pipe = client.pipeline().hset("hash", mapping={"a": "1"}).hgetall("hash").incr("hash").delete("hash")
        *good, error, deleted = await pipe.execute(raise_on_error=False)
        assert (good, deleted) == ([1, {"a": "1"}], 1)
        assert isinstance(error, ResponseError)
        await client.delete(*(f"pipe:{number}" for number in range(20)))


async def test_replicas_are_read_from_and_masters_written_to(cluster: Cluster, loop: Any) -> None:
    async with client_of(cluster, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN) as client:
        assert await client.set("seen", "everywhere")
        owner = cluster.master_of(key_slot(b"seen"))
        replica = next(replicas for _, master, replicas in cluster.slots() if master is owner)[0]
        await until(lambda: int(str(replica.ask("DBSIZE"))) > 0)
        before = [calls_of_get(server) for server in (owner, replica)]
        for _ in range(10):
            assert await client.get("seen") == "everywhere"
        after = [calls_of_get(server) for server in (owner, replica)]
        assert [now - then for now, then in zip(after, before, strict=True)] == [5, 5]
        await client.delete("seen")


def calls_of_get(server: Any) -> int:
    lines = [
        line for line in server.ask("INFO", "commandstats").splitlines() if line.startswith("cmdstat_get:")
    ]
    return int(lines[0].split("calls=")[1].split(",")[0]) if lines else 0


@pytest.mark.usefixtures("only_native")
async def test_a_slot_may_move_under_load(cluster: Cluster, loop: Any) -> None:
    """ASK while its keys move, MOVED afterwards: no errors, nothing is lost, nothing happens twice."""
    slot = key_slot(b"{move}")
    target = other_master(cluster, slot)
    async with client_of(cluster) as client:
        keys = [f"{{move}}{number}" for number in range(40)]
        await client.delete(*keys)
        counts = dict.fromkeys(keys, 0)
        is_over = False

        async def count(key: str) -> None:
            while not is_over:
                counts[key] += 1
                assert await client.incr(key) == counts[key]
                await asyncio.sleep(0.001)

        counters = [asyncio.create_task(count(key)) for key in keys]
        new = f"{{move}}new{time.monotonic()}"
        async with slot_that_moves(cluster, slot, target, lambda: min(counts.values())):
            assert await client.incr(new) == 1
        is_over = True
        await asyncio.gather(*counters)
        assert cluster.master_of(slot) is target
        assert [int(value) for value in await client.mget(keys)] == list(counts.values())
        await client.delete(new, *keys)


@pytest.mark.usefixtures("only_native")
async def test_a_slot_may_move_under_pipelines(cluster: Cluster, loop: Any) -> None:
    """Parts of a pipeline are redirected while others are not: each command runs once, in its place."""
    slot = key_slot(b"{pipes}")
    target = other_master(cluster, slot)
    async with client_of(cluster) as client:
        keys = [f"{{pipes}}{number}" for number in range(20)]
        stays = "pipes stay"
        assert key_slot(stays.encode()) != slot
        await client.delete(stays, *keys)
        rounds = dict.fromkeys(keys, 0)
        is_over = False

        async def count(key: str) -> None:
            while not is_over:
                rounds[key] += 1
                pipe = client.pipeline().incr(key).incr(stays).incr(key).get(key)
                first, _, second, value = await pipe.execute()
                assert (first, second, value) == (rounds[key] * 2 - 1, rounds[key] * 2, str(second))
                await asyncio.sleep(0.001)

        counters = [asyncio.create_task(count(key)) for key in keys]
        new = f"{{pipes}}new{time.monotonic()}"
        async with slot_that_moves(cluster, slot, target, lambda: min(rounds.values())):
            assert await client.pipeline().incr(new).incr(new).execute() == [1, 2]
        is_over = True
        await asyncio.gather(*counters)
        assert cluster.master_of(slot) is target
        assert [int(value) for value in await client.mget(keys)] == [2 * count for count in rounds.values()]
        assert int(await client.get(stays)) == sum(rounds.values())
        await client.delete(stays, new, *keys)


@pytest.mark.usefixtures("only_native")
async def test_pipelines_whose_master_is_killed(cluster: Cluster, loop: Any) -> None:
    """A pipeline that may have run in part raises, and is not sent again; others wait for the new master."""
    slot = key_slot(b"{killed pipes}")
    old = cluster.master_of(slot)
    other = next(
        f"elsewhere {number}"
        for number in range(1000)
        if cluster.master_of(key_slot(f"elsewhere {number}".encode())) is not old
    )
    async with client_of(cluster) as client:
        await client.delete(other)
        done: list[float] = []
        errors: list[RedisError] = []
        begun = 0
        is_over = False

        async def write(key: str) -> None:
            nonlocal begun
            last = int(await client.delete(key)) and 0
            while not is_over:
                begun += 1
                try:
                    first, _, second = await client.pipeline().incr(key).incr(other).incr(key).execute()
                except (ConnectionError, TimeoutError, ClusterDownError) as error:
                    errors.append(error)
                    await asyncio.sleep(0.01)
                else:
                    assert second == first + 1 > last
                    last = second
                    done.append(time.monotonic())

        tasks = [asyncio.create_task(write(f"{{killed pipes}}{number}")) for number in range(10)]
        await until(lambda: len(done) > 100)
        _, replaced = await kill_under_load(cluster, slot)
        await until(lambda: done[-1] > replaced)
        is_over = True
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        # What a living node was sent has run once at most, and always where no error was raised.
        assert begun - len(errors) <= int(await client.get(other)) <= begun
        assert errors
        # A node may still take the cluster for down when the part for another one has run.
        lost = [str(error) for error in errors if not isinstance(error, ClusterDownError)]
        assert all("may have run" in text for text in lost), errors
        await client.delete(other)


@pytest.mark.usefixtures("only_native")
async def test_a_killed_master_is_replaced_under_load(cluster: Cluster, loop: Any) -> None:
    """Writes that were on their way are errors, others wait; reads only wait."""
    slot = key_slot(b"{kill}")
    async with client_of(cluster) as client:
        await client.set("{kill}read", "value")
        acknowledged: list[float] = []
        errors: list[RedisError] = []
        is_over = False

        async def write(number: int) -> None:
            while not is_over:
                try:
                    await client.incr(f"{{kill}}{number}")
                except (ConnectionError, TimeoutError) as error:
                    errors.append(error)
                    await asyncio.sleep(0.01)
                else:
                    acknowledged.append(time.monotonic())

        async def read() -> None:
            while not is_over:
                assert await client.get("{kill}read") in ("value", None)

        tasks = [asyncio.create_task(write(number)) for number in range(20)]
        tasks += [asyncio.create_task(read()) for _ in range(5)]
        await until(lambda: len(acknowledged) > 200)
        killed, replaced = await kill_under_load(cluster, slot)
        await until(lambda: acknowledged[-1] > replaced)
        recovered = acknowledged[-1]
        is_over = True
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        print(
            f"replaced after {replaced - killed:.2f} s, used after {recovered - replaced:.2f} s more",
            len(errors),
        )
        # The longest wait of the back-off, and what the cluster takes to agree.
        assert recovered - replaced < 0.5 + 2.5
        assert 1 <= len(errors) <= 20, errors
        assert all("may have run" in str(error) for error in errors), errors


@pytest.mark.usefixtures("only_native")
async def test_what_may_run_twice_is_sent_again_when_its_node_dies(cluster: Cluster, loop: Any) -> None:
    slot = key_slot(b"{twice}")
    old = cluster.master_of(slot)
    async with client_of(cluster, idempotent=["SET"]) as client:
        assert await client.set("{twice}", "1")
        old.pause()
        calls = [asyncio.create_task(client.set("{twice}", "2")) for _ in range(10)]
        await asyncio.sleep(0.05)
        old.kill()
        assert await asyncio.wait_for(asyncio.gather(*calls), 30) == [True] * 10
        assert await client.get("{twice}") == "2"
