"""Count what a request costs a web server that people use, in instructions, on each event loop.

    python benchmarks/request_cost.py [--loops NAMES] [--servers NAMES]

A server is counted under valgrind's callgrind while it answers N and 3 N requests on several connections;
the difference is the requests'. No noise hides an instruction of it, which makes it the place to look at for
what a loop, or the interpreter because of it, does more than another. What the kernel does is not counted.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import callgrind
from aioxide.bench import cells, comparison, loops

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"Hello, world!"
CONNECTIONS = 8
ROUNDS = 40
"""Requests of a connection in the shorter of the two runs."""
SERVERS = "uvicorn,aiohttp"
LOOPS = "asyncio,uvloop,zuvloop,aioxide[uring],aioxide[epoll]"
LIBRARIES = 5
"""So many are named, those that cost most."""


def ask(port: int, rounds: int) -> None:
    """Send requests on all connections at once, and wait for their answers, again and again."""
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    for _ in range(rounds):
        for connection in connections:
            connection.sendall(REQUEST)
        for connection in connections:
            answer = b""
            while not answer.endswith(BODY):
                part = connection.recv(1 << 16)
                if not part:
                    raise SystemExit("the server closed a connection")
                answer += part
    for connection in connections:
        connection.close()


def instructions(chosen: loops.Candidate, server: str, rounds: int) -> Counter[str]:
    """Count the instructions of a server's whole life."""
    variables = cells.environment(chosen) | {"BENCHMARK_CORES": ""}  # counts do not mind who shares a core
    with callgrind.counting() as (valgrind, counted):
        words = [*valgrind, *chosen.command("serve", server, "1")]
        with cells.started(words, variables) as program:
            ask(cells.parsed(program.read_line())["port"], rounds)
            program.process.terminate()
            program.process.wait(callgrind.TIME_LIMIT)
        return callgrind.by_library(counted)


def per_request(chosen: loops.Candidate, server: str) -> Counter[str]:
    """Count one request, by library."""
    shorter, longer = (instructions(chosen, server, times * ROUNDS) for times in (1, 3))
    longer.subtract(shorter)
    requests = 2 * ROUNDS * CONNECTIONS
    return Counter({library: round(count / requests) for library, count in longer.items()})


def measure(chosen: Sequence[loops.Candidate], server: str) -> None:
    """Count a server on each loop, several at a time, and print what was counted."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(lambda one: per_request(one, server), chosen)
        for one, counted in zip(chosen, counts, strict=True):
            print(f"{server:<10} {one.name:<16} {counted.total():>9,}", flush=True)
            for library, count in counted.most_common(LIBRARIES):
                print(f"{'':<28}{count:>9,}  {Path(library).name}")


def main() -> None:
    """Count the servers that were asked for."""
    parser = argparse.ArgumentParser(description="Count the instructions of a web server's request.")
    parser.add_argument("--loops", metavar="NAMES", help=f"those installed of {LOOPS}")
    parser.add_argument("--servers", metavar="NAMES", default=SERVERS, help=SERVERS)
    options = parser.parse_args()
    if not callgrind.is_installed():
        raise SystemExit("valgrind is not installed: nothing is counted")
    os.environ["BENCHMARK_FOLDER"] = str(Path(__file__).resolve().parent)
    known = loops.CANDIDATES if options.loops else loops.select(LOOPS, loops.CANDIDATES)
    described = comparison.describe(options.loops, known)
    chosen = [loops.candidate(loop["name"]) for loop in described if loop["available"]]
    print("instructions per request, by library")
    for server in options.servers.split(","):
        measure(chosen, server)


if __name__ == "__main__":
    main()
