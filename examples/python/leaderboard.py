#!/usr/bin/env python3
"""Count wins from a Redis stream into a leaderboard, in several ways, and compare their speed.

A feeder appends wins to a stream; a reader tails it with XREAD BLOCK. Every win is two commands: one for the
winner's score in a sorted set, one for the counter of all points. The ways differ in what waits for what:

  one     every command waits for the answer to the one before it
  event   the two commands of one win travel together, win after win
  batch   all commands of everything that XREAD returned travel together
  workers processes of a consumer group share the wins: `python -m aioxide worker`

On aioxide's loop each way is measured with redis-py's client and with aioxide.redis.

At the end the leaderboard in Redis is compared with what was fed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import random
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loops
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError
from redis_server import private_server
from report import Report, Stopwatch, progress

PLAYERS = ("ada", "barbara", "edsger", "grace", "haskell", "john", "kathleen", "leslie", "margaret", "tony")
READ_AT_MOST = 100
FEED_AT_ONCE = 250
BLOCK_MILLISECONDS = 1000
# Where the class of a client is, and what its figures are called.
CLIENTS = {"redis-py": ("redis.asyncio", ""), "aioxide": ("aioxide.redis", ", aioxide.redis")}
PROCESSES = 2


@dataclass(frozen=True)
class Win:
    """One entry of the stream."""

    player: str
    points: int


class Leaderboard:
    """The keys of one leaderboard, under a prefix that nothing else uses."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.stream = f"{prefix}:wins"
        self.scores = f"{prefix}:scores"
        self.total = f"{prefix}:total"
        # What the workers need beside: the wins that are counted, and how many of themselves are ready.
        self.counted = f"{prefix}:counted"
        self.ready = f"{prefix}:ready"

    def score(self, win: Win) -> Awaitable[float | None]:
        """Add the points to the winner's score."""
        return self.redis.zincrby(self.scores, win.points, win.player)

    def count(self, win: Win) -> Awaitable[int]:
        """Add the points to the total."""
        return self.redis.incrby(self.total, win.points)

    async def feed(self, wins: list[Win]) -> None:
        """Append the wins to the stream, many in one round trip."""
        for start in range(0, len(wins), FEED_AT_ONCE):
            async with self.redis.pipeline(transaction=False) as pipeline:
                for win in wins[start : start + FEED_AT_ONCE]:
                    pipeline.xadd(self.stream, {"player": win.player, "points": win.points})
                await pipeline.execute()

    async def tail(self, after: str = "0") -> AsyncGenerator[list[Win], None]:
        """Yield the wins of the stream in batches, waiting for new ones for ever."""
        while True:
            answer: Any = await self.redis.xread(
                {self.stream: after}, count=READ_AT_MOST, block=BLOCK_MILLISECONDS
            )
            # Nothing came before the block ran out: ask again.
            if not answer:
                continue
            [(_, entries)] = answer
            after = entries[-1][0]
            yield [Win(fields["player"], int(fields["points"])) for _, fields in entries]

    async def standings(self) -> tuple[dict[str, int], int]:
        """Read every player's score, and the total."""
        scores: Any
        scores, total = await asyncio.gather(
            self.redis.zrange(self.scores, 0, -1, desc=True, withscores=True), self.redis.get(self.total)
        )
        return {player: int(score) for player, score in scores}, int(total or 0)

    async def forget(self) -> None:
        """Delete the keys."""
        await self.redis.delete(self.stream, self.scores, self.total, self.counted, self.ready)


async def one_command_at_a_time(board: Leaderboard, wins: list[Win]) -> None:
    """Wait for every answer before the next command."""
    for win in wins:
        await board.score(win)
        await board.count(win)


async def commands_of_one_event_together(board: Leaderboard, wins: list[Win]) -> None:
    """Send the two commands of a win together, then wait for both."""
    for win in wins:
        await asyncio.gather(board.score(win), board.count(win))


async def whole_batches_together(board: Leaderboard, wins: list[Win]) -> None:
    """Send everything that is known, then wait for all of it."""
    await asyncio.gather(*(command for win in wins for command in (board.score(win), board.count(win))))


Variant = Callable[[Leaderboard, list[Win]], Awaitable[None]]
VARIANTS: dict[str, tuple[str, Variant]] = {
    "one": ("one command at a time", one_command_at_a_time),
    "event": ("commands of one event together", commands_of_one_event_together),
    "batch": ("whole batches together", whole_batches_together),
}


def invent_wins(amount: int) -> list[Win]:
    """Make the same wins on every run, so that runs can be compared."""
    dice = random.Random(2026)
    return [Win(dice.choice(PLAYERS), dice.randint(1, 10)) for _ in range(amount)]


@asynccontextmanager
async def connected(url: str, connections: int, client: str = "redis-py") -> AsyncIterator[Redis]:
    """Connect to Redis with a pool whose users wait for a free connection instead of failing."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=None,
        decode_responses=True,
        # With a time-out every write goes through wait_for, which can swallow Ctrl-C before Python 3.12.
        socket_timeout=None,
    )
    async with importlib.import_module(CLIENTS[client][0]).Redis.from_pool(pool) as redis:
        await redis.ping()
        yield redis


async def measure(
    name: str, wins: list[Win], url: str, connections: int, report: Report, client: str = "redis-py"
) -> None:
    """Feed and count all wins in one way, with a fresh pool and fresh keys, and verify the result."""
    title, update = VARIANTS[name]
    title += CLIENTS[client][1]
    async with connected(url, connections, client) as redis:
        board = Leaderboard(redis, f"leaderboard:{uuid.uuid4().hex}")
        try:
            with progress(title, len(wins)) as advance, Stopwatch() as watch:
                seen = 0
                # Whatever ends one of the two, feeder or reader, the group ends the other before it goes on.
                async with asyncio.TaskGroup() as group, aclosing(board.tail()) as batches:
                    group.create_task(board.feed(wins))
                    async for batch in batches:
                        await update(board, batch)
                        advance(len(batch))
                        seen += len(batch)
                        if seen >= len(wins):
                            break
            scores, total = await board.standings()
        finally:
            await board.forget()
    report.rate(title, len(wins), watch.seconds, "events")
    report.check(seen == len(wins), f"{title}: {seen} wins were read, {len(wins)} were fed")
    verify(title, wins, scores, total, report)


def verify(title: str, wins: list[Win], scores: dict[str, int], total: int, report: Report) -> None:
    """Compare what was counted with what was fed."""
    expected: Counter[str] = Counter()
    for win in wins:
        expected[win.player] += win.points
    report.check(total == expected.total(), f"{title}: the total is {total}, {expected.total()} were fed")
    for player in expected.keys() | scores.keys():
        score = scores.get(player, 0)
        problem = f"{title}: {player} has {score} points, {expected[player]} were fed"
        report.check(score == expected[player], problem)


async def measure_workers(wins: list[Win], url: str, report: Report) -> None:
    """Feed all wins and have worker processes count them."""
    title = f"{PROCESSES} worker processes"
    async with connected(url, 2) as redis:
        board = Leaderboard(redis, f"leaderboard:{uuid.uuid4().hex}")
        try:
            await redis.eval("return 1", 0)
        except ResponseError:
            print(f"  {title}: left out, this server has no scripts", flush=True)
            return
        try:
            async with working(board, url) as workers:
                with progress(title, len(wins)) as advance, Stopwatch() as watch:
                    await board.feed(wins)
                    await until_counted(board, workers)
                    advance(len(wins))
            scores, total = await board.standings()
        finally:
            await board.forget()
    report.rate(title, len(wins), watch.seconds, "events")
    verify(title, wins, scores, total, report)


@asynccontextmanager
async def working(board: Leaderboard, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run workers for the time of the block, which begins when they wait for wins."""
    options = ["--stream", board.stream, "--group", "leaderboard", "--batch", str(READ_AT_MOST)]
    options += ["--processes", str(PROCESSES), "--log-level", "error", "--factory"]
    keys = f"{board.scores} {board.total} {board.counted} {board.ready}"
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "aioxide", "worker", "leaderboard_worker:counting", *options),
            cwd=Path(__file__).resolve().parent,
            env={**os.environ, "REDIS_URL": url, "LEADERBOARD_URL": url, "LEADERBOARD_KEYS": keys},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=complaints,
            stderr=complaints,
            # Ctrl-C is for this program, which then ends the workers.
            start_new_session=True,
        )
        try:
            while process.returncode is None and int(await board.redis.get(board.ready) or 0) < PROCESSES:
                await asyncio.sleep(0.02)
            if process.returncode is None:
                yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip()
        if said or process.returncode:
            raise loops.ProgramError(f"the workers ended with code {process.returncode}:\n{said}")


async def until_counted(board: Leaderboard, workers: asyncio.subprocess.Process) -> None:
    """Wait until every win has been delivered and acknowledged."""
    while workers.returncode is None:
        [group] = await board.redis.xinfo_groups(board.stream)
        if group["lag"] == 0 and group["pending"] == 0:
            return
        await asyncio.sleep(0.005)


async def follow(stream: str, url: str, connections: int) -> None:
    """Print the standings after every batch of somebody else's stream, until Ctrl-C."""
    async with connected(url, connections) as redis:
        board = Leaderboard(redis, f"leaderboard:{uuid.uuid4().hex}")
        board.stream = stream
        print(
            f"Following {stream}: add wins with XADD {stream} '*' player NAME points NUMBER. Ctrl-C ends.",
            flush=True,
        )
        try:
            async for batch in board.tail(after="$"):
                await whole_batches_together(board, batch)
                scores, _ = await board.standings()
                print(
                    "   ".join(f"{player} {score}" for player, score in list(scores.items())[:5]), flush=True
                )
        finally:
            # The stream is not ours to delete.
            await redis.delete(board.scores, board.total)


async def compare(options: argparse.Namespace, report: Report) -> None:
    """Measure every way that the options ask for, with every client they ask for."""
    wins = invent_wins(options.events)
    for name in VARIANTS if options.variant == "all" else (options.variant,):
        for client in CLIENTS if options.client == "both" else (options.client,):
            if name in VARIANTS:
                await measure(name, wins, options.redis_url, options.connections, report, client)
    if options.variant == "workers" or (options.variant == "all" and options.client != "redis-py"):
        await measure_workers(wins, options.redis_url, report)


async def leaderboard(options: argparse.Namespace, report: Report) -> None:
    """Run what the options ask for."""
    problems: list[Exception] = []
    try:
        if options.follow:
            await follow(options.follow, options.redis_url, options.connections)
        else:
            await compare(options, report)
    except* RedisError as group:
        problems.append(group)
    if problems:
        problem = problems[0]
        while isinstance(problem, ExceptionGroup):
            problem = problem.exceptions[0]
        raise loops.ProgramError(f"Redis at {options.redis_url}: {problem}")


def main() -> int:
    """Read the options, find or start a server, and run."""
    parser = loops.option_parser(__doc__)
    parser.add_argument(
        "--events", type=loops.positive, default=2000, metavar="N", help="wins to feed (%(default)s)"
    )
    parser.add_argument(
        "--variant", choices=("all", *VARIANTS, "workers"), default="all", help="which way (default: all)"
    )
    parser.add_argument(
        "--client",
        choices=("both", *CLIENTS),
        help="which client (default: both on aioxide's loop, elsewhere redis-py)",
    )
    parser.add_argument(
        "--connections", type=loops.positive, default=20, metavar="N", help="pool size (%(default)s)"
    )
    parser.add_argument(
        "--follow", metavar="STREAM", help="feed nothing; tail this stream of others until Ctrl-C"
    )
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        default=os.environ.get("REDIS_URL"),
        help="the server to use (default: $REDIS_URL, else a private server is started)",
    )
    options = parser.parse_args()
    options.client = options.client or ("both" if options.loop == "aioxide" else "redis-py")
    if options.client != "redis-py" and options.loop != "aioxide":
        parser.error("aioxide's client needs aioxide's loop: --loop aioxide")
    try:
        with nullcontext() if options.redis_url else private_server() as server:
            if server is not None:
                options.redis_url = server.url
                print(f"A private Redis for this run: {server.kind}", flush=True)
            return loops.run(leaderboard, options, "leaderboard")
    except KeyboardInterrupt:
        # Before the loop runs, while the server starts.
        print("Interrupted.", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"leaderboard: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
