"""Rust futures and native streams as awaitables: in the place of coroutines, whoever takes one.

`trial` makes what no method does on demand: a future that wakes itself, that other threads wake, that fails
or panics; inside of aioxide (`_trial_future`), and in an extension module (tests/extension). It needs
aioxide's loop. Everything else runs on asyncio too: what asyncio does with its coroutines shows what is
expected of our awaitables.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import errno
import functools
import gc
import inspect
import threading
import traceback
import warnings
import weakref

import aioxide
import pytest
from aioxide._rust import _trial_future
from extension_modules import BUILD_SECONDS, TRIAL, load
from peers import connected_pair

CONSUMERS = ("await", "task", "gather", "wait_for", "timeout", "task_group", "shield", "wait")


@pytest.fixture(params=["own", pytest.param("extension", marks=pytest.mark.timeout(BUILD_SECONDS))])
def trial(loop, is_aioxide, request):
    """A function that makes a Rust future of this loop."""
    if not is_aioxide:
        pytest.skip("asyncio has no Rust futures")
    if request.param == "own":
        yield functools.partial(_trial_future, loop)
        return
    module = load(TRIAL, "aioxide_trial")

    def make(*arguments, **options):
        async def made():
            return module.trial_future(*arguments, **options)

        if asyncio._get_running_loop() is loop:
            return module.trial_future(*arguments, **options)
        return loop.run_until_complete(made())

    yield make
    module.join_threads()


async def consume(how, awaitable):
    """Await something in one of the ways there are."""
    match how:
        case "await":
            return await awaitable
        case "task":
            return await asyncio.create_task(awaitable)
        case "gather":
            return (await asyncio.gather(awaitable))[0]
        case "wait_for":
            return await asyncio.wait_for(awaitable, 10)
        case "timeout":
            async with asyncio.timeout(10):
                return await awaitable
        case "task_group":
            async with asyncio.TaskGroup() as group:
                task = group.create_task(awaitable)
            return task.result()
        case "shield":
            return await asyncio.shield(awaitable)
        case "wait":
            (done, _) = await asyncio.wait([asyncio.ensure_future(awaitable)])
            return done.pop().result()


@pytest.mark.parametrize("how", CONSUMERS)
async def test_a_value_that_is_there_at_once(loop, how):
    with connected_pair() as (ours, _):
        reader, writer = await aioxide.open_connection(sock=ours)
        reader.feed_data(b"data")
        assert await consume(how, reader.read(4)) == b"data"
        writer.transport.abort()


@pytest.mark.parametrize("how", CONSUMERS)
async def test_a_value_that_comes_later(loop, how):
    with connected_pair() as (ours, peer):
        reader, writer = await aioxide.open_connection(sock=ours)
        loop.call_soon(peer.sendall, b"da")
        loop.call_later(0.001, peer.sendall, b"ta")
        assert await consume(how, reader.readexactly(4)) == b"data"
        writer.transport.abort()


@pytest.mark.parametrize("how", CONSUMERS)
@pytest.mark.parametrize(("kind", "count"), [("ready", 0), ("yields", 3), ("sleeps", 2), ("thread", 3)])
async def test_a_rust_future(loop, trial, how, kind, count):
    assert await consume(how, trial(kind, count, "value")) == "value"


@pytest.mark.parametrize("value", [None, (), (1, 2), ValueError("a value"), StopIteration(3), False])
async def test_values_of_every_kind_come_back_as_they_are(loop, trial, value):
    assert await trial("ready", 0, value) is value
    assert await asyncio.create_task(trial("ready", 0, value)) is value
    with pytest.raises(StopIteration) as stopped:
        trial("ready", 0, value).send(None)
    assert stopped.value.value is value


async def test_a_value_goes_when_its_awaiter_lets_it_go(loop, trial):
    class Value:
        pass

    value = Value()
    value_there = weakref.ref(value)
    made = trial("ready", 0, value)
    del value
    assert await made is not None
    del made
    assert value_there() is None


async def test_an_iteration_ended_by_hand_leaves_nothing_behind(loop, trial):
    class Local:
        pass

    def end_one():
        local = Local()
        try:
            next(trial("ready", 0, "plain"))
        except StopIteration as stop:
            stopped = stop
        return weakref.ref(local), stopped

    # The first one may have met an exception that `gc.freeze` has taken from the collector.
    for _ in range(2):
        local_there, stopped = end_one()
        assert await trial("ready", 0, "another") == "another"
        assert stopped.value == "plain"
        del stopped  # It is still in a cycle with its frame.
        await asyncio.sleep(0)
    gc.collect()
    assert local_there() is None


def test_run_until_complete(loop, trial):
    assert loop.run_until_complete(trial("thread", 1, "value")) == "value"


async def test_run_coroutine_threadsafe(loop, trial):
    def elsewhere():
        return asyncio.run_coroutine_threadsafe(trial_there, loop).result(10)

    trial_there = trial("sleeps", 1, "value")
    assert await loop.run_in_executor(None, elsewhere) == "value"


async def test_it_is_a_coroutine_and_no_future(loop):
    reader = aioxide.StreamReader(loop=loop)
    reader.feed_eof()
    awaitable = reader.read()
    assert isinstance(awaitable, collections.abc.Coroutine)
    assert asyncio.iscoroutine(awaitable)
    assert inspect.isawaitable(awaitable)
    assert not asyncio.isfuture(awaitable)
    assert (awaitable.__name__, awaitable.__qualname__) == ("read", "StreamReader.read")
    assert await awaitable == b""


async def test_a_second_await_is_refused(loop):
    reader = aioxide.StreamReader(loop=loop)
    reader.feed_eof()
    for awaitable in (reader.read(), reader.readline()):
        assert await awaitable == b""
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await awaitable
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            awaitable.throw(LookupError())


async def test_two_at_a_time_are_refused(loop, is_aioxide):
    reader = aioxide.StreamReader(loop=loop)
    awaitable = reader.read(4)

    async def wait():
        return await awaitable

    first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
    with pytest.raises(RuntimeError, match="is being awaited already"):
        await second
    reader.feed_data(b"data")
    assert await first == b"data"


@pytest.mark.parametrize("how", CONSUMERS)
async def test_cancelling_drops_the_future_first(loop, trial, how):
    events = []

    async def wait():
        awaitable = trial("never", dropped=lambda: events.append("dropped"))
        try:
            await consume(how, awaitable)
        except asyncio.CancelledError as error:
            events.append(("cancelled", *error.args))
            raise

    task = asyncio.create_task(wait())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    if how in ("shield", "wait"):  # what is inside goes on, and is cancelled by itself
        assert events == [("cancelled", "enough")]
        (inner,) = asyncio.all_tasks() - {asyncio.current_task()}
        inner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await inner
        assert events[1:] == ["dropped"]
    else:
        assert events[0] == "dropped"
        assert events[1][0] == "cancelled"
    gc.collect()


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize(("kind", "count"), [("yields", 3), ("thread", 2), ("sleeps", 1)])
async def test_cancelled_at_every_await(loop, trial, kind, count, turns):
    dropped = []
    task = asyncio.create_task(trial(kind, count, "value", lambda: dropped.append(threading.get_ident())))
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    try:
        assert await task == "value"
    except asyncio.CancelledError:
        assert not was_done
    assert dropped == [threading.get_ident()]


@pytest.mark.parametrize("turns", range(1, 5))
@pytest.mark.parametrize("how", CONSUMERS)
async def test_a_read_cancelled_at_every_await_takes_nothing(loop, how, turns):
    with connected_pair() as (ours, peer):
        reader, writer = await aioxide.open_connection(sock=ours)
        task = asyncio.create_task(consume(how, reader.readexactly(4)))
        peer.sendall(b"da")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for inner in asyncio.all_tasks() - {asyncio.current_task()}:
            inner.cancel()
            with pytest.raises(asyncio.CancelledError):
                await inner
        peer.sendall(b"ta")
        assert await reader.readexactly(4) == b"data"
        writer.transport.abort()


async def test_a_timeout_is_a_timeout(loop, trial):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(trial("never"), 0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await trial("never")


async def test_an_error_is_the_exception_of_its_errno(loop, trial):
    with pytest.raises(ConnectionResetError) as caught:
        await trial("fails", errno.ECONNRESET)
    assert caught.value.errno == errno.ECONNRESET


async def test_a_panic_is_an_exception_of_its_task_alone(loop, trial, capfd):
    other = asyncio.create_task(trial("sleeps", 1, "other"))
    dropped = []
    with pytest.raises(SystemError, match="panicked"):
        await asyncio.create_task(trial("panics", dropped=lambda: dropped.append(True)))
    assert dropped == [True]
    assert await other == "other"
    assert "a trial" in capfd.readouterr().err


async def test_the_context_of_the_task_is_kept(loop, trial):
    variable = contextvars.ContextVar("variable", default="outside")

    async def inside():
        variable.set("inside")
        await trial("thread", 1)
        return variable.get()

    assert await asyncio.create_task(inside()) == "inside"
    assert variable.get() == "outside"


async def test_a_future_that_wakes_itself_does_not_starve_the_loop(loop, trial):
    turns = 0

    def count():
        nonlocal turns
        turns += 1
        if not storm.done():
            loop.call_soon(count)

    storm = asyncio.create_task(trial("yields", 1000))
    loop.call_soon(count)
    timer = asyncio.create_task(asyncio.sleep(0))
    await timer
    assert not storm.done()
    await storm
    assert turns >= 500


async def test_waking_before_the_task_waits_is_not_lost(loop, trial):
    for _ in range(200):
        await trial("thread", 2)


def test_it_is_not_awaited_on_another_loop(loop, trial, loop_factory):
    async def wait(awaitable):
        await awaitable

    other = loop_factory()
    awaitable = trial("never")
    with pytest.raises(RuntimeError, match="does not run"):
        other.run_until_complete(wait(awaitable))
    reader = aioxide.StreamReader(loop=loop)
    with pytest.raises(RuntimeError, match="attached to a different loop"):
        other.run_until_complete(wait(reader.read()))
    other.close()


async def test_it_is_neither_polled_nor_dropped_on_another_thread(loop, trial):
    dropped = []
    awaitable = trial("never", dropped=lambda: dropped.append(threading.get_ident()))
    raised = []

    def elsewhere():
        nonlocal awaitable
        try:
            awaitable.send(None)
        except RuntimeError as error:
            raised.append(error)
        del awaitable

    await loop.run_in_executor(None, elsewhere)
    assert len(raised) == 1
    raised.clear()  # the traceback holds the frame
    gc.collect()
    while not dropped:
        await asyncio.sleep(0)
    assert dropped == [threading.get_ident()]


def test_one_that_another_thread_made_is_neither_polled_nor_dropped(loop, trial):
    """Its loop runs here now, and may: what it shares with others of its thread is that thread's."""
    dropped, made = [], []
    maker = threading.Thread(
        target=lambda: made.append(trial("ready", dropped=lambda: dropped.append("dropped")))
    )
    maker.start()
    maker.join()
    with (
        pytest.raises(RuntimeError, match="another loop or thread"),
        pytest.warns(ResourceWarning, match="a Rust future is not dropped"),
    ):
        loop.run_until_complete(made.pop())
    made.append(trial("ready", dropped=lambda: dropped.append("of this thread")))
    loop.run_until_complete(made.pop())
    assert dropped == ["of this thread"]


def test_one_that_cannot_be_dropped_by_its_thread_is_told_of(loop, trial):
    dropped, made = [], []
    maker = threading.Thread(target=lambda: made.append(trial("never", dropped=lambda: dropped.append(True))))
    maker.start()
    maker.join()
    with pytest.warns(ResourceWarning, match="a Rust future is not dropped"):
        made.pop().close()
    assert not dropped


def test_one_that_outlives_its_loop_is_dropped(loop, trial):
    dropped = []

    async def main():
        task = asyncio.create_task(trial("never", dropped=lambda: dropped.append(True)))
        await asyncio.sleep(0)
        task.cancel()
        kept.append(trial("never", dropped=lambda: dropped.append(True)))
        with pytest.raises(asyncio.CancelledError):
            await task

    kept = []
    loop.run_until_complete(main())
    loop.close()
    kept.pop().close()
    assert dropped == [True, True]


async def test_send_throw_and_close(loop, trial):
    dropped = []

    def started():
        awaitable = trial("never", dropped=lambda: dropped.append(True))
        assert asyncio.isfuture(awaitable.send(None))
        return awaitable

    awaitable = started()
    with pytest.raises(LookupError):
        awaitable.throw(LookupError("thrown"))
    assert dropped == [True]
    awaitable = started()
    with pytest.raises(KeyError, match="value"):
        awaitable.throw(KeyError, "value")
    awaitable = started()
    awaitable.close()
    awaitable.close()
    assert dropped == [True] * 3
    with pytest.raises(RuntimeError, match="cannot reuse"):
        awaitable.send(None)
    awaitable = trial("ready")
    with pytest.raises(TypeError, match="just-started"):
        awaitable.send("value")
    awaitable.close()
    awaitable = trial("ready", dropped=lambda: dropped.append(True))
    with pytest.raises(LookupError):
        awaitable.throw(LookupError())
    assert dropped == [True] * 4


async def test_forgetting_await_warns(loop):
    reader = aioxide.StreamReader(loop=loop)
    with pytest.warns(RuntimeWarning, match=r"coroutine 'StreamReader.readline' was never awaited"):
        reader.readline()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader.readline().close()


async def test_one_that_is_over_stays_so_though_its_like_are_used_again(loop, trial):
    """Objects that nobody has are filled again, those that somebody has are not."""
    for _ in range(1000):
        assert await trial("ready", 0, 1) == 1
    held = [trial("ready", 0, 1) for _ in range(300)]
    assert len(set(map(id, held))) == 300
    for awaitable in held:
        assert await awaitable == 1
    others = [trial("ready", 0, 1) for _ in range(300)]
    assert not set(map(id, held)) & set(map(id, others))
    for awaitable in held:
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await awaitable
    for awaitable in others:
        awaitable.close()
    del held, others, awaitable
    made = trial("ready", 0, 1)
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        del made
    assert await trial("ready", 0, 1) == 1


@pytest.mark.parametrize("how", ["close", "throw", "collect"])
async def test_who_comes_back_while_the_future_is_dropped_finds_it_over(loop, trial, how):
    """A future's destructor may run anything."""
    seen: list[BaseException] = []
    awaitables = []

    def come_back() -> None:
        for awaitable in awaitables:
            assert not awaitable.cr_running
            assert "awaitable" in repr(awaitable)
            awaitable.close()
            gc.collect()
            try:
                awaitable.send(None)
            except RuntimeError as error:
                seen.append(error)

    awaitables.append(trial("never", dropped=come_back))
    awaitables[0].send(None)
    if how == "close":
        awaitables[0].close()
    if how == "throw":
        with pytest.raises(LookupError):
            awaitables[0].throw(LookupError())
    if how == "collect":
        # In a cycle with who watches it.
        holder = [awaitables.pop()]
        holder.append(holder)
        del holder
        gc.collect()
        assert not seen
    else:
        assert [str(error).startswith("cannot reuse already awaited") for error in seen] == [True]


async def test_a_pending_read_in_a_cycle_is_collected(loop):
    class Reader(aioxide.StreamReader):
        pass

    reader = Reader(loop=loop)
    task = asyncio.create_task(reader.read())
    reader.itself, reader.task = reader, task
    await asyncio.sleep(0)
    gone = weakref.ref(reader)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del reader, task
    gc.collect()
    assert gone() is None


async def test_a_task_that_nobody_holds_waits_for_whoever_will_wake_it(loop, trial):
    """The collector sees neither the waker nor who has it: a timer of the loop's, here."""
    done = loop.create_future()

    async def forgotten():
        done.set_result(await trial("sleeps", 1, "value"))

    asyncio.create_task(forgotten())  # noqa: RUF006 that is the point
    await asyncio.sleep(0)
    gc.collect()
    assert await asyncio.wait_for(done, 10) == "value"


async def test_debug_mode(loop, trial):
    loop.set_debug(True)
    for how in CONSUMERS:
        assert await consume(how, trial("thread", 1, "value")) == "value"
    reader = aioxide.StreamReader(loop=loop)
    loop.call_soon(reader.feed_data, b"data")
    assert await reader.readexactly(4) == b"data"
    assert reader._source_traceback


def test_who_drives_an_awaitable_by_hand_gets_a_traceback_of_that_time_only(loop, trial):
    depths: list[int] = []

    async def main():
        for _ in range(5):
            iterator = trial("ready", 0, 1).__await__()
            try:
                next(iterator)
            except StopIteration as stopped:
                depths.append(len(list(traceback.walk_tb(stopped.__traceback__))))

    loop.run_until_complete(main())
    assert depths == [1] * 5
