"""Masters and replicas that are found by asking sentinels, with real servers that die."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, SlaveNotFoundError
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError, TimeoutError
from topologies import SERVICE, Replicated, group, only_native, requires_redis, started_group, wait_until

import aioxide.redis
from aioxide.redis import Redis, Sentinel

__all__ = ["group", "only_native", "started_group"]

pytestmark = requires_redis


@contextlib.asynccontextmanager
async def sentinel_of(group: Replicated, **keywords: Any) -> AsyncIterator[Sentinel]:
    addresses = [sentinel.address for sentinel in group.sentinels]
    async with Sentinel(addresses, decode_responses=True, **keywords) as sentinel:
        yield sentinel


def patient(seconds: float = 10) -> Retry:
    """Retry for about so long, at least every half second."""
    return Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.5), int(seconds * 4))


async def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_a_client_of_the_service_talks_to_its_master(group: Replicated, loop: Any) -> None:
    async with sentinel_of(group) as sentinel, sentinel.master_for(SERVICE) as client:
        assert isinstance(client, Redis)
        assert await client.set("where", "master")
        assert (await client.role())[0] == "master"
        assert await sentinel.discover_master(SERVICE) == group.master.address
        assert group.master.ask("GET", "where") == "master"


async def test_a_client_of_the_replicas_reads_there_and_may_not_write(group: Replicated, loop: Any) -> None:
    async with sentinel_of(group) as sentinel:
        replicas = {server.port for server in group.replicas}
        assert {port for _, port in await sentinel.discover_slaves(SERVICE)} == replicas
        async with sentinel.slave_for(SERVICE) as client:
            assert (await client.role())[0] == "slave"
            with pytest.raises(ReadOnlyError):
                await client.set("where", "replica")
            assert (await client.role())[0] == "slave"


async def test_each_client_of_the_replicas_takes_the_next_one(
    group: Replicated, loop: Any, is_aioxide: bool
) -> None:
    async with sentinel_of(group) as sentinel, sentinel.replica_for(SERVICE) as client:
        ports = set()
        for _ in range(4):
            ports.add((await client.info("server"))["tcp_port"])
            if is_aioxide:
                client.native_engine().shared.disconnect()
            else:
                await client.connection_pool.disconnect()
            await asyncio.sleep(0)
        assert ports == {server.port for server in group.replicas}


async def test_commands_of_all_kinds_reach_the_master(group: Replicated, loop: Any) -> None:
    async with sentinel_of(group) as sentinel, sentinel.master_for(SERVICE) as client:
        await client.delete("list", "n")
        popped = asyncio.create_task(client.blpop("list", timeout=5))
        await asyncio.sleep(0)
        async with client.pipeline() as pipe:
            assert await pipe.incr("n").rpush("list", "item").execute() == [1, 1]
        assert await popped in (("list", "item"), ["list", "item"])
        async with client.pipeline() as pipe:
            await pipe.watch("n")
            pipe.multi()
            assert await pipe.incr("n").execute() == [2]
        async with client.pubsub() as subscription:
            await subscription.subscribe("news")
            assert (await subscription.get_message(timeout=5))["type"] == "subscribe"


async def test_a_service_that_no_sentinel_knows_has_no_master(group: Replicated, loop: Any) -> None:
    async with sentinel_of(group) as sentinel:
        with pytest.raises(MasterNotFoundError):
            await sentinel.discover_master("another")
        impatient = Retry(ExponentialWithJitterBackoff(base=0.001, cap=0.001), 2)
        async with sentinel.master_for("another", retry=impatient) as client:
            with pytest.raises(MasterNotFoundError):
                await client.get("key")
        async with sentinel.slave_for("another", retry=impatient) as client:
            with pytest.raises(SlaveNotFoundError):
                await client.get("key")


async def test_a_sentinel_that_knows_too_few_others_is_not_believed(group: Replicated, loop: Any) -> None:
    impatient = Retry(ExponentialWithJitterBackoff(base=0.001, cap=0.001), 1)
    for fewest, is_believed in ((2, True), (3, False)):
        async with (
            sentinel_of(group, min_other_sentinels=fewest) as sentinel,
            sentinel.master_for(SERVICE, retry=impatient) as client,
        ):
            if is_believed:
                assert await client.ping()
            else:
                with pytest.raises(MasterNotFoundError):
                    await client.ping()


@pytest.mark.usefixtures("only_native")
async def test_sentinels_that_are_down_are_passed_over(group: Replicated, loop: Any) -> None:
    for server in group.sentinels[:2]:
        server.kill()
    async with sentinel_of(group) as sentinel, sentinel.master_for(SERVICE, retry=patient()) as client:
        assert await client.ping()
        assert await sentinel.discover_master(SERVICE) == group.master.address


@pytest.mark.usefixtures("only_native")
async def test_after_the_master_was_replaced_later_commands_go_to_the_new_one(
    group: Replicated, loop: Any
) -> None:
    """The old master lives on as a replica, and answers READONLY: sentinels have not told it to hang up."""
    async with sentinel_of(group) as sentinel, sentinel.master_for(SERVICE, retry=patient()) as client:
        assert await client.set("who", "first")
        old = group.master
        wait_until(lambda: group.ask_sentinels("SENTINEL FAILOVER", SERVICE) in ("OK", True), "it begins")
        await until(lambda: group.master is not old)
        wait_until(lambda: old.ask("ROLE")[0] == "slave", "the old master follows")
        errors = []
        while True:
            try:
                await client.set("who", "second")
            except (ReadOnlyError, ConnectionError) as error:
                errors.append(error)
            else:
                break
        assert len(errors) <= 1, errors
        assert group.master.ask("GET", "who") == "second"


@pytest.mark.usefixtures("only_native")
async def test_a_master_that_answers_readonly_is_left(group: Replicated, loop: Any) -> None:
    """Nobody hangs up, and no sentinel is asked before: the answer alone tells."""
    async with sentinel_of(group) as sentinel, sentinel.master_for(SERVICE, retry=patient()) as client:
        assert await client.set("value", "1")
        group.master.ask("CONFIG SET", "min-replicas-to-write", 0)
        master = group.master
        master.ask("REPLICAOF", *group.replicas[0].address)
        calls = [client.get("value"), client.set("value", "2"), client.get("value")]
        read, refused, read_again = await asyncio.gather(*calls, return_exceptions=True)
        assert (read, read_again) == ("1", "1")
        assert isinstance(refused, ReadOnlyError)
        # It is still what the sentinels say; but it does not say of itself that it is the master.
        later = asyncio.create_task(client.set("value", "3"))
        await asyncio.sleep(0.05)
        assert not later.done()
        master.ask("REPLICAOF", "NO", "ONE")
        assert await asyncio.wait_for(later, 20)
        assert master.ask("GET", "value") == "3"


@pytest.mark.usefixtures("only_native")
async def test_a_killed_master_is_replaced_under_load(group: Replicated, loop: Any) -> None:
    """Writers see errors at most for what was on its way, or wait, and go on within the back-off."""
    async with sentinel_of(group) as sentinel, sentinel.master_for(SERVICE, retry=patient(20)) as client:
        await client.delete("counter")
        acknowledged: list[float] = []
        errors: list[RedisError] = []
        is_waiting = [False] * 20
        is_over = False

        async def write(number: int) -> None:
            while not is_over:
                is_waiting[number] = True
                try:
                    await client.incr("counter")
                except (ConnectionError, TimeoutError, ReadOnlyError) as error:
                    errors.append(error)
                    await asyncio.sleep(0.01)
                else:
                    acknowledged.append(time.monotonic())
                is_waiting[number] = False

        writers = [asyncio.create_task(write(number)) for number in range(len(is_waiting))]
        await until(lambda: len(acknowledged) > 200)
        old = group.master
        old.pause()
        # Now every writer has a command on its way that nobody answers.
        await until(lambda: sum(is_waiting) == len(is_waiting))
        await asyncio.sleep(0.02)
        killed = time.monotonic()
        old.kill()
        await until(lambda: group.master is not old)
        replaced = time.monotonic()
        await until(lambda: acknowledged[-1] > replaced)
        recovered = acknowledged[-1]
        is_over = True
        await asyncio.wait_for(asyncio.gather(*writers), 30)
        print(
            f"replaced after {replaced - killed:.2f} s, used after {recovered - replaced:.2f} s more",
            len(errors),
        )
        # The longest wait of the back-off, and time to connect.
        assert recovered - replaced < 0.5 + 2.5
        # One for each command that was on its way; everybody else waited.
        assert 1 <= len(errors) <= len(is_waiting), errors
        assert all("may have run" in str(error) for error in errors), errors


async def test_a_client_knows_the_api_of_redis_py(group: Replicated, loop: Any) -> None:
    pool = aioxide.redis.sentinel.SentinelConnectionPool
    async with sentinel_of(group, sentinel_kwargs={"socket_timeout": 1}) as sentinel:
        async with sentinel.master_for(SERVICE, redis_class=Redis, connection_pool_class=pool) as client:
            assert isinstance(client.connection_pool, pool)
            assert await client.ping()
        assert (await sentinel.sentinels[0].sentinel_masters())[SERVICE]["is_master"]
