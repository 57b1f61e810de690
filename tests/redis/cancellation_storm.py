"""Callers of one Redis client that give up at random, while connections are killed under them."""

from __future__ import annotations

import asyncio
import random

import aioxide.redis as redis


async def storm(
    client: redis.Redis, commands: int, chance: random.Random, killer: redis.Redis | None = None
) -> int:
    """Run commands whose callers give up at random; return how many got their reply, their own of course."""
    survivors = 0

    async def ask(number: int) -> None:
        nonlocal survivors
        try:
            async with asyncio.timeout(chance.choice([None, None, 0.0, 0.0005, 0.002])):
                assert await client.echo(str(number)) == b"%d" % number
                survivors += 1
        except (TimeoutError, redis.ConnectionError):
            pass

    for begun in range(0, commands, 500):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(number)) for number in range(begun, begun + 500)]
            await asyncio.sleep(0)
            for task in chance.sample(tasks, 50):
                task.cancel()
            if killer is not None and chance.random() < 0.2:
                await killer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return survivors
