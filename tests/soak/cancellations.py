"""Run a million Redis commands whose callers give up at random, and see whether anybody gets another's reply.

    python tests/soak/cancellations.py [--commands 1000000] [--kill] [--seed N]

A private redis-server is started. With --kill connections are killed at random, too; without, no connection
may be lost for a caller that gave up. The exit status is 1 when a reply is not its caller's, or something is
left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "redis")]


def main() -> int:
    """Run the storm and tell what it left behind."""
    import aioxide
    from services import redis_server

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with redis_server() as server:
        return aioxide.run(run(server.unix_socket, options))


async def run(unix_socket: str, options: argparse.Namespace) -> int:
    """Warm up, run the storm, compare what is there before and after it."""
    import aioxide.redis as redis
    from cancellation_storm import storm

    loop = asyncio.get_running_loop()
    chance = random.Random(options.seed)
    client = redis.Redis(unix_socket_path=unix_socket)
    killer = redis.Redis(unix_socket_path=unix_socket) if options.kill else None
    await storm(client, 50_000, chance, killer)
    connections = (await client.info("stats"))["total_connections_received"]
    files, memory = len(os.listdir("/proc/self/fd")), resident()
    began = time.monotonic()
    survivors = await storm(client, options.commands, chance, killer)
    seconds = time.monotonic() - began
    more = (await client.info("stats"))["total_connections_received"] - connections
    leaked_files = len(os.listdir("/proc/self/fd")) - files
    print(
        f"{options.commands} commands in {seconds:.0f} s: {survivors} callers got a reply, all their own; "
        f"{more} connections made; {leaked_files} files more; {memory:.1f} -> {resident():.1f} MiB"
    )
    await client.aclose()
    if killer is not None:
        await killer.aclose()
    await asyncio.sleep(0.1)
    left = loop.statistics()["rust_tasks"]  # type: ignore[attr-defined]
    print(f"{left} Rust tasks left; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f} MiB")
    return int(left > 0 or leaked_files > 0 or (more > 0 and not options.kill))


def resident() -> float:
    """Return the memory that the process holds, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    sys.exit(main())
