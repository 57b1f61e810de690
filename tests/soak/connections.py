"""Open and close very many connections, then hold very many at once, and see whether memory comes back.

    python tests/soak/connections.py [--loop uring|epoll|asyncio] [--in-a-row 100000] [--at-once 5000]

Both ends live in one loop. The first round warms caches and free lists up; what is compared is the resident
memory before and after the rounds that follow. The exit status is 1 when more than `--allowed` MiB stay.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import resource
import sys
import time

PAYLOAD = b"x" * 64


class Echo(asyncio.Protocol):
    """Sends back what it receives."""

    alive = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        Echo.alive += 1

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        Echo.alive -= 1


class Client(asyncio.Protocol):
    """Sends one message and notes the answer and the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answered = loop.create_future()
        self.lost = loop.create_future()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(PAYLOAD)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.received == len(PAYLOAD):
            self.answered.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


def resident_mebibytes() -> float:
    """Return the memory this process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


async def in_a_row(address: tuple[str, int], count: int) -> None:
    """Open, use and close `count` connections, one after the other."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        transport, client = await loop.create_connection(lambda: Client(loop), *address)
        await client.answered
        transport.close()
        await client.lost


async def at_once(address: tuple[str, int], count: int) -> None:
    """Hold `count` connections open together, use each of them, and close them."""
    loop = asyncio.get_running_loop()
    pairs = []
    for start in range(0, count, 100):
        size = min(100, count - start)
        pairs += await asyncio.gather(
            *(loop.create_connection(lambda: Client(loop), *address) for _ in range(size))
        )
    await asyncio.gather(*(client.answered for _, client in pairs))
    print(f"    {Echo.alive} connections open: {resident_mebibytes():.1f} MiB")
    for transport, _ in pairs:
        transport.close()
    await asyncio.gather(*(client.lost for _, client in pairs))


async def settle() -> float:
    """Wait until the server's ends are gone too and return the memory held."""
    while Echo.alive:
        await asyncio.sleep(0.01)
    gc.collect()
    return resident_mebibytes()


async def main(arguments: argparse.Namespace) -> bool:
    """Run both rounds and tell whether memory came back."""
    loop = asyncio.get_running_loop()
    print(loop)
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    address = server.sockets[0].getsockname()
    came_back = True
    rounds = ((in_a_row, arguments.in_a_row), (at_once, arguments.at_once))
    for round_, count in rounds:
        await round_(address, min(count, 5000))
        before = await settle()
        begin = time.perf_counter()
        await round_(address, count)
        seconds = time.perf_counter() - begin
        after = await settle()
        print(
            f"{round_.__name__}: {count} connections in {seconds:.1f} s ({count / seconds:.0f}/s), "
            f"{before:.1f} MiB before, {after:.1f} MiB after"
        )
        came_back = came_back and after - before <= arguments.allowed
    server.close()
    await server.wait_closed()
    if hasattr(loop, "statistics"):
        print(loop.statistics())
    return came_back


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loop", default="uring", choices=["asyncio", "uring", "epoll"])
    parser.add_argument("--in-a-row", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=5000)
    parser.add_argument("--allowed", type=float, default=4.0, help="MiB that may stay")
    parsed = parser.parse_args()
    # Both ends of each connection are ours, and some files are always open.
    needed = 2 * parsed.at_once + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if parsed.loop == "asyncio":
        factory = asyncio.SelectorEventLoop
    else:
        import aioxide

        factory = functools.partial(aioxide.EventLoop, driver=parsed.loop)
    with asyncio.Runner(loop_factory=factory) as runner:
        sys.exit(0 if runner.run(main(parsed)) else 1)
