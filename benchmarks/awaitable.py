"""What awaiting a Rust future costs, beside an `async def`, an asyncio future and pyo3-async-runtimes.

A program of its own and no row of run.py: it compares awaitables on one loop, not loops, and needs an
extension (benchmarks/awaitable-extension) that has a second runtime in it, which nothing else here may have.

    python benchmarks/awaitable.py --json benchmarks/RESULTS-awaitable.json
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import aioxide

PROJECT = Path(__file__).resolve().parent / "awaitable-extension"
CONCURRENT = 1000

Make = Callable[[], Awaitable[int]]


def extension() -> ModuleType:
    """Build the extension and import it."""
    target = Path(sys.prefix) / "target/extensions"
    environment = {**os.environ, "PYO3_PYTHON": sys.executable, "CARGO_TARGET_DIR": str(target)}
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=PROJECT, env=environment, check=True)
    with tempfile.TemporaryDirectory() as folder:
        library = target / "release/libawaitable_extension.so"
        shutil.copy(library, Path(folder) / "awaitable_extension.so")
        sys.path.insert(0, folder)
        return importlib.import_module("awaitable_extension")


async def returns() -> int:
    """Be done at once."""
    return 1


async def yields() -> int:
    """Be done in the loop's next turn."""
    await asyncio.sleep(0)
    return 1


def set_future() -> asyncio.Future[int]:
    """Make a future that has its result."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    return future


def later_future() -> asyncio.Future[int]:
    """Make a future that gets its result in the loop's next turn."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, 1)
    return future


async def one_by_one(make: Make, count: int) -> float:
    """Return the nanoseconds that one await took."""
    begin = time.perf_counter_ns()
    for _ in range(count):
        await make()
    return (time.perf_counter_ns() - begin) / count


async def concurrently(make: Make, count: int) -> float:
    """Return the nanoseconds per await of a thousand at a time."""
    begin = time.perf_counter_ns()
    for _ in range(count // CONCURRENT):
        await asyncio.gather(*(make() for _ in range(CONCURRENT)))
    return (time.perf_counter_ns() - begin) / (count // CONCURRENT * CONCURRENT)


async def measure(
    rows: dict[str, dict[str, tuple[Make, int]]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Measure every cell once a round, for milliseconds: a change of the machine's pace meets all alike."""
    values: dict[str, dict[str, list[float]]] = {
        row: {name: [] for name in cells} for row, cells in rows.items()
    }
    for _ in range(rounds):
        for row, cells in rows.items():
            how = concurrently if row.startswith("1,000") else one_by_one
            for name, (make, count) in cells.items():
                values[row][name].append(await how(make, count))
    return values


def main() -> None:
    """Measure, print a table and save it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ours = extension()
    woken = {
        "async def": (yields, 5_000),
        "asyncio future": (later_future, 5_000),
        "aioxide-awaitable": (ours.wakes, 5_000),
        "pyo3-async-runtimes": (ours.tokio_wakes, 1_000),
    }
    rows = {
        "ready": {
            "async def": (returns, 20_000),
            "asyncio future": (set_future, 20_000),
            "aioxide-awaitable": (ours.ready, 20_000),
            "pyo3-async-runtimes": (ours.tokio_ready, 1_000),
        },
        "one wake": woken,
        "1,000 concurrent": {name: (make, 3_000) for name, (make, _) in woken.items()},
    }
    values = aioxide.run(measure(rows, arguments.rounds))
    results = {
        row: {name: statistics.median(cells) for name, cells in cells.items()}
        for row, cells in values.items()
    }
    for row, cells in results.items():
        texts = [f"{name} {value:,.0f} ns" for name, value in cells.items()]
        print(f"{row:>17}: {', '.join(texts)}")
    if arguments.json:
        build = {name: aioxide.build_info()[name] for name in ("version", "driver")}
        saved = {"python": sys.version.split()[0], **build, "nanoseconds": results, "rounds": values}
        arguments.json.write_text(json.dumps(saved, indent=1) + "\n")


if __name__ == "__main__":
    main()
