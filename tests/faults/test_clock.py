"""A program's own clock in place of `loop.time`: timers go by it.

Where it stands still, jumps or goes backwards, callbacks and connections go on, and nothing spins.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from unittest import mock

import pytest
from peers import connected_pair
from recorder import Recorder

CLOCKS = {
    "stands still": lambda now: now,
    "stands at zero": lambda now: 0.0,
    "jumps ahead": lambda now: time.monotonic() + 1e6,
    "goes back": lambda now: 2 * now - time.monotonic(),
    "is not a number": lambda now: float("nan"),
}


@pytest.fixture(params=CLOCKS)
def strange_time(request):
    """Return a function for `loop.time`."""
    now = time.monotonic()
    return lambda: CLOCKS[request.param](now)


async def test_callbacks_and_connections_go_on(loop, strange_time):
    loop.time = strange_time
    order: list[int] = []
    for number in range(100):
        loop.call_soon(order.append, number)
    for _ in range(10):
        await asyncio.sleep(0)
    assert order == list(range(100))

    called = asyncio.Event()
    threading.Thread(target=loop.call_soon_threadsafe, args=(called.set,)).start()
    await called.wait()
    assert await asyncio.to_thread(int, "1") == 1

    with connected_pair() as (ours, peer):
        transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
        for number in range(20):
            peer.sendall(b"x")
            await protocol.received(number + 1)
            transport.write(b"y")
            assert await asyncio.to_thread(peer.recv, 1) == b"y"
        transport.close()
        await protocol.lost
    del loop.time


async def test_waiting_does_not_spin(loop, strange_time, is_aioxide, request):
    if not is_aioxide and "ahead" not in request.node.name:
        pytest.skip("asyncio counts its timeouts with this clock")
    loop.time = strange_time
    arrived = asyncio.Event()
    alarm = threading.Timer(0.3, loop.call_soon_threadsafe, (arrived.set,))
    alarm.start()
    begin = time.process_time()
    await arrived.wait()
    assert time.process_time() - begin < 0.2, "the loop spins"
    del loop.time


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def some_turns():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def clock(loop):
    """Give the loop a clock of the test's own."""
    loop.time = clock = Clock()
    yield clock
    del loop.time


async def test_timers_go_by_it(loop, clock):
    fired = []
    assert loop.call_later(10, fired.append, "late").when() == 1010
    loop.call_at(1005, fired.append, "early")
    cancelled = loop.call_later(7, fired.append, "cancelled")
    loop.call_later(0, fired.append, "now")
    await some_turns()
    assert fired == ["now"]
    clock.now = 1004.999_999
    await some_turns()
    assert fired == ["now"]
    clock.now = 1005.0
    await some_turns()
    assert fired == ["now", "early"]
    cancelled.cancel()
    clock.now = 5000.0
    await some_turns()
    assert fired == ["now", "early", "late"]


async def test_timeouts_and_sleeps_go_by_it(loop, clock):
    sleeping = asyncio.ensure_future(asyncio.sleep(3600, "slept"))
    waiting = asyncio.ensure_future(asyncio.wait_for(loop.create_future(), 1800))

    async def work():
        async with asyncio.timeout_at(loop.time() + 1800):
            await loop.create_future()

    working = asyncio.ensure_future(work())
    await some_turns()
    clock.now += 1799.0
    await some_turns()
    assert not waiting.done()
    assert not working.done()
    clock.now += 1.0
    for timed_out in (waiting, working):
        with pytest.raises(TimeoutError):
            await timed_out
    assert not sleeping.done()
    clock.now += 1800.0
    assert await sleeping == "slept"


async def test_timers_set_from_another_thread_go_by_it(loop, clock, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio's timers are not for other threads")
    fired = asyncio.Event()
    loop.set_debug(False)
    await asyncio.to_thread(loop.call_later, 3600, fired.set)
    await some_turns()
    assert not fired.is_set()
    clock.now += 3600.0
    await asyncio.wait_for(fired.wait(), 10)


async def test_it_comes_and_goes(loop):
    ahead = 1800.0

    def clock():
        return time.monotonic() + ahead

    fired = []
    loop.call_later(3600, fired.append, "in an hour")
    with mock.patch.object(loop, "time", clock):
        loop.call_later(0, fired.append, "after half of it")
        await some_turns()
        assert fired == ["after half of it"]
    await asyncio.sleep(0.001)
    ahead = 3601.0
    with mock.patch.object(loop, "time", clock):
        await some_turns()
    assert fired == ["after half of it", "in an hour"]
    assert abs(loop.time() - time.monotonic()) < 10
    await asyncio.sleep(0.001)


def test_it_may_be_a_method_of_a_subclass(loop_factory):
    kind = type(loop := loop_factory())
    driver = {} if kind is asyncio.SelectorEventLoop else {"driver": loop_factory.keywords["driver"]}
    loop.close()

    class Ahead(kind):
        ahead = 0.0

        def time(self):
            return super().time() + self.ahead

    async def sleep():
        sleeping = asyncio.ensure_future(asyncio.sleep(3600))
        await some_turns()
        loop.ahead = 3600.0
        await sleeping
        loop.time = lambda: 7.0
        assert loop.call_later(1, int).when() == 8.0
        del loop.time
        assert loop.call_later(0, int).when() > loop.ahead

    loop = Ahead(**driver)
    loop.run_until_complete(sleep())
    loop.close()


async def test_where_it_stands_still_a_timer_waits_without_spinning(loop, clock):
    loop.call_later(1e-6, int).when()
    arrived = asyncio.Event()
    alarm = threading.Timer(0.3, loop.call_soon_threadsafe, (arrived.set,))
    alarm.start()
    begin = time.process_time()
    await arrived.wait()
    assert time.process_time() - begin < 0.2, "the loop spins"
    alarm.join()
    clock.now += 1.0
    await some_turns()


def test_what_it_raises_ends_the_loop_for_now(loop, clock):
    task = loop.create_task(asyncio.sleep(0, "done"))
    loop.time = mock.Mock(side_effect=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        loop.run_forever()
    loop.time = clock
    assert loop.run_until_complete(task) == "done"


def test_slow_callbacks_are_measured_with_it(loop, clock, caplog):
    loop.set_debug(True)

    def work():
        clock.now += 60.0

    loop.call_soon(work)
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(asyncio.sleep(0))
    (message,) = (record.getMessage() for record in caplog.records if "work" in record.getMessage())
    assert "took 60.000 seconds" in message


def test_the_clock_of_the_loop_never_goes_back(loop):
    readings = [loop.time() for _ in range(10_000)]
    assert readings == sorted(readings)
    assert abs(loop.time() - time.monotonic()) < 10
