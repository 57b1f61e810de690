"""A clock that stands still, jumps or goes backwards: callbacks and connections go on, and nothing spins."""

from __future__ import annotations

import asyncio
import threading
import time

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


async def test_a_timer_set_while_the_clock_was_right_fires(loop, strange_time, is_aioxide):
    if not is_aioxide:
        pytest.skip("asyncio asks this clock whether a timer is due")
    fired = loop.create_future()
    loop.call_later(0.01, fired.set_result, None)
    loop.time = strange_time
    await fired
    del loop.time


def test_the_clock_of_the_loop_never_goes_back(loop):
    readings = [loop.time() for _ in range(10_000)]
    assert readings == sorted(readings)
    assert abs(loop.time() - time.monotonic()) < 10
