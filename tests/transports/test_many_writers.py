"""Many transports that write in the same turns: each peer gets its own bytes, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

SIZES = (1, 100, 1024, 4096, 8191, 8192, 20_000, 70_000)


class Answering(asyncio.Protocol):
    """Answers each line with that many bytes, in as many writes as it says."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        for line in data.splitlines():
            seed, size, writes = map(int, line.split())
            answer = random.Random(seed).randbytes(size)
            step = -(-size // writes)
            for start in range(0, size, step):
                self.transport.write(answer[start : start + step])


@pytest.mark.parametrize("seed", range(3))
async def test_everybody_gets_their_own_bytes(loop, seed):
    chance = random.Random(seed)
    server = await loop.create_server(Answering, "127.0.0.1", 0)
    async with server, contextlib.AsyncExitStack() as stack:
        peers = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            stack.push_async_callback(writer.wait_closed)
            stack.callback(writer.close)
            peers.append((reader, writer))
        for _ in range(25):
            asked = []
            for reader, writer in chance.sample(peers, chance.randint(1, len(peers))):
                question = (chance.randrange(1 << 30), chance.choice(SIZES), chance.randint(1, 3))
                writer.write(b"%d %d %d\n" % question)
                asked.append((reader, question))
            for reader, (number, size, _) in asked:
                assert await reader.readexactly(size) == random.Random(number).randbytes(size)
