"""Tell how much faster a scheduling row would be if aioxide's own code cost nothing.

    python benchmarks/floor.py [--only ROWS] [--json FILE]

Most of what a task or a callback costs is the interpreter's: the coroutine, the C Task, `asyncio.gather`.
valgrind's callgrind counts the instructions of an operation by the library that they belong to, with
asyncio's tasks and with native ones. *At most* is how many times as fast the row would be with all of aioxide
taken away: what a target asks beyond that, the interpreter would have to give. Instructions are not time, but
no noise either.

Each operation is counted as the difference between a run of N and one of 2 N, without the garbage collector.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import callgrind

COUNT = 2_000
ROWS = {
    "call_soon, chain": "call_soon_chain",
    "call_later + cancel": "call_later_cancel",
    "sleep(0)": "sleep_zero",
    "future set + await": "future_await",
    "create_task + await": "create_task_await",
    "gather(100), per child": "gather_children",
    "TaskGroup(100), per child": "task_group_children",
}
"""The rows of `run.py` that no kernel has a part in, and their scenarios."""
WITHOUT_TASKS = frozenset({"call_soon, chain", "call_later + cancel"})
OURS = "_rust."
"""What the name of aioxide's library has, and no other's."""


def perform(scenario: str, count: int, *, native: bool) -> None:
    """Be the process that is counted."""
    import aioxide
    from aioxide.bench.scheduling import SCENARIOS

    loop = aioxide.EventLoop("uring")
    if native:
        loop.set_task_factory(aioxide.native_task_factory)
    gc.disable()
    try:
        loop.run_until_complete(SCENARIOS[scenario](count))
    finally:
        loop.close()


def instructions(scenario: str, count: int, *, native: bool) -> Counter[str]:
    """Count the instructions of a whole process."""
    words = [sys.executable, __file__, "--perform", scenario, str(count), str(int(native))]
    return callgrind.of_process(words, callgrind.environment())


def measure(row: str, pool: ThreadPoolExecutor, *, native: bool) -> tuple[float, float]:
    """Return instructions per operation: all, and those of aioxide's library."""
    once, twice = (pool.submit(instructions, ROWS[row], times * COUNT, native=native) for times in (1, 2))
    counts = twice.result()
    counts.subtract(once.result())
    own = sum(count for library, count in counts.items() if OURS in library)
    return counts.total() / COUNT, own / COUNT


def main() -> None:
    """Measure the rows and print them."""
    parser = argparse.ArgumentParser(
        description="Tell what would be gained if aioxide's own code cost nothing."
    )
    parser.add_argument("--only", default="", metavar="ROWS", help="a regular expression")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save what was counted")
    options = parser.parse_args()
    if not callgrind.is_installed():
        raise SystemExit("valgrind is not installed: nothing is counted")
    results = {}
    print(f"{'instructions per operation':<34} {'all':>7} {'our own':>8}  at most")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in filter(re.compile(options.only).search, ROWS):
            for native in (False, True)[: 1 if row in WITHOUT_TASKS else 2]:
                total, own = measure(row, pool, native=native)
                label = f"{row} (native)" if native else row
                results[label] = {"all": total, "own": own}
                print(f"{label:<34} {total:>7,.0f} {own:>8,.0f} {total / (total - own):>7.2f}x", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--perform"]:
        perform(sys.argv[2], int(sys.argv[3]), native=sys.argv[4] == "1")
    else:
        main()
