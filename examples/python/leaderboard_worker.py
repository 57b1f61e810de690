"""The leaderboard's wins, counted by worker processes: the handler of `python -m aioxide worker`.

A worker may be given a win twice, when the one that had it before died before it could say that it was done.
So a win is marked and counted in one step: whoever comes second finds the mark.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aioxide.redis import Event, Redis

COUNT_ONCE = """
if redis.call('SADD', KEYS[3], ARGV[1]) == 1 then
    redis.call('ZINCRBY', KEYS[1], ARGV[3], ARGV[2])
    redis.call('INCRBY', KEYS[2], ARGV[3])
end
"""


@asynccontextmanager
async def counting() -> AsyncIterator[Callable[[list[Event]], Awaitable[None]]]:
    """Provide the handler, with a client that lives as long as the process."""
    *keys, ready = os.environ["LEADERBOARD_KEYS"].split()
    async with Redis.from_url(os.environ["LEADERBOARD_URL"]) as redis:
        count_once = redis.register_script(COUNT_ONCE)

        async def count(events: list[Event]) -> None:
            async with redis.pipeline(transaction=False) as pipeline:
                for event in events:
                    win = event.fields
                    await count_once(
                        keys=keys, args=[event.id, win["player"], win["points"]], client=pipeline
                    )
                await pipeline.execute()

        await redis.incr(ready)
        yield count
