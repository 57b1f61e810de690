"""Dask distributed: a local cluster on the loop under test, its workers in this process or in their own."""

from __future__ import annotations

import asyncio
import multiprocessing.resource_tracker
import operator
import os
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

distributed = pytest.importorskip("distributed", reason="Dask distributed cannot be had for this Python")
import dask  # noqa: E402
from tornado.ioloop import IOLoop  # noqa: E402

BLOB = os.urandom(4 << 20)
# Of the module, because what workers get goes through pickle, also within one process.
STARTED, RELEASE = threading.Event(), threading.Event()
# Dask's watchers of processes, and what multiprocessing feeds a queue by.
CLOSERS_OF_PIPES = ("AsyncProcess", "QueueFeederThread")


def hold() -> None:
    STARTED.set()
    RELEASE.wait(20)


@pytest.fixture(autouse=True)
def without_profiler() -> Iterator[None]:
    """Leave out the threads that look into our frames until the loop is closed, and keep what is in them."""
    with dask.config.set({"distributed.worker.profile.enabled": False}):
        yield


@asynccontextmanager
async def cluster_and_client(**options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Start a scheduler and workers on the running loop, with their web pages on any free port."""
    options = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "protocol": "tcp",
        "dashboard_address": "127.0.0.1:0",
        **options,
    }
    async with (
        distributed.LocalCluster(**options, asynchronous=True) as cluster,
        distributed.Client(cluster, asynchronous=True) as client,
    ):
        assert IOLoop.current().asyncio_loop is asyncio.get_running_loop()
        yield cluster, client
    # It remembers methods, and with them the scheduler and the last timers of its senders.
    distributed.core._expects_comm.cache_clear()
    # Threads that outlive their cluster a little close the pipes to the processes of workers.
    while any(thread.name.startswith(CLOSERS_OF_PIPES) for thread in threading.enumerate()):
        await asyncio.sleep(0.005)


async def test_a_graph_of_tasks(loop: asyncio.AbstractEventLoop) -> None:
    async with cluster_and_client(processes=False) as (_, client):
        squares = client.map(lambda number: number * number, range(200))
        total = client.submit(sum, squares)
        assert await total == sum(number * number for number in range(200))
        assert await client.gather(squares[:5]) == [0, 1, 4, 9, 16]

        failing = client.submit(operator.truediv, 1, 0)
        with pytest.raises(ZeroDivisionError):
            await failing
        assert await client.submit(lambda error: 1, failing, key="after").exception() is not None

        finished = 0
        async for _future, result in distributed.as_completed(
            client.map(abs, range(-20, 0)), with_results=True
        ):
            assert 0 < result <= 20
            finished += 1
        assert finished == 20


async def test_data_moves_between_workers(loop: asyncio.AbstractEventLoop) -> None:
    async with cluster_and_client(processes=False) as (cluster, client):
        first, second = (worker.address for worker in cluster.workers.values())
        remote = await client.scatter(BLOB, workers=[first], hash=False)
        length = client.submit(len, remote, workers=[second], allow_other_workers=False)
        assert await length == len(BLOB)
        assert set((await client.who_has([remote]))[remote.key]) == {first, second}
        assert await client.gather(remote) == BLOB


async def test_coordination_between_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Queues, events, coroutines as tasks and actors, all on one loop."""

    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def increment(self) -> int:
            self.count += 1
            return self.count

    async with cluster_and_client(processes=False) as (_, client):
        queue = await distributed.Queue("results")
        go = await distributed.Event("go")

        async def wait_for_it(number: int) -> tuple[int, int]:
            await asyncio.sleep(0.01)
            return number, id(asyncio.get_running_loop())

        async def producer() -> None:
            await go.wait(timeout=20)
            for result in await client.gather(client.map(wait_for_it, range(4), pure=False)):
                await queue.put(result)

        producing = asyncio.create_task(producer())
        await go.set()
        assert [await queue.get(timeout=20) for _ in range(4)] == [(number, id(loop)) for number in range(4)]
        await producing

        counter = await client.submit(Counter, actor=True)
        assert [await counter.increment() for _ in range(3)] == [1, 2, 3]


async def test_work_is_cancelled_and_workers_come_and_go(loop: asyncio.AbstractEventLoop) -> None:
    STARTED.clear()
    RELEASE.clear()
    async with cluster_and_client(processes=False) as (cluster, client):
        held = client.submit(hold, pure=False)
        await asyncio.to_thread(STARTED.wait, 20)
        await held.cancel()
        RELEASE.set()
        with pytest.raises(distributed.client.FutureCancelledError):
            await held
        cluster.scale(4)
        await client.wait_for_workers(4)
        assert await client.gather(client.map(abs, range(-50, 0))) == list(range(50, 0, -1))
        cluster.scale(1)
        while len(cluster.scheduler.workers) > 1:
            await asyncio.sleep(0.01)
        assert await client.submit(sum, [1, 2]) == 3


@pytest.fixture
def resource_tracker() -> None:
    """Have the process of multiprocessing run that, once started, stays: before anything is counted."""
    with warnings.catch_warnings():
        # Tests before this one may have ended it; then it is started anew, with a warning.
        warnings.simplefilter("ignore")
        multiprocessing.resource_tracker.ensure_running()


@pytest.mark.usefixtures("resource_tracker")
async def test_a_worker_in_a_process_of_its_own(loop: asyncio.AbstractEventLoop) -> None:
    async with cluster_and_client(processes=True, n_workers=1) as (_, client):
        assert await client.submit(os.getpid) != os.getpid()
        remote = await client.scatter(BLOB, hash=False)
        assert await client.gather(remote) == BLOB
        assert await client.gather(client.map(abs, range(-100, 0))) == list(range(100, 0, -1))
