"""The scheduling scenarios: small programs that do nothing but ask the loop for work.

Each is a coroutine function `scenario(count)` that performs `count` operations on the running loop
and returns when the last one is done. `SCENARIOS` maps the names used in `rows.py` to them. They
use what asyncio documents and nothing else, so every loop runs the same code.

Invariant: a scenario checks that its operations took place; a loop that skips work fails, it does
not win.
"""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable

CHILDREN = 100
"""Children of one gather or TaskGroup."""
TIMERS_PER_TURN = 1_000
"""Time-outs alive at once before they are cancelled, as in a busy server."""


async def call_soon_chain(count: int) -> None:
    """Let a callback schedule itself: one callback a turn, the shortest turn there is."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    remaining = count

    def step() -> None:
        nonlocal remaining
        remaining -= 1
        if remaining:
            loop.call_soon(step)
        else:
            done.set_result(None)

    loop.call_soon(step)
    await done


async def call_soon_batch(count: int) -> None:
    """Schedule everything first, with one argument each, then run it."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    calls: list[int] = []
    call = calls.append
    for number in range(count):
        loop.call_soon(call, number)
    loop.call_soon(done.set_result, None)
    await done
    expect(len(calls), count)


async def call_soon_threadsafe(count: int) -> None:
    """Let another thread schedule while the loop waits in the kernel or runs."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    calls: list[int] = []
    call = calls.append

    def produce() -> None:
        for number in range(count):
            loop.call_soon_threadsafe(call, number)
        loop.call_soon_threadsafe(done.set_result, None)

    producer = threading.Thread(target=produce)
    producer.start()
    await done
    producer.join()
    expect(len(calls), count)


async def call_later_cancel(count: int) -> None:
    """Set time-outs and cancel them, a thousand alive at a time."""
    loop = asyncio.get_running_loop()
    fired: list[None] = []
    for _ in range(count // TIMERS_PER_TURN):
        handles = [loop.call_later(60, fired.append, None) for _ in range(TIMERS_PER_TURN)]
        for handle in handles:
            handle.cancel()
        await asyncio.sleep(0)
    expect(len(fired), 0)


async def due_timers(count: int) -> None:
    """Set timers whose moment has passed, in no order, and run them all."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    shuffled = random.Random(count).sample(range(count), count)
    calls: list[int] = []

    def fire(number: int) -> None:
        calls.append(number)
        if len(calls) == count:
            done.set_result(None)

    now = loop.time()
    for number in shuffled:
        loop.call_at(now - number * 1e-6, fire, number)
    await done
    expect(len(set(calls)), count)


async def sleep_zero(count: int) -> None:
    """Give way to the loop, again and again."""
    for _ in range(count):
        await asyncio.sleep(0)


async def nothing() -> int:
    """Return at once."""
    return 1


async def create_task_await(count: int) -> None:
    """Start a task and wait for it, one after the other."""
    total = 0
    for _ in range(count):
        total += await asyncio.create_task(nothing())
    expect(total, count)


async def gather_children(count: int) -> None:
    """Gather a hundred coroutines at a time."""
    total = 0
    for _ in range(count // CHILDREN):
        total += sum(await asyncio.gather(*[nothing() for _ in range(CHILDREN)]))
    expect(total, count)


async def task_group_children(count: int) -> None:
    """Run a hundred tasks at a time in a TaskGroup."""
    total = 0
    for _ in range(count // CHILDREN):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(nothing()) for _ in range(CHILDREN)]
        total += sum(task.result() for task in tasks)
    expect(total, count)


async def future_await(count: int) -> None:
    """Wait for a future that a callback sets in the next turn."""
    loop = asyncio.get_running_loop()
    total = 0
    for _ in range(count):
        future: asyncio.Future[int] = loop.create_future()
        loop.call_soon(future.set_result, 1)
        total += await future
    expect(total, count)


async def event_ping_pong(count: int) -> None:
    """Let two tasks wake each other through events; an operation is a round trip."""
    ping, pong = asyncio.Event(), asyncio.Event()
    answers = 0

    async def answer() -> None:
        nonlocal answers
        for _ in range(count):
            await ping.wait()
            ping.clear()
            answers += 1
            pong.set()

    other = asyncio.create_task(answer())
    for _ in range(count):
        ping.set()
        await pong.wait()
        pong.clear()
    await other
    expect(answers, count)


async def run_in_executor(count: int) -> None:
    """Hand calls to the default executor, one after the other."""
    loop = asyncio.get_running_loop()
    total = 0
    for _ in range(count):
        total += await loop.run_in_executor(None, int, 1)
    expect(total, count)


async def waiting_tasks(count: int) -> None:
    """Have tasks wait for one event, all alive at once, then let them go."""
    event = asyncio.Event()
    total = 0

    async def wait() -> None:
        nonlocal total
        await event.wait()
        total += 1

    tasks = [asyncio.create_task(wait()) for _ in range(count)]
    await asyncio.sleep(0)
    event.set()
    await asyncio.wait(tasks)
    expect(total, count)


def expect(found: int, wanted: int) -> None:
    """Fail the row when the loop did not do what it was asked."""
    if found != wanted:
        raise RuntimeError(f"the loop did {found} operations instead of {wanted}")


Scenario = Callable[[int], Awaitable[None]]

SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        call_soon_chain,
        call_soon_batch,
        call_soon_threadsafe,
        call_later_cancel,
        due_timers,
        sleep_zero,
        create_task_await,
        gather_children,
        task_group_children,
        future_await,
        event_ping_pong,
        run_in_executor,
        waiting_tasks,
    )
}
