"""Count the instructions of an operation, and fail when there are more of them than there were.

    python benchmarks/cost.py [--update] [--tolerance PER_CENT]

valgrind's callgrind counts every instruction of the process, the interpreter's included: noise from the
machine's other work cannot hide a regression, nor look like one. Each operation is counted as the difference
between a run of N of it and a run of 2 N, so that start and end cancel out. What the kernel does is not
counted.

Counts belong to one build of the interpreter and one of aioxide (release profile, as `make` builds it), so
cost_baseline.json has an entry for each interpreter; `--update` writes it. Exit status 1: something costs
more; 2: it could not be told.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import socket
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import callgrind

BASELINE = Path(__file__).with_name("cost_baseline.json")
DRIVERS = ("uring", "epoll")
COUNT = 2_000


async def call_soon(count: int) -> None:
    """Let a callback schedule itself."""
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


async def task_step(count: int) -> None:
    """Run steps of one task."""
    for _ in range(count):
        await asyncio.sleep(0)


async def create_task(count: int) -> None:
    """Start a task and wait for it."""

    async def nothing() -> None:
        pass

    for _ in range(count):
        await asyncio.create_task(nothing())


class Echo(asyncio.Protocol):
    """Write back whatever arrives."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Echo one chunk."""
        self.transport.write(data)


class Asker(Echo):
    """Send the echo again until there were enough."""

    def __init__(self, count: int) -> None:
        self.remaining = count
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Count one echo."""
        self.remaining -= 1
        if self.remaining:
            self.transport.write(data)
        else:
            self.done.set_result(None)


async def echo(count: int) -> None:
    """Send a message to an echo server and receive it again; both ends are in this loop."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    await loop.connect_accepted_socket(Echo, far)
    transport, asker = await loop.connect_accepted_socket(lambda: Asker(count), near)
    transport.write(b"x" * 1024)
    await asker.done
    transport.close()


OPERATIONS: dict[str, Callable[[int], Awaitable[None]]] = {
    operation.__name__: operation for operation in (call_soon, task_step, create_task, echo)
}


def perform(operation: str, count: int) -> None:
    """Be the process that is counted."""
    import aioxide

    loop = aioxide.new_event_loop()
    gc.disable()
    try:
        loop.run_until_complete(OPERATIONS[operation](count))
    finally:
        loop.close()


def instructions(driver: str, operation: str, count: int) -> int:
    """Count the instructions of a whole process."""
    words = [sys.executable, __file__, "--perform", operation, str(count)]
    return callgrind.of_process(words, callgrind.environment(AIOXIDE_DRIVER=driver)).total()


def per_operation() -> dict[str, float]:
    """Count every operation on every driver, several processes at a time."""
    names = [(driver, operation) for driver in DRIVERS for operation in OPERATIONS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        once = [pool.submit(instructions, *name, COUNT) for name in names]
        twice = [pool.submit(instructions, *name, 2 * COUNT) for name in names]
        return {
            f"{operation}, {driver}": round((long.result() - short.result()) / COUNT, 1)
            for (driver, operation), short, long in zip(names, once, twice, strict=True)
        }


def interpreter() -> str:
    """Name what the counts depend on besides aioxide."""
    build = f"{platform.python_compiler()}, {platform.machine()}"
    return f"{platform.python_implementation()} {platform.python_version()}, {build}"


def main() -> int:
    """Count, compare, and write the new counts if that is wanted."""
    parser = argparse.ArgumentParser(description="Count instructions and compare with the baseline.")
    parser.add_argument("--update", action="store_true", help="make these counts the baseline")
    parser.add_argument("--tolerance", type=float, default=3, metavar="PER_CENT", help="of more work (3)")
    options = parser.parse_args()
    if not callgrind.is_installed():
        print("valgrind is not installed: nothing is counted", file=sys.stderr)
        return 2
    baselines = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    before = baselines.get(interpreter(), {})
    counted = per_operation()
    print(f"instructions per operation, {interpreter()}")
    dearer = []
    for name, count in counted.items():
        change = 100 * (count / before[name] - 1) if name in before else None
        print(f"  {name:<22} {count:>9,.0f}  {'new' if change is None else f'{change:+.1f} %'}")
        if change is not None and change > options.tolerance:
            dearer.append(name)
    if options.update:
        text = json.dumps(baselines | {interpreter(): counted}, indent=1, sort_keys=True)
        BASELINE.write_text(text + "\n", encoding="utf-8")
        return 0
    if not before:
        print(f"{BASELINE.name} has no counts for this interpreter: --update writes them", file=sys.stderr)
        return 2
    if dearer:
        print(f"dearer than before: {', '.join(dearer)}", file=sys.stderr)
    return int(bool(dearer))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--perform"]:
        perform(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
