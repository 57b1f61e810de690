"""call_later, call_at, time, and sleeping on them."""

from __future__ import annotations

import asyncio
import fractions
import math
import random
import sys
import time

import pytest


async def test_time_is_monotonic_and_advances_with_the_clock(loop):
    first, begin = loop.time(), time.monotonic()
    assert isinstance(first, float)
    await asyncio.sleep(0.02)
    assert loop.time() - first == pytest.approx(time.monotonic() - begin, abs=0.02)


async def test_timers_fire_in_the_order_of_their_deadlines(loop):
    fired: list[float] = []
    now = loop.time()
    deadlines = [now + 0.001 * number for number in range(50)]
    shuffled = deadlines.copy()
    random.Random(7).shuffle(shuffled)
    done = loop.create_future()
    for deadline in shuffled:
        loop.call_at(deadline, fired.append, deadline)
    loop.call_at(deadlines[-1] + 0.001, done.set_result, None)
    await done
    assert fired == deadlines


async def test_no_timer_fires_early(loop):
    async def measured(delay):
        begin = loop.time()
        await asyncio.sleep(delay)
        return loop.time() - begin - delay

    early = [
        late for late in await asyncio.gather(*(measured(n / 2000) for n in range(1, 60))) if late < -0.0015
    ]
    assert early == []


async def test_call_later_passes_arguments_and_tells_when(loop):
    future = loop.create_future()
    before = loop.time()
    handle = loop.call_later(0.001, future.set_result, "argument")
    assert before + 0.001 <= handle.when() <= loop.time() + 0.001
    assert await future == "argument"


async def test_call_at_tells_exactly_the_given_time(loop):
    when = loop.time() + 1000.125
    handle = loop.call_at(when, int)
    assert handle.when() == when
    handle.cancel()
    assert handle.when() == when


@pytest.mark.parametrize("delay", [0, -1, -1e9, 0.0])
async def test_a_delay_that_is_over_fires_on_a_later_turn(loop, delay):
    ran: list[str] = []
    loop.call_later(delay, ran.append, "timer")
    assert ran == []
    async with asyncio.timeout(5):
        while not ran:
            await asyncio.sleep(0)
    assert ran == ["timer"]


async def test_a_cancelled_timer_does_not_fire(loop):
    fired: list[str] = []
    handle = loop.call_later(0.001, fired.append, "cancelled")
    handle.cancel()
    assert handle.cancelled()
    handle.cancel()
    await asyncio.sleep(0.01)
    assert fired == []


async def test_cancelling_a_timer_that_fired_changes_nothing(loop):
    fired: list[str] = []
    handle = loop.call_later(0, fired.append, "fired")
    await asyncio.sleep(0.01)
    handle.cancel()
    assert fired == ["fired"]


async def test_a_timer_cancelled_by_one_of_the_same_instant_does_not_fire(loop):
    fired: list[str] = []
    when = loop.time() + 0.005
    handles: list[asyncio.TimerHandle] = []
    loop.call_at(when, lambda: handles[0].cancel())
    handles.append(loop.call_at(when + 1e-9, fired.append, "cancelled"))
    await asyncio.sleep(0.02)
    assert fired == []


async def test_a_hundred_thousand_timers_set_and_cancelled_leave_nothing(loop, is_aioxide):
    before = loop.statistics() if is_aioxide else {}
    handles = [loop.call_later(1000 + number % 97, int) for number in range(100_000)]
    if is_aioxide:
        assert loop.statistics()["timers"] - before["timers"] == 100_000
    random.Random(3).shuffle(handles)
    for handle in handles:
        handle.cancel()
    del handle
    handles.clear()
    await asyncio.sleep(0.001)


def test_timer_handles_compare_by_deadline(loop):
    first, second = loop.call_at(1e9, int), loop.call_at(2e9, int)
    assert first < second
    assert second > first
    assert first <= second
    assert second >= first
    assert first != second
    assert first == first
    assert len({first, second}) == 2
    first.cancel()
    second.cancel()


async def test_a_far_deadline_is_accepted(loop):
    for delay in (1e6, 1e9, 1e12):
        loop.call_later(delay, int).cancel()
    handle = loop.call_later(1e9, int)
    await asyncio.sleep(0.001)
    handle.cancel()


def test_a_loop_with_only_a_far_timer_can_be_stopped_from_outside(loop):
    import threading

    handle = loop.call_later(1e9, int)
    timer = threading.Timer(0.02, loop.call_soon_threadsafe, [loop.stop])
    timer.start()
    loop.run_forever()
    timer.join()
    handle.cancel()


@pytest.mark.parametrize("delay", ["1", None, object()])
def test_a_delay_that_is_no_number_is_a_type_error(loop, delay):
    with pytest.raises(TypeError):
        loop.call_later(delay, int)


def test_no_deadline_is_a_type_error(loop):
    with pytest.raises(TypeError):
        loop.call_at(None, int)
    if sys.version_info >= (3, 12):
        with pytest.raises(TypeError, match="None"):
            loop.call_later(None, int)


async def test_integers_are_good_delays(loop):
    future = loop.create_future()
    loop.call_at(int(loop.time()) - 1, future.set_result, "past")
    assert await future == "past"


async def test_timeouts_interrupt_waiting(loop):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await loop.create_future()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loop.create_future(), 0.01)
    assert await asyncio.wait_for(asyncio.sleep(0, "in time"), 5) == "in time"


async def test_many_sleepers_wake_together(loop):
    # Debug mode looks at the stack for each.
    count = 500 if loop.get_debug() else 5000
    begin = time.monotonic()
    await asyncio.gather(*(asyncio.sleep(0.05) for _ in range(count)))
    assert 0.045 <= time.monotonic() - begin < 5


@pytest.mark.parametrize("kind", [float, int])
async def test_the_time_of_a_timer_is_the_number_it_was_set_to(loop, kind):
    when = kind(math.ceil(loop.time()) + 60)
    timer = loop.call_at(when, print)
    assert timer.when() == when
    assert type(timer.when()) is kind
    timer.cancel()


async def test_the_time_of_a_timer_that_was_set_to_another_number(loop, is_aioxide):
    when = fractions.Fraction(math.ceil(loop.time()) + 60)
    timer = loop.call_at(when, print)
    assert timer.when() == when
    assert type(timer.when()) is (float if is_aioxide else fractions.Fraction)
    timer.cancel()
