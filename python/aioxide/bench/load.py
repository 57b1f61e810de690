"""A load on servers in pure Python: works wherever the package is installed.

It is slower than most servers under it, so messages per second and latencies say little; the server's CPU
time per message, which is read from outside its process, does not depend on it much. As with the load
generator in Rust, every byte that comes back is checked.
"""

import os
import selectors
import socket
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cells import CellError, Effort, Server
from .rows import MemoryRow, ServerRow

HOST = "127.0.0.1"
STALL = 5.0
"""Seconds of silence after which a server counts as stuck."""
PAUSE = 0.002
"""Seconds between two readings of a server's CPU time: longer than a loop may spin before it sleeps."""
ATTEMPTS = 50


class Client:
    """One connection, with one batch of messages in flight at a time."""

    def __init__(self, row: ServerRow | MemoryRow, address: str | int, number: int) -> None:
        self.batch = row.pipelined if isinstance(row, ServerRow) else 1
        start = number % 251
        self.message = bytes((start + index) % 256 for index in range(row.message_bytes)) * self.batch
        self.received = bytearray()
        self.started = 0.0
        self.unsent = memoryview(b"")
        datagrams = row.transport == "datagrams"
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
        self.socket.connect(address if isinstance(address, str) else (HOST, address))
        if family == socket.AF_INET and not datagrams:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def start(self) -> None:
        """Put a batch in flight."""
        self.started = time.perf_counter()
        self.unsent = memoryview(self.message)
        self.send()

    def send(self) -> None:
        """Send what fits."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass

    def receive(self) -> bool:
        """Take what came; tell whether the batch is complete."""
        try:
            data = self.socket.recv(256 * 1024)
        except BlockingIOError:
            return False
        if not data:
            raise CellError("the server closed a connection with an echo still to come")
        self.received += data
        self.send()
        if len(self.received) < len(self.message):
            return False
        if self.received != self.message:
            raise CellError("the echo differs from what was sent")
        self.received.clear()
        return True


class Clients:
    """All connections to one server."""

    def __init__(self, row: ServerRow | MemoryRow, server: Server, count: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.clients: list[Client] = []
        for number in range(count):
            client = Client(row, server.address, number)
            self.clients.append(client)
            self.selector.register(client.socket, selectors.EVENT_READ, client)

    def run(self, seconds: float) -> tuple[list[float], float]:
        """Load the server, then wait for the last echoes; return a latency for each batch, and the time."""
        begin = time.perf_counter()
        deadline = begin + seconds
        latencies: list[float] = []
        for client in self.clients:
            client.start()
        in_flight = len(self.clients)
        while in_flight:
            events = self.selector.select(STALL)
            if not events:
                raise CellError(f"the server stopped answering with {in_flight} messages in flight")
            for key, _ in events:
                if not key.data.receive():
                    continue
                now = time.perf_counter()
                latencies.append(now - key.data.started)
                if now < deadline:
                    key.data.start()
                else:
                    in_flight -= 1
        return latencies, time.perf_counter() - begin

    def close(self) -> None:
        """Close every connection."""
        self.selector.close()
        for client in self.clients:
            client.socket.close()


@dataclass(frozen=True)
class PythonLoad:
    """Loads servers from this process."""

    def load(self, row: ServerRow, server: Server, effort: Effort) -> dict[str, Any]:
        """Put a row's load on a server and charge the server's CPU time to the messages."""
        clients = Clients(row, server, row.connections)
        try:
            clients.run(effort.warm_up)
            before = settled_time(server.pid)
            latencies, seconds = clients.run(effort.seconds)
            spent = settled_time(server.pid) - before
        finally:
            clients.close()
        percentiles = statistics.quantiles([*latencies, *latencies], n=100)
        return {
            "messages": len(latencies) * row.pipelined,
            "seconds": seconds,
            "latency_p50_us": percentiles[49] * 1e6,
            "latency_p99_us": percentiles[98] * 1e6,
            "server_cpu_seconds": spent,
        }

    def memory(self, row: MemoryRow, server: Server) -> dict[str, Any]:
        """See what the server's memory grows by; as many connections are open before."""
        sizes = []
        opened = []
        try:
            for _ in range(2):
                opened.append(Clients(row, server, row.connections))
                opened[-1].run(0)
                settled_time(server.pid)
                sizes.append(resident(server.pid))
        finally:
            for clients in opened:
                clients.close()
        return {"resident_before": sizes[0], "resident_after": sizes[1]}


def settled_time(pid: int) -> float:
    """Return the CPU seconds of a process once it has gone to sleep: then the kernel's number is exact."""
    before = processor_time(pid)
    for _ in range(ATTEMPTS):
        time.sleep(PAUSE)
        now = processor_time(pid)
        if now == before:
            break
        before = now
    return before / 1e9


def processor_time(pid: int) -> int:
    """Sum the nanoseconds that the threads of a process have run (sched-stats.rst of the kernel)."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((thread / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def resident(pid: int) -> int:
    """Return the resident bytes of a process (proc_pid_statm(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
