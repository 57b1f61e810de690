"""StreamWorker: every event is handled at least once, and one that goes wrong never touches the others."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from services import Unavailable, redis_server

pytest.importorskip("redis.asyncio", reason="redis-py cannot be had for this Python")

from aioxide.redis import Redis
from aioxide.redis.worker import Event, EventsFailed, Reject, StreamWorker

PATIENCE = 20.0


@pytest.fixture
def stream() -> str:
    return f"events:{uuid.uuid4().hex}"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(url, decode_responses=True) as client:
        yield client


@asynccontextmanager
async def running(worker: StreamWorker) -> AsyncIterator[StreamWorker]:
    """Run a worker in the background and end it with the block, which fails if the worker did."""
    async with worker:
        yield worker


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that cannot be awaited; it may be a coroutine function."""
    async with asyncio.timeout(PATIENCE):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.005)


async def add(client: Any, stream: str, numbers: Any) -> list[str]:
    """Add events with a number each; return their ids."""
    async with client.pipeline(transaction=False) as pipeline:
        for number in numbers:
            pipeline.xadd(stream, {"number": number})
        return await pipeline.execute()


async def pending(client: Any, stream: str, group: str = "group") -> int:
    return (await client.xpending(stream, group))["pending"]


class Recorder:
    """A handler that remembers what it was given, and does with it what the test wants."""

    def __init__(self, behaviour: Callable[[Event], Any] | None = None) -> None:
        self.numbers: list[int] = []
        self.events: list[Event] = []
        self.running = 0
        self.most_running = 0
        self._behaviour = behaviour

    async def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self._behaviour is not None:
                await self._behaviour(event)
        finally:
            self.running -= 1
        self.numbers.append(int(event.fields["number"]))


async def test_every_event_is_handled_once_and_acknowledged(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(300))
        handler = Recorder()
        async with running(StreamWorker(url, stream, "group", handler)) as worker:
            await until(lambda: len(handler.numbers) == 300)
            await add(client, stream, range(300, 400))
            await until(lambda: worker.statistics()["acknowledged"] == 400)
        assert sorted(handler.numbers) == list(range(400))
        assert await pending(client, stream) == 0
        event = handler.events[0]
        assert (event.stream, event.deliveries, event.fields) == (stream, 1, {"number": "0"})
        assert abs(event.timestamp - time.time()) < 60
        counted = worker.statistics()
        assert (counted["read"], counted["succeeded"], counted["held"], counted["errors"]) == (400, 400, 0, 0)


async def test_one_event_after_the_other_keeps_their_order(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(50))
        handler = Recorder(lambda event: asyncio.sleep(0))
        async with running(StreamWorker(url, stream, "group", handler, concurrency=1)):
            await until(lambda: len(handler.numbers) == 50)
        assert handler.numbers == list(range(50))


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("decode", [False, True])
async def test_a_client_of_the_callers_is_used_and_left_open(
    loop: asyncio.AbstractEventLoop, url: str, stream: str, protocol: int, decode: bool
) -> None:
    given: list[Event] = []

    async def keep(event: Event) -> None:
        given.append(event)

    async with Redis.from_url(url, protocol=protocol, decode_responses=decode) as client:
        ids = await add(client, stream, range(20))
        async with running(StreamWorker(client, [stream], "group", keep)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 20)
        assert await client.ping()
    assert [event.id for event in given] == [id if decode else id.decode() for id in ids]
    assert given[7].fields == ({"number": "7"} if decode else {b"number": b"7"})


async def test_calls_never_exceed_the_concurrency_and_reach_it(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(200))
        handler = Recorder(lambda event: asyncio.sleep(0.002 * (int(event.fields["number"]) % 3)))
        async with running(StreamWorker(url, stream, "group", handler, concurrency=7)) as worker:
            while len(handler.numbers) < 200:
                assert worker.statistics()["running"] <= 7
                await asyncio.sleep(0.001)
        assert handler.most_running == 7


async def test_a_worker_holds_no_more_than_it_can_run(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(100))
        gate = asyncio.Event()
        handler = Recorder(lambda event: gate.wait())
        async with running(StreamWorker(url, stream, "group", handler, concurrency=5)):
            await until(lambda: handler.running == 5)
            await asyncio.sleep(0.05)
            assert await pending(client, stream) == 5
            gate.set()
            await until(lambda: len(handler.numbers) == 100)


async def test_a_batch_is_a_list_of_at_most_so_many_events(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    batches: list[list[int]] = []

    async def handle(events: list[Event]) -> None:
        batches.append([int(event.fields["number"]) for event in events])

    async with connected(url) as client:
        await add(client, stream, range(100))
        async with running(StreamWorker(url, stream, "group", handle, batch=30, concurrency=1)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 100)
    assert [len(batch) for batch in batches] == [30, 30, 30, 10]
    assert [number for batch in batches for number in batch] == list(range(100))


async def test_a_failed_batch_is_delivered_again_event_by_event(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    batches: list[list[int]] = []

    async def handle(events: list[Event]) -> None:
        numbers = [int(event.fields["number"]) for event in events]
        batches.append(numbers)
        if 3 in numbers:
            raise ValueError("3 is poison")

    async with connected(url) as client:
        await add(client, stream, range(8))
        options = {"batch": 8, "retry_delay": 0.01, "max_deliveries": 2}
        async with running(StreamWorker(url, stream, "group", handle, **options)):
            await until(lambda: client.xlen(f"{stream}:dead"))
            await until(lambda: len(batches) == 9)
        assert batches[0] == list(range(8))
        assert sorted(batches[1:]) == [[number] for number in range(8)]
        [(_, dead)] = await client.xrange(f"{stream}:dead")
        assert dead["number"] == "3"
        assert await pending(client, stream) == 0


async def test_a_batch_may_fail_in_part(loop: asyncio.AbstractEventLoop, url: str, stream: str) -> None:
    handled: Counter[int] = Counter()

    async def handle(events: list[Event]) -> None:
        handled.update(int(event.fields["number"]) for event in events)
        failed = {event: ValueError("odd") for event in events if int(event.fields["number"]) % 2}
        if failed and events[0].deliveries == 1:
            raise EventsFailed(failed)

    async with connected(url) as client:
        await add(client, stream, range(10))
        async with running(StreamWorker(url, stream, "group", handle, batch=10, retry_delay=0.01)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 10)
        assert handled == {number: 1 + number % 2 for number in range(10)}
        assert worker.statistics()["failed"] == 5


async def test_an_event_is_acknowledged_after_success_only(
    loop: asyncio.AbstractEventLoop, url: str, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail_twice(event: Event) -> None:
        assert await client.xpending_range(stream, "group", event.id, event.id, 1)
        if event.deliveries < 3:
            raise ValueError("not yet")

    async with connected(url) as client:
        [id] = await add(client, stream, [1])
        handler = Recorder(fail_twice)
        async with running(StreamWorker(url, stream, "group", handler, retry_delay=0.01)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 1)
        assert [event.deliveries for event in handler.events] == [1, 2, 3]
        assert worker.statistics()["failed"] == 2
        assert await pending(client, stream) == 0
        complaints = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(complaints) == 2
        assert all(id in complaint and "ValueError: not yet" in complaint for complaint in complaints)


async def test_poison_goes_to_the_dead_letters_and_blocks_nobody(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async def choke(event: Event) -> None:
        if int(event.fields["number"]) % 10 == 0:
            raise ValueError(f"cannot digest {event.fields['number']}")

    async with connected(url) as client:
        ids = await add(client, stream, range(100))
        handler = Recorder(choke)
        options = {"concurrency": 2, "max_deliveries": 3, "retry_delay": 0.02, "consumer": "one"}
        async with running(StreamWorker(url, stream, "group", handler, **options)) as worker:
            await until(lambda: worker.statistics()["dead_lettered"] == 10)
            await until(lambda: worker.statistics()["acknowledged"] == 90)
        assert sorted(handler.numbers) == [number for number in range(100) if number % 10]
        assert Counter(event.fields["number"] for event in handler.events)["50"] == 3
        dead = {fields["number"]: fields for _, fields in await client.xrange(f"{stream}:dead")}
        assert sorted(dead) == sorted(str(number) for number in range(0, 100, 10))
        assert dead["50"] == {
            "number": "50",
            "dead-letter-reason": "ValueError: cannot digest 50",
            "dead-letter-stream": stream,
            "dead-letter-id": ids[50],
            "dead-letter-group": "group",
            "dead-letter-consumer": "one",
            "dead-letter-deliveries": "3",
        }
        assert await pending(client, stream) == 0


async def test_a_rejected_event_is_not_tried_again(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async def reject(event: Event) -> None:
        raise Reject("no such customer")

    async with connected(url) as client:
        await add(client, stream, [7])
        handler = Recorder(reject)
        options = {"dead_letter": f"{stream}:elsewhere", "dead_letter_limit": 1000}
        async with running(StreamWorker(url, stream, "group", handler, **options)) as worker:
            await until(lambda: worker.statistics()["dead_lettered"] == 1)
        assert len(handler.events) == 1
        [(_, dead)] = await client.xrange(f"{stream}:elsewhere")
        assert dead["dead-letter-reason"] == "Reject: no such customer"


async def test_what_is_given_up_can_be_dropped(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async def reject(event: Event) -> None:
        raise Reject

    async with connected(url) as client:
        await add(client, stream, [7])
        async with running(StreamWorker(url, stream, "group", reject, dead_letter=None)) as worker:
            await until(lambda: worker.statistics()["dropped"] == 1)
        assert await pending(client, stream) == 0
        assert await client.keys(f"{stream}:*") == []


async def test_without_a_limit_an_event_is_never_given_up(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async def fail_often(event: Event) -> None:
        if event.deliveries < 12:
            raise ValueError

    async with connected(url) as client:
        await add(client, stream, [7])
        handler = Recorder(fail_often)
        options = {"max_deliveries": None, "retry_delay": 0.0}
        async with running(StreamWorker(url, stream, "group", handler, **options)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 1)
        assert len(handler.events) == 12


async def test_fields_that_are_no_text_are_no_obstacle(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with Redis.from_url(url) as client:
        await client.xadd(stream, {"number": 1})
        await client.xadd(stream, {"number": b"\xff\xfe"})
        await client.xadd(stream, {"number": 2})
        handler = Recorder()
        async with running(StreamWorker(url, stream, "group", handler)) as worker:
            await until(lambda: worker.statistics()["dead_lettered"] == 1)
            await until(lambda: worker.statistics()["acknowledged"] == 2)
        assert handler.numbers == [1, 2]
        [(_, dead)] = await client.xrange(f"{stream}:dead")
        assert dead[b"number"] == b"\xff\xfe"
        assert dead[b"dead-letter-reason"].startswith(b"Reject: UnicodeDecodeError")

        given: list[bytes] = []

        async def keep(event: Event) -> None:
            given.append(event.fields[b"number"])

        async with running(StreamWorker(url, stream, "bytes", keep, decode=False)):
            await until(lambda: len(given) == 3)
        assert given == [b"1", b"\xff\xfe", b"2"]


async def test_a_call_that_takes_too_long_has_failed(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async def hang_once(event: Event) -> None:
        if event.deliveries == 1:
            await asyncio.Event().wait()

    async with connected(url) as client:
        await add(client, stream, [7])
        handler = Recorder(hang_once)
        options = {"timeout": 0.05, "retry_delay": 0.01}
        async with running(StreamWorker(url, stream, "group", handler, **options)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 1)
        assert worker.statistics()["failed"] == 1


async def test_a_call_that_cancels_itself_has_failed(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async def cancel_once(event: Event) -> None:
        if event.deliveries == 1:
            raise asyncio.CancelledError

    async with connected(url) as client:
        await add(client, stream, [7])
        handler = Recorder(cancel_once)
        async with running(StreamWorker(url, stream, "group", handler, retry_delay=0.01)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 1)
        assert worker.statistics()["failed"] == 1


async def test_two_groups_see_every_event_each(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(50))
        one, other, newcomer = Recorder(), Recorder(), Recorder()
        async with (
            running(StreamWorker(url, stream, "one", one)),
            running(StreamWorker(url, stream, "other", other)),
            running(StreamWorker(url, stream, "newcomer", newcomer, start="$")),
        ):
            await until(lambda: len(one.numbers) == len(other.numbers) == 50)
            await until(lambda: client.exists(stream))
            await until(
                lambda: _group_exists(client, stream, "newcomer"),
            )
            await add(client, stream, [50])
            await until(lambda: len(one.numbers) == len(other.numbers) == 51 and newcomer.numbers)
        assert newcomer.numbers == [50]


async def _group_exists(client: Any, stream: str, group: str) -> bool:
    return group in [one["name"] for one in await client.xinfo_groups(stream)]


async def test_several_streams_are_read_by_one_worker(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        names = [f"{stream}:{number}" for number in range(3)]
        handler = Recorder()
        async with running(StreamWorker(url, names, "group", handler, concurrency=3)) as worker:
            for name in names:
                await add(client, name, range(40))
            await until(lambda: worker.statistics()["acknowledged"] == 120)
        assert Counter(event.stream for event in handler.events) == dict.fromkeys(names, 40)
        assert handler.most_running <= 3


async def test_workers_of_a_group_share_the_events(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        handlers = [Recorder(lambda event: asyncio.sleep(0.001)) for _ in range(3)]
        async with (
            running(StreamWorker(url, stream, "group", handlers[0], concurrency=2)),
            running(StreamWorker(url, stream, "group", handlers[1], concurrency=2)),
            running(StreamWorker(url, stream, "group", handlers[2], concurrency=2)),
        ):
            await add(client, stream, range(300))
            await until(lambda: sum(len(handler.numbers) for handler in handlers) == 300)
        assert sorted(number for handler in handlers for number in handler.numbers) == list(range(300))
        assert all(handler.numbers for handler in handlers)


async def test_what_a_process_of_this_name_left_is_handled_at_once(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(5))
        await client.xgroup_create(stream, "group", id="0")
        await client.xreadgroup("group", "me", {stream: ">"})
        handler = Recorder()
        # Nobody may claim them for an hour; the name is enough.
        options = {"consumer": "me", "claim_idle": 3600.0}
        async with running(StreamWorker(url, stream, "group", handler, **options)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 5)
        assert handler.numbers == list(range(5))
        assert {event.deliveries for event in handler.events} == {2}
        assert worker.statistics()["recovered"] == 5


async def test_what_a_dead_worker_held_is_claimed(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(30))
        await client.xgroup_create(stream, "group", id="0")
        await client.xreadgroup("group", "dead", {stream: ">"})
        handler = Recorder()
        options = {"claim_idle": 0.2, "concurrency": 4}
        async with running(StreamWorker(url, stream, "group", handler, **options)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 30)
        assert sorted(handler.numbers) == list(range(30))
        assert worker.statistics()["claimed"] == 30


async def test_what_ended_processes_again_and_again_is_taken_up_alone(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    """Entries that were read together with one that kills processes are not blamed for it."""
    async with connected(url) as client:
        ids = await add(client, stream, range(6))
        await client.xgroup_create(stream, "group", id="0")
        await client.xreadgroup("group", "me", {stream: ">"})
        await client.xclaim(stream, "group", "me", 0, ids[:3], retrycount=3, justid=True)
        await client.xclaim(stream, "group", "me", 0, ids[3:4], retrycount=5, justid=True)
        together: dict[int, int] = {}

        async def note(event: Event) -> None:
            await asyncio.sleep(0.01)
            together[int(event.fields["number"])] = handler.running

        handler = Recorder(note)
        async with running(StreamWorker(url, stream, "group", handler, consumer="me")) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 5)
            await until(lambda: worker.statistics()["dead_lettered"] == 1)
        # Those delivered once come first, together; then the suspects, one by one; one is given up unseen.
        assert handler.numbers == [4, 5, 0, 1, 2]
        assert [together[number] for number in (0, 1, 2)] == [1, 1, 1]
        [(_, dead)] = await client.xrange(f"{stream}:dead")
        assert dead["number"] == "3"
        assert "delivered 5 times, never acknowledged" in dead["dead-letter-reason"]


async def test_a_slow_handler_is_not_run_twice(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        handler = Recorder(lambda event: asyncio.sleep(1.5))
        async with (
            running(StreamWorker(url, stream, "group", handler, claim_idle=0.5)) as one,
            running(StreamWorker(url, stream, "group", handler, claim_idle=0.5)) as other,
        ):
            await add(client, stream, range(4))
            await until(lambda: len(handler.numbers) == 4)
        assert len(handler.events) == 4
        counted = [worker.statistics() for worker in (one, other)]
        assert sum(count["claimed"] + count["lost"] for count in counted) == 0


async def test_a_stopped_worker_ends_what_runs_and_gives_back_the_rest(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(30))
        gate = asyncio.Event()
        handler = Recorder(lambda event: gate.wait())
        worker = StreamWorker(url, stream, "group", handler, concurrency=2, consumer="first", claim_idle=60.0)
        task = asyncio.create_task(worker.run())
        await until(lambda: handler.running == 2)
        worker.stop()
        await asyncio.sleep(0.05)
        assert handler.running == 2
        gate.set()
        await task
        assert len(handler.numbers) == 2
        assert await pending(client, stream) == 0

        another = Recorder()
        async with running(StreamWorker(url, stream, "group", another, claim_idle=60.0)):
            await until(lambda: len(another.numbers) == 28)
        assert sorted(handler.numbers + another.numbers) == list(range(30))


async def test_what_was_given_back_counts_as_not_delivered_and_is_claimed_soon(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(2))
        gate = asyncio.Event()
        handler = Recorder(lambda event: gate.wait())
        worker = StreamWorker(url, stream, "group", handler, concurrency=1, consumer="first")
        task = asyncio.create_task(worker.run())
        await until(lambda: handler.running == 1)
        # An entry that Redis has delivered and the worker has not begun: taken under its name by hand.
        [[_, [(id, _)]]] = await client.xreadgroup("group", "first", {stream: ">"}, count=1)
        worker.stop()
        gate.set()
        await task
        [entry] = await client.xpending_range(stream, "group", "-", "+", 10)
        assert (entry["message_id"], entry["times_delivered"]) == (id, 0)
        # It looks idle to those who claim: they need not wait for half a minute.
        assert entry["time_since_delivered"] >= 30_000
        another = Recorder()
        async with running(StreamWorker(url, stream, "group", another)):
            await until(lambda: another.numbers == [1])
        assert another.events[0].deliveries == 1


async def test_calls_that_outlast_the_grace_are_cancelled_and_given_back(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, [1])
        handler = Recorder(lambda event: asyncio.Event().wait())
        worker = StreamWorker(url, stream, "group", handler, grace=0.1, consumer="first")
        task = asyncio.create_task(worker.run())
        await until(lambda: handler.running == 1)
        worker.stop()
        await task
        assert handler.running == 0
        [entry] = await client.xpending_range(stream, "group", "-", "+", 10)
        assert entry["times_delivered"] == 1
        assert entry["time_since_delivered"] >= 30_000


async def test_asked_twice_a_worker_does_not_wait_for_its_calls(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, [1])
        handler = Recorder(lambda event: asyncio.Event().wait())
        worker = StreamWorker(url, stream, "group", handler)
        task = asyncio.create_task(worker.run())
        await until(lambda: handler.running == 1)
        worker.stop()
        worker.stop()
        async with asyncio.timeout(PATIENCE):
            await task
        assert await pending(client, stream) == 1


async def test_a_cancelled_worker_cancels_its_calls_and_gives_everything_back(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(20))
        handler = Recorder(lambda event: asyncio.Event().wait())
        worker = StreamWorker(url, stream, "group", handler, concurrency=5)
        task = asyncio.create_task(worker.run())
        await until(lambda: handler.running == 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert handler.running == 0
        assert worker.statistics()["held"] == 0
        assert worker.statistics()["released"] == 5
        another = Recorder()
        async with running(StreamWorker(url, stream, "group", another)):
            await until(lambda: len(another.numbers) == 20)
        assert sorted(another.numbers) == list(range(20))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_all_workers_of_the_loop(
    loop: asyncio.AbstractEventLoop, url: str, stream: str, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    async with connected(url) as client:
        await add(client, stream, range(3))
        gate = asyncio.Event()
        handlers = [Recorder(lambda event: gate.wait()) for _ in range(2)]
        tasks = [
            asyncio.create_task(StreamWorker(url, stream, group, handler).run())
            for group, handler in zip(("one", "other"), handlers, strict=True)
        ]
        await until(lambda: [handler.running for handler in handlers] == [3, 3])
        signal.raise_signal(number)
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*tasks)
        assert [len(handler.numbers) for handler in handlers] == [3, 3]
    assert signal.getsignal(number) == before


async def test_a_consumer_without_a_name_leaves_no_trace(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(3))
        handler = Recorder()
        async with running(StreamWorker(url, stream, "group", handler)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 3)
        assert await client.xinfo_consumers(stream, "group") == []


async def test_killed_connections_lose_nothing(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        handler = Recorder(lambda event: asyncio.sleep(0.001))
        async with running(StreamWorker(url, stream, "group", handler, claim_idle=1.0)) as worker:
            for round_ in range(10):
                await add(client, stream, range(round_ * 20, round_ * 20 + 20))
                await client.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.02)
            await until(lambda: set(handler.numbers) == set(range(200)))
            await until(lambda: worker.statistics()["held"] == 0)
        assert await pending(client, stream) == 0


async def test_a_group_that_disappears_is_made_again(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        handler = Recorder()
        async with running(StreamWorker(url, stream, "group", handler)) as worker:
            await until(lambda: client.exists(stream))
            await client.xgroup_destroy(stream, "group")
            await add(client, stream, [1])
            await until(lambda: handler.numbers == [1])
            await until(lambda: worker.statistics()["acknowledged"] == 1)
            await client.delete(stream)
            await add(client, stream, [2])
            await until(lambda: handler.numbers == [1, 2])


async def test_entries_trimmed_while_pending_are_let_go(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(10))
        await client.xgroup_create(stream, "group", id="0")
        await client.xreadgroup("group", "dead", {stream: ">"}, count=5)
        await client.xreadgroup("group", "me", {stream: ">"}, count=5)
        await client.xtrim(stream, maxlen=0, approximate=False)
        handler = Recorder()
        async with running(StreamWorker(url, stream, "group", handler, consumer="me", claim_idle=0.1)):
            await add(client, stream, [11])
            await until(lambda: handler.numbers == [11])

            async def nothing_is_pending() -> bool:
                return await pending(client, stream) == 0

            await until(nothing_is_pending)


async def test_acknowledged_events_can_be_deleted(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(10))
        handler = Recorder()
        async with running(StreamWorker(url, stream, "group", handler, delete=True)) as worker:
            await until(lambda: worker.statistics()["acknowledged"] == 10)
        assert await client.xlen(stream) == 0


async def test_acknowledgements_of_one_turn_travel_together(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, range(100))
        gate = asyncio.Event()
        handler = Recorder(lambda event: gate.wait())
        async with running(StreamWorker(url, stream, "group", handler, concurrency=100)) as worker:
            await until(lambda: handler.running == 100)
            before = (await client.info("commandstats")).get("cmdstat_xack", {"calls": 0})["calls"]
            gate.set()
            await until(lambda: worker.statistics()["acknowledged"] == 100)
            after = (await client.info("commandstats"))["cmdstat_xack"]["calls"]
        assert after - before <= 3


async def test_a_handler_that_is_no_coroutine_function_is_said_at_once(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    async with connected(url) as client:
        await add(client, stream, [1])
        with pytest.raises(TypeError, match="no coroutine function"):
            async with asyncio.timeout(PATIENCE):
                await StreamWorker(url, stream, "group", lambda event: None).run()
        # It is not the event's fault.
        assert await client.exists(f"{stream}:dead") == 0


async def test_a_key_that_is_no_stream_is_said_at_once(
    loop: asyncio.AbstractEventLoop, url: str, stream: str
) -> None:
    from redis.exceptions import ResponseError

    async with connected(url) as client:
        await client.set(stream, "text")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await StreamWorker(url, stream, "group", Recorder()).run()


async def test_a_worker_waits_for_a_server_that_is_not_there_yet_and_can_be_stopped(
    loop: asyncio.AbstractEventLoop, unused_port: int, stream: str
) -> None:
    worker = StreamWorker(f"redis://127.0.0.1:{unused_port}", stream, "group", Recorder())
    task = asyncio.create_task(worker.run())
    await until(lambda: worker.statistics()["errors"] >= 2)
    worker.stop()
    async with asyncio.timeout(PATIENCE):
        await task


async def test_a_replica_is_waited_for_until_it_is_promoted(
    loop: asyncio.AbstractEventLoop, unused_port: int, stream: str
) -> None:
    try:
        # A server of its own: what it is made to be would disturb the other tests.
        with redis_server() as server:
            await _promote_a_replica(f"redis://{server.host}:{server.port}", unused_port, stream)
    except Unavailable as reason:
        pytest.skip(str(reason))


async def _promote_a_replica(url: str, unused_port: int, stream: str) -> None:
    async with connected(url) as client:
        handler = Recorder()
        worker = StreamWorker(url, stream, "group", handler, consumer="me")
        await client.execute_command("REPLICAOF", "127.0.0.1", unused_port)
        async with running(worker):
            await until(lambda: worker.statistics()["errors"] >= 2)
            await client.execute_command("REPLICAOF", "NO", "ONE")
            await add(client, stream, range(10))
            await until(lambda: worker.statistics()["acknowledged"] == 10)
            errors = worker.statistics()["errors"]
            # And once more, in the middle.
            await client.execute_command("REPLICAOF", "127.0.0.1", unused_port)
            await until(lambda: worker.statistics()["errors"] > errors)
            await client.execute_command("REPLICAOF", "NO", "ONE")
            await add(client, stream, range(10, 20))
            await until(lambda: worker.statistics()["acknowledged"] == 20)
        assert sorted(handler.numbers) == list(range(20))


async def test_a_worker_runs_once(loop: asyncio.AbstractEventLoop, url: str, stream: str) -> None:
    worker = StreamWorker(url, stream, "group", Recorder())
    worker.stop()
    await worker.run()
    with pytest.raises(RuntimeError, match="runs once"):
        await worker.run()


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"batch": 0},
        {"batch": 5, "max_deliveries": 1},
        {"max_deliveries": 0},
        {"claim_idle": 0},
        {"retry_delay": -1},
        {"timeout": 0},
        {"streams": []},
    ],
)
def test_wrong_options_are_refused_before_anything_happens(options: dict[str, Any]) -> None:
    arguments = {"client": "redis://unused", "streams": "s", "group": "g", "handler": Recorder()}
    with pytest.raises(ValueError, match=r"."):
        StreamWorker(**{**arguments, **options})
