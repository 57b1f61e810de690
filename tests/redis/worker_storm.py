"""Workers under fire: processes of `python -m aioxide worker` that are killed while they handle events.

What a handler does can be seen in Redis alone, under keys of its own, so that nothing in the workers is
believed. Used by the tests and by the soak run.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from children import without_debug_mode
from services import temporary_directory

PATIENCE = 60.0

HANDLER = """
import asyncio, contextlib, os, random, sys
from redis.asyncio import Redis

@contextlib.asynccontextmanager
async def count():
    # The second client is the handler's own: effects do not travel with acknowledgements.
    async with Redis.from_url(os.environ["STORM_URL"], retry_on_timeout=True) as client:
        await client.sadd("ready", os.getpid())
        await client.sadd("names", sys.argv[1])

        async def handle(event):
            await client.hincrby("begun", event.fields["number"])
            await asyncio.sleep(random.uniform(0, float(os.environ["STORM_SECONDS"])))
            await client.hincrby("done", event.fields["number"])

        yield handle

async def slow(event):
    await asyncio.sleep(float(os.environ["STORM_SECONDS"]))
"""


@contextlib.contextmanager
def supervised(
    url: str, *options: str, handler: str = "storm:count", seconds: float = 0.02, factory: bool = True
) -> Iterator[subprocess.Popen[str]]:
    """Run the command line with a handler that leaves traces; kill what is left of it in the end."""
    with temporary_directory("worker") as folder:
        (folder / "storm.py").write_text(HANDLER)
        command = [
            sys.executable,
            "-m",
            "aioxide",
            "worker",
            handler,
            "--stream",
            "events",
            "--group",
            "group",
        ]
        process = subprocess.Popen(
            [*command, *(["--factory"] if factory else []), *options],
            cwd=folder,
            env=without_debug_mode(
                REDIS_URL=url, STORM_URL=url, STORM_SECONDS=str(seconds), TMPDIR=str(folder)
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        # A pipe that nobody reads would block the processes that write to it.
        with drained(process, folder / "output"):
            try:
                yield process
            finally:
                # The processes end by themselves when the supervisor is gone; these are in a hurry.
                left = children_of(process.pid)
                if process.poll() is None:
                    process.kill()
                process.wait()
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def drained(process: subprocess.Popen[str], path: Path) -> Iterator[None]:
    """Write down what a process says, and show it when the block fails."""
    assert process.stdout is not None
    with path.open("w+") as output:
        reader = subprocess.Popen(["cat"], stdin=process.stdout, stdout=output)
        process.stdout.close()
        try:
            yield
        except BaseException:
            print(path.read_text()[-5000:])
            raise
        finally:
            reader.kill()
            reader.wait()


def children_of(pid: int) -> list[int]:
    """List the processes that a process has started."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def wait_until(condition: Any, patience: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.01)


@dataclass
class Outcome:
    """What a storm left behind."""

    events: int
    kills: int
    lost: list[int]
    # Events whose effect happened more than once, and whose handler began more than once.
    done_twice: int
    begun_twice: int
    seconds: float
    dead_letters: int
    pending: int


def storm(
    url: str,
    *,
    kills: int,
    events: int,
    processes: int,
    options: Sequence[str] = (),
    seed: int | None = None,
) -> Outcome:
    """Add events, and kill a random process of a supervised worker again and again; count effects."""
    dice = random.Random(seed)
    started = time.monotonic()
    settings = ["--claim-idle", "1", "--restart-delay", "0.05", "--log-level", "error"]
    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.flushall()
        with supervised(url, "--processes", str(processes), *settings, *options) as supervisor:
            added = killed = 0
            while killed < kills or added < events:
                wait_until(lambda: client.scard("ready"))
                # The load never ends before the last kill.
                share = (
                    events - added if killed == kills else max(1, (events - added) // (kills - killed + 1))
                )
                with client.pipeline(transaction=False) as pipeline:
                    for number in range(added, added + share):
                        pipeline.xadd("events", {"number": number})
                    pipeline.execute()
                added += share
                if killed == kills:
                    continue
                time.sleep(dice.uniform(0, 0.15))
                victim = dice.choice(sorted(client.smembers("ready")))
                client.srem("ready", victim)
                os.kill(int(victim), signal.SIGKILL)
                killed += 1

            def everything_is_acknowledged() -> bool:
                [group] = client.xinfo_groups("events")
                return group["pending"] == 0 and group["lag"] == 0

            wait_until(everything_is_acknowledged)
            supervisor.terminate()
            assert supervisor.wait(PATIENCE) == 0
        done = {int(number): int(count) for number, count in client.hgetall("done").items()}
        begun = client.hgetall("begun")
        return Outcome(
            events=events,
            kills=killed,
            lost=sorted(set(range(events)) - done.keys()),
            done_twice=sum(count > 1 for count in done.values()),
            begun_twice=sum(int(count) > 1 for count in begun.values()),
            seconds=time.monotonic() - started,
            dead_letters=client.xlen("events:dead"),
            pending=client.xpending("events", "group")["pending"],
        )
