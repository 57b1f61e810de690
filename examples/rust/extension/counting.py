"""Await what an extension module does in Rust: `maturin develop`, then `python counting.py`."""

import asyncio

import aioxide
from shared_counter import Counter


async def main() -> None:
    counter = Counter()
    print("at once:", await counter.wait_for(0))

    counter.count_in_a_thread(1000)
    print("from a thread:", await counter.wait_for(1000))

    loop = asyncio.get_running_loop()
    counter.tick(0.001, last=1010)
    print("in the background:", loop.statistics()["rust_task_names"])
    print("together:", await asyncio.gather(*(counter.wait_for(1000 + n) for n in range(1, 11))))

    try:
        async with asyncio.timeout(0.01):
            await counter.wait_for(1_000_000)
    except TimeoutError:
        print("no million in ten milliseconds: the future was dropped")


if __name__ == "__main__":
    aioxide.run(main())
