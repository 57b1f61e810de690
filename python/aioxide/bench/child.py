"""The measuring process: one loop, one job, one line of JSON on standard output.

    launch.py describe LOOP
    launch.py scheduling LOOP SCENARIO OPERATIONS REPETITIONS
    launch.py client LOOP CLIENT OPERATIONS REPETITIONS PORT
    launch.py serve LOOP SERVER MESSAGE_BYTES

Every cell of every round gets a process of its own, so no loop inherits another's heap, threads or
warm caches. `scheduling` and `client` say that they are ready, and then measure once for each line on
standard input, so that the runner can let loops take turns; `serve` runs until it is killed. Failures
leave by exception: the runner puts the last line of standard error in the cell.
"""

import asyncio
import gc
import importlib
import json
import os
import sys
import time
from typing import Any

from . import clients, servers
from .loops import Candidate, candidate
from .scheduling import SCENARIOS, Scenario

WARM_UP = 20_000
"""Operations that suffice to warm up."""


def describe(chosen: Candidate) -> dict[str, Any]:
    """Say which version and driver this loop has here."""
    loop = chosen.new_loop()
    try:
        driver = chosen.driver(loop)
    finally:
        loop.close()
    if chosen.wanted_driver not in (None, driver):
        raise RuntimeError(f"the driver is {driver}, although {chosen.wanted_driver} was asked for")
    return {"version": chosen.version(), "driver": driver, "build": chosen.build()}


async def measure(scenario: Scenario, operations: int, repetitions: int) -> dict[str, Any]:
    """Time a scenario by both clocks; the best repetition is the least disturbed one."""
    wall: list[float] = []
    cpu: list[float] = []
    for _ in range(repetitions):
        gc.collect()
        cpu_start = time.process_time_ns()
        wall_start = time.perf_counter_ns()
        await scenario(operations)
        wall.append((time.perf_counter_ns() - wall_start) / operations)
        cpu.append((time.process_time_ns() - cpu_start) / operations)
    return {"wall_ns": min(wall), "cpu_ns": min(cpu), "wall_repetitions_ns": wall, "cpu_repetitions_ns": cpu}


async def measure_on_request(scenario: Scenario, operations: int, repetitions: int) -> None:
    """Warm up, and measure as often as somebody asks for it."""
    await scenario(min(operations, WARM_UP))
    announce({"ready": True})
    # While it waits for a line it is not its turn, and the loop has nothing to do.
    for _ in sys.stdin:
        announce(await measure(scenario, operations, repetitions))


def schedule(chosen: Candidate, scenario: Scenario, operations: int, repetitions: int) -> None:
    """Run a scenario on a fresh loop."""
    loop = chosen.new_loop()
    try:
        loop.run_until_complete(measure_on_request(scenario, operations, repetitions))
    finally:
        loop.close()


def serve(chosen: Candidate, server: str, message_bytes: int) -> None:
    """Start a server, announce its address, and run until killed."""
    start = servers.SERVERS[server] if server in servers.SERVERS else web().SERVERS[server]
    loop = chosen.new_loop()
    asyncio.set_event_loop(loop)
    running = loop.run_until_complete(start(message_bytes))
    if hasattr(running, "sockets"):
        address = running.sockets[0].getsockname()
    else:
        address = running.get_extra_info("sockname")
    announce({"path": address} if isinstance(address, str) else {"port": address[1]})
    loop.run_forever()


def client(chosen: Candidate, name: str, operations: int, repetitions: int, port: int) -> None:
    """Run a client of the peer on `port`."""
    talk = clients.CLIENTS[name] if name in clients.CLIENTS else web().CLIENTS[name]
    schedule(chosen, lambda count: talk(count, port), operations, repetitions)


def web() -> Any:
    """Import what needs other people's packages: a module of the repository's benchmarks."""
    return importlib.import_module(".web", __package__)


def announce(result: dict[str, Any]) -> None:
    """Print a line of JSON at once."""
    print(json.dumps(result, default=str), flush=True)


def main(arguments: list[str]) -> None:
    """Do the one job that is asked for."""
    cores = os.environ.get("BENCHMARK_CORES")
    if cores:
        # Before the loop is made: its threads inherit the affinity.
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    match arguments:
        case ["describe", name]:
            announce(describe(candidate(name)))
        case ["scheduling", name, scenario, operations, repetitions]:
            program = (SCENARIOS | clients.PROCESSES)[scenario]
            schedule(candidate(name), program, int(operations), int(repetitions))
        case ["client", name, start, operations, repetitions, port]:
            client(candidate(name), start, int(operations), int(repetitions), int(port))
        case ["serve", name, server, message_bytes]:
            serve(candidate(name), server, int(message_bytes))
        case _:
            raise SystemExit(f"unknown job {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
