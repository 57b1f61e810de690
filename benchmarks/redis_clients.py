"""Compare Redis clients: the same commands from each, in turn, on one real server.

    python benchmarks/redis_clients.py [--rounds N] [--scale X] [--only ROWS] [--clients NAMES] [--json FILE]

The server is a redis-server of this run on a free port of the loopback. In every round each client runs each
row once, in a process of its own. Two figures per command: wall time, and the processor time of the client's
process. Ratios are those of the medians to redis-py with hiredis on uvloop. redis-benchmark's own figures
stand beside them, as what a C client without Python needs.
"""

import argparse
import asyncio
import importlib.util
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

BASELINE = "redis-py+hiredis, uvloop"
"""The client that ratios refer to."""

ROWS = {
    "sequential": 3_000,
    "gather(100)": 20_000,
    "100 tasks": 20_000,
    "1000 tasks": 20_000,
    "pipeline(100)": 40_000,
    "pipeline(1000)": 40_000,
}
"""How many commands of each row are run, at scale 1."""

CLIENTS = {
    "redis-py+hiredis, asyncio": ("redis", "asyncio"),
    BASELINE: ("redis", "uvloop"),
    "coredis, uvloop": ("coredis", "uvloop"),
    "valkey-glide, uvloop": ("glide", "uvloop"),
    "aioxide[epoll]": ("aioxide", "aioxide[epoll]"),
    "aioxide[uring]": ("aioxide", "aioxide[uring]"),
    "aioxide[uring]+native": ("aioxide", "aioxide[uring]+native"),
}
"""Library and loop of each client."""


async def client_of(
    library: str, port: int
) -> tuple[Callable[[], Awaitable[Any]], Callable[[int], Awaitable[Any]], Any]:
    """Return what increments a counter, what does it many times in a pipeline, and the client to close."""
    if library == "glide":
        from glide import Batch, GlideClient, GlideClientConfiguration, NodeAddress

        glide = await GlideClient.create(
            GlideClientConfiguration([NodeAddress("127.0.0.1", port)], request_timeout=60_000)
        )

        async def glide_pipeline(count: int) -> Any:
            batch = Batch(is_atomic=False)
            for _ in range(count):
                batch.incr("counter")
            return await glide.exec(batch, raise_on_error=True)

        return (lambda: glide.incr("counter")), glide_pipeline, glide
    if library == "coredis":
        import coredis

        core = coredis.Redis(host="127.0.0.1", port=port)
        await core.__aenter__()

        async def core_pipeline(count: int) -> Any:
            async with core.pipeline(transaction=False) as pipe:
                for _ in range(count):
                    pipe.incr("counter")

        return (lambda: core.incr("counter")), core_pipeline, core
    if library == "aioxide":
        import aioxide.redis as redis
    else:
        import redis.asyncio as redis  # type: ignore[no-redef]
    client = redis.Redis(host="127.0.0.1", port=port, max_connections=2000)

    async def pipeline(count: int) -> Any:
        pipe = client.pipeline(transaction=False)
        for _ in range(count):
            pipe.incr("counter")
        return await pipe.execute()

    return (lambda: client.incr("counter")), pipeline, client


async def run_row(row: str, count: int, library: str, port: int) -> dict[str, float]:
    """Run one row; return seconds of wall and processor time per command."""
    increment, pipeline, client = await client_of(library, port)
    size = int(re.sub(r"\D", "", row) or 1)

    async def worker() -> None:
        for _ in range(count // size):
            await increment()

    async def body() -> None:
        if row == "sequential":
            for _ in range(count):
                await increment()
        elif row.startswith("gather"):
            for _ in range(count // size):
                await asyncio.gather(*[increment() for _ in range(size)])
        elif row.startswith("pipeline"):
            for _ in range(count // size):
                await pipeline(size)
        else:
            await asyncio.gather(*[worker() for _ in range(size)])

    # Connections are made and caches warm before the clock starts.
    await asyncio.gather(*[increment() for _ in range(min(size, 1000) if "pipeline" not in row else 1)])
    await pipeline(10)
    wall, processor = time.perf_counter(), time.process_time()
    await body()
    result = {
        "wall": (time.perf_counter() - wall) / count,
        "cpu": (time.process_time() - processor) / count,
    }
    close = getattr(client, "aclose", None) or getattr(client, "close", None)
    if close is not None and library != "coredis":
        await close()
    return result


def child(options: argparse.Namespace) -> None:
    """Run one row with one client, and print the figures."""
    library, loop = CLIENTS[options.child]
    main = run_row(options.row, options.count, library, options.port)
    if loop.startswith("aioxide"):
        import aioxide

        driver = loop.removeprefix("aioxide[").partition("]")[0]
        loop_factory = lambda: aioxide.EventLoop(driver=driver)  # noqa: E731
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            if loop.endswith("+native"):
                runner.get_loop().set_task_factory(aioxide.native_task_factory)
            result = runner.run(main)
    elif loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(main)
    else:
        result = asyncio.run(main)
    print(json.dumps(result))


@contextmanager
def server() -> Any:
    """Start a redis-server on a free port; yield the port."""
    with tempfile.TemporaryDirectory() as folder:
        with closing(socket.create_server(("127.0.0.1", 0))) as probe:
            port = probe.getsockname()[1]
        command = [
            "redis-server",
            "--port",
            str(port),
            "--save",
            "",
            "--dir",
            folder,
            "--maxclients",
            "10000",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(500):
                with closing(socket.socket()) as attempt:
                    if attempt.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.01)
            yield port
        finally:
            process.terminate()
            process.wait()


def redis_benchmark(port: int, row: str) -> float | None:
    """Return seconds of wall time per command of redis-benchmark in the manner of a row."""
    manner = {
        "sequential": ["-c", "1"],
        "100 tasks": ["-c", "100"],
        "1000 tasks": ["-c", "1000"],
        "pipeline(100)": ["-c", "1", "-P", "100"],
        "pipeline(1000)": ["-c", "1", "-P", "1000"],
    }.get(row)
    if manner is None or shutil.which("redis-benchmark") is None:
        return None
    count = ["-n", "20000" if row != "sequential" else "5000"]
    command = ["redis-benchmark", "-p", str(port), "-t", "incr", "--csv", *count, *manner]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return 1 / float(output.splitlines()[-1].split(",")[1].strip('"'))


def available(library: str) -> bool:
    """Return whether a client's library is installed."""
    return importlib.util.find_spec(library) is not None


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description="Compare Redis clients, round robin.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer commands per row")
    parser.add_argument("--only", default="", help="rows in whose name this regular expression occurs")
    parser.add_argument("--clients", default="", help="clients in whose name this regular expression occurs")
    parser.add_argument("--json", type=Path)
    for name in ("child", "row", "count", "port"):
        parser.add_argument(
            f"--{name}", type=int if name in ("count", "port") else str, help=argparse.SUPPRESS
        )
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    rows = [row for row in ROWS if re.search(options.only, row)]
    clients = [
        name
        for name, (library, loop) in CLIENTS.items()
        if re.search(options.clients, name)
        and available(library)
        and (loop != "uvloop" or available("uvloop"))
    ]
    figures: dict[str, dict[str, list[dict[str, float]]]] = {
        row: {name: [] for name in clients} for row in rows
    }
    native: dict[str, list[float]] = {row: [] for row in rows}
    with server() as port:
        for number in range(options.rounds):
            for row in rows:
                count = max(1000, int(ROWS[row] * options.scale))
                for name in clients:
                    command = [
                        sys.executable,
                        __file__,
                        "--child",
                        name,
                        "--row",
                        row,
                        "--count",
                        str(count),
                        "--port",
                        str(port),
                    ]
                    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
                    if done.returncode:
                        sys.stderr.write(f"{name}, {row}: {done.stderr[-300:]}\n")
                        continue
                    figures[row][name].append(json.loads(done.stdout.splitlines()[-1]))
                seconds = redis_benchmark(port, row)
                if seconds is not None:
                    native[row].append(seconds)
            sys.stderr.write(f"round {number + 1} of {options.rounds}\n")
    show(figures, native)
    if options.json:
        options.json.write_text(json.dumps({"figures": figures, "redis-benchmark": native}, indent=1) + "\n")


def show(figures: dict[str, dict[str, list[dict[str, float]]]], native: dict[str, list[float]]) -> None:
    """Print a table for each row: medians in microseconds, and ratios to the baseline."""
    for row, by_client in figures.items():
        print(f"\n{row:34}{'wall us (min…max)':>26}{'ratio':>8}{'cpu us':>10}{'ratio':>8}")
        medians = {
            name: {key: statistics.median(one[key] for one in runs) for key in ("wall", "cpu")}
            for name, runs in by_client.items()
            if runs
        }
        base = medians.get(BASELINE)
        for name, median in medians.items():
            walls = [one["wall"] * 1e6 for one in by_client[name]]
            spread = f"{median['wall'] * 1e6:.2f} ({min(walls):.2f}…{max(walls):.2f})"
            ratio = {key: f"{base[key] / median[key]:.2f}x" if base else "" for key in ("wall", "cpu")}
            print(f"{name:34}{spread:>26}{ratio['wall']:>8}{median['cpu'] * 1e6:>10.2f}{ratio['cpu']:>8}")
        if native[row]:
            print(f"{'redis-benchmark (C)':34}{statistics.median(native[row]) * 1e6:>26.2f}")


if __name__ == "__main__":
    main()
