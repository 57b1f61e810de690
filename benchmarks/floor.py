"""Tell how fast a scheduling row could be if aioxide's own code cost nothing.

    python benchmarks/floor.py [--peer LOOP] [--only ROWS] [--json FILE]

Most of what a task or a callback costs is the interpreter's: the coroutine, the C Task, `asyncio.gather`.
valgrind's callgrind counts the instructions of an operation, by the library that they belong to, on the peer
and on aioxide, with asyncio's tasks and with native ones. The *limit* is the ratio that would be left with
all of aioxide's library taken away: a target beyond it cannot be reached by making that faster, only by
having the interpreter do less. Instructions are not time, but no noise either.

Each operation is counted as the difference between a run of N and one of 2 N, without the garbage collector.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Make a loop of a peer's, or aioxide's."""
    if not name.startswith("aioxide"):
        loop: asyncio.AbstractEventLoop = __import__(name).new_event_loop()
        return loop
    import aioxide

    ours = aioxide.EventLoop("uring")
    if name.endswith("+native"):
        ours.set_task_factory(aioxide.native_task_factory)
    return ours


def perform(name: str, scenario: str, count: int) -> None:
    """Be the process that is counted."""
    from aioxide.bench.scheduling import SCENARIOS

    loop = new_loop(name)
    gc.disable()
    try:
        loop.run_until_complete(SCENARIOS[scenario](count))
    finally:
        loop.close()


def by_library(lines: Iterator[str]) -> Counter[str]:
    """Add up a callgrind file (valgrind's manual, "Callgrind Format Specification") by library."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    library = ""
    is_call = False
    for line in lines:
        if named := re.match(r"c?ob=\((\d+)\)(?: (.*))?", line):
            number, name = named.groups()
            if name is not None:
                names[number] = name
            if line.startswith("ob="):
                library = names[number]
        elif line.startswith("calls="):
            # The line after it says what the call cost, which is counted where it is spent.
            is_call = True
        elif re.match(r"[\d+*-]", line):
            if not is_call:
                counts[library] += int(line.split()[1])
            is_call = False
    return counts


def instructions(name: str, scenario: str, count: int) -> Counter[str]:
    """Count the instructions of a whole process."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as counted:
        words = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counted.name}"]
        words += [sys.executable, __file__, "--perform", name, scenario, str(count)]
        variables = dict(os.environ) | {"PYTHONHASHSEED": "0"}
        finished = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise SystemExit(f"{scenario} on {name} cannot be counted:\n{finished.stderr.strip()}")
        return by_library(counted)


def measure(row: str, peer: str, pool: ThreadPoolExecutor) -> dict[str, dict[str, float]]:
    """Return instructions per operation of each loop: all, and those of aioxide's library."""
    loops = [peer, "aioxide"] + ([] if row in WITHOUT_TASKS else ["aioxide+native"])
    runs = {
        name: [pool.submit(instructions, name, ROWS[row], times * COUNT) for times in (1, 2)]
        for name in loops
    }
    measured = {}
    for name, (once, twice) in runs.items():
        counts = twice.result()
        counts.subtract(once.result())
        own = sum(count for library, count in counts.items() if OURS in library)
        measured[name] = {"all": counts.total() / COUNT, "own": own / COUNT}
    return measured


def main() -> None:
    """Measure the rows and print them."""
    parser = argparse.ArgumentParser(
        description="Tell what would be left if aioxide's own code cost nothing."
    )
    parser.add_argument("--peer", default="uvloop", help="the loop to compare with (uvloop)")
    parser.add_argument("--only", default="", metavar="ROWS", help="a regular expression")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save what was counted")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: nothing is counted")
    results: dict[str, Any] = {}
    print(f"{'instructions per operation':<36} {options.peer:>11} {'aioxide':>11} its own  ratio  limit")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in filter(re.compile(options.only).search, ROWS):
            results[row] = measured = measure(row, options.peer, pool)
            theirs = measured[options.peer]["all"]
            for name in list(measured)[1:]:
                ours, own = measured[name]["all"], measured[name]["own"]
                label = row + (" (native)" if name.endswith("+native") else "")
                ratios = f"{theirs / ours:>6.2f} {theirs / (ours - own):>6.2f}"
                print(f"{label:<36} {theirs:>11,.0f} {ours:>11,.0f} {own:>7,.0f} {ratios}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--perform"]:
        perform(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
