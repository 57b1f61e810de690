"""The rows of the table: what is measured, in which order, and which belong to a short run.

A row is data. Scheduling rows name a scenario in `scheduling.py`; echo rows name a server in
`servers.py` and the load put on it.

Invariant: names are unique and stable, because results of different days are compared by them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class SchedulingRow:
    """Nanoseconds per operation, inside one process."""

    name: str
    scenario: str
    operations: int
    quick: bool = True
    unit: str = "ns/op"


@dataclass(frozen=True)
class EchoRow:
    """Microseconds of server CPU per echoed message, measured from outside."""

    name: str
    server: str
    connections: int
    message_bytes: int
    pipelined: int = 1
    quick: bool = False
    unit: str = "us CPU/msg"


Row = SchedulingRow | EchoRow

SCHEDULING = (
    SchedulingRow("call_soon, chain", "call_soon_chain", 50_000),
    SchedulingRow("call_soon, batch of 100k", "call_soon_batch", 100_000),
    SchedulingRow("call_soon_threadsafe", "call_soon_threadsafe", 20_000),
    SchedulingRow("call_later + cancel", "call_later_cancel", 20_000),
    SchedulingRow("20,000 due timers", "due_timers", 20_000),
    SchedulingRow("sleep(0)", "sleep_zero", 20_000),
    SchedulingRow("create_task + await", "create_task_await", 10_000),
    SchedulingRow("gather(100), per child", "gather_children", 10_000),
    SchedulingRow("TaskGroup(100), per child", "task_group_children", 10_000),
    SchedulingRow("future set + await", "future_await", 10_000),
    SchedulingRow("Event ping-pong", "event_ping_pong", 5_000),
    SchedulingRow("run_in_executor", "run_in_executor", 1_000),
)

SERVERS = ("protocol", "buffered", "streams", "native_streams")
CONNECTIONS = (1, 64, 1000)
SIZES = (1, 16, 100)
DEFAULT_ECHO = (
    ("protocol", 1, 1),
    ("protocol", 64, 1),
    ("protocol", 1000, 1),
    ("protocol", 64, 16),
    ("protocol", 64, 100),
    ("buffered", 64, 1),
    ("buffered", 64, 16),
    ("streams", 1, 1),
    ("streams", 64, 1),
    ("streams", 1000, 1),
    ("streams", 64, 16),
    ("native_streams", 64, 1),
    ("native_streams", 1000, 1),
)
QUICK_ECHO = (("protocol", 1, 1), ("protocol", 64, 1), ("buffered", 64, 1), ("streams", 64, 1))
PIPELINED = (
    EchoRow("answers 16 x 64 B, 64 pipelined", "answers", 16, 64, pipelined=64),
    EchoRow("streams 16 x 64 B, 64 pipelined", "streams", 16, 64, pipelined=64),
)
DATAGRAMS = (
    EchoRow("datagrams 1 x 1 KiB", "datagrams", 1, 1024, quick=True),
    EchoRow("datagrams 64 x 1 KiB", "datagrams", 64, 1024),
)
"""One in flight for each of the peers: the kernel drops what a socket's buffer does not hold."""


def echo(server: str, connections: int, kibibytes: int) -> EchoRow:
    """Describe a row with one message in flight per connection."""
    quick = (server, connections, kibibytes) in QUICK_ECHO
    return EchoRow(
        f"{server} {connections} x {kibibytes} KiB", server, connections, kibibytes * 1024, quick=quick
    )


def every_row(*, full: bool) -> Iterator[Row]:
    """Yield the rows of a default run, or all there are."""
    yield from SCHEDULING
    for server in SERVERS:
        for connections in CONNECTIONS:
            for kibibytes in SIZES:
                if full or (server, connections, kibibytes) in DEFAULT_ECHO:
                    yield echo(server, connections, kibibytes)
    yield from PIPELINED
    yield from DATAGRAMS


def select(pattern: str | None, *, quick: bool, full: bool) -> list[Row]:
    """Choose rows: those of the wanted width whose name the regular expression is found in."""
    expression = re.compile(pattern or "", re.IGNORECASE)
    rows = every_row(full=full or pattern is not None)
    return [row for row in rows if expression.search(row.name) and (row.quick or not quick or pattern)]
