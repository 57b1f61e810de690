"""Kill worker processes at random, many times, while they handle events, and see whether an event is lost.

    python tests/soak/workers.py [--kills 100] [--events 20000] [--processes 4] [--seed N]

A private redis-server is started. The exit status is 1 when an event is lost, stays pending or is given up.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "redis")]


def main() -> int:
    """Run the storm and tell what it left behind."""
    from services import redis_server
    from worker_storm import storm

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with redis_server() as server:
        outcome = storm(
            f"redis://{server.host}:{server.port}",
            kills=options.kills,
            events=options.events,
            processes=options.processes,
            options=["--max-deliveries", "0"],
            seed=options.seed,
        )
    print(
        f"{outcome.kills} kills in {outcome.seconds:.0f} s, {outcome.events} events: "
        f"{len(outcome.lost)} lost, {outcome.pending} pending, {outcome.dead_letters} given up; "
        f"{outcome.begun_twice} begun more than once, {outcome.done_twice} done more than once"
    )
    return 1 if outcome.lost or outcome.pending or outcome.dead_letters else 0


if __name__ == "__main__":
    sys.exit(main())
