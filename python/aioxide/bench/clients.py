"""What a program asks of others: connections to a server, and processes of the system.

`CLIENTS` maps the names used in `rows.py` to coroutine functions `client(count, port)` that talk to the load
generator's peer on that port; `PROCESSES` has those that need none, `client(count)`.

Invariant: as with the scheduling scenarios, an operation that did not take place is an error.
"""

import asyncio
from collections.abc import Awaitable, Callable

from .scheduling import Scenario, expect

HOST = "127.0.0.1"
AT_ONCE = 32
"""Connections that are being opened at the same time."""


class Visit(asyncio.Protocol):
    """Notice the end of a connection."""

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self.ended.set_result(exc)


async def connect_close(count: int, port: int) -> None:
    """Open connections and close them."""
    loop = asyncio.get_running_loop()
    ends: list[Exception | None] = []

    async def visit() -> None:
        for _ in range(count // AT_ONCE):
            transport, protocol = await loop.create_connection(Visit, HOST, port)
            transport.close()
            ends.append(await protocol.ended)

    await asyncio.gather(*[visit() for _ in range(AT_ONCE)])
    expect(ends.count(None), count)


async def spawn_wait(count: int) -> None:
    """Start a process that does nothing and wait for its end, one after the other."""
    ended = 0
    for _ in range(count):
        process = await asyncio.create_subprocess_exec("true")
        ended += await process.wait() == 0
    expect(ended, count)


async def spawn_output(count: int) -> None:
    """Start processes, four at a time, and take what they write."""
    outputs: list[bytes] = []

    async def run() -> None:
        for _ in range(count // 4):
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec("echo", "hello", stdout=pipe)
            output, _ = await process.communicate()
            outputs.append(output)

    await asyncio.gather(*[run() for _ in range(4)])
    expect(outputs.count(b"hello\n"), count)


CLIENTS: dict[str, Callable[[int, int], Awaitable[None]]] = {"connect_close": connect_close}

PROCESSES: dict[str, Scenario] = {"spawn_wait": spawn_wait, "spawn_output": spawn_output}
