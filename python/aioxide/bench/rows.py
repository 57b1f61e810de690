"""The rows of the table: what is measured, in which order, and which belong to a short run.

A row is data. Scheduling rows name a scenario in `scheduling.py` or `clients.py`; server rows name a
server in `servers.py`, or in the benchmarks' `web.py`, and the load put on it; client rows likewise. A
row's scopes say which special candidates take part (`loops.py`).

Invariant: names are unique and stable, because results of different days are compared by them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Series:
    """Where a row stands among rows that differ only in how many there are of something."""

    name: str
    count: int


@dataclass(frozen=True)
class SchedulingRow:
    """Time per operation, inside one process."""

    name: str
    scenario: str
    operations: int
    quick: bool = True
    scopes: frozenset[str] = NONE
    unit: str = "ns/op"
    clock: str | None = None
    """The clock that the row needs, whatever the others go by."""
    series: Series | None = None
    kind: str = "scheduling"


@dataclass(frozen=True)
class ServerRow:
    """Microseconds of server CPU per message, request or connection, measured from outside."""

    name: str
    server: str
    connections: int
    message_bytes: int
    pipelined: int = 1
    transport: str = "stream"
    quick: bool = False
    scopes: frozenset[str] = NONE
    unit: str = "us CPU/msg"
    series: Series | None = None
    kind: str = "server"


@dataclass(frozen=True)
class MemoryRow:
    """What one connection costs a server that has nothing to do."""

    name: str
    server: str
    connections: int
    message_bytes: int = 1024
    transport: str = "stream"
    quick: bool = False
    scopes: frozenset[str] = NONE
    unit: str = "KiB/connection"
    series: Series | None = None
    kind: str = "memory"


@dataclass(frozen=True)
class ClientRow:
    """Microseconds of CPU per operation of a client whose server is the load generator."""

    name: str
    client: str
    operations: int
    quick: bool = False
    scopes: frozenset[str] = NONE
    unit: str = "us CPU/op"
    series: Series | None = None
    kind: str = "client"


Row = SchedulingRow | ServerRow | MemoryRow | ClientRow

TASKS = frozenset({"tasks"})
ECHO = frozenset({"echo"})
TLS = frozenset({"tls"})
LIMIT = frozenset({"echo", "limit"})

SCHEDULING = (
    SchedulingRow("call_soon, chain", "call_soon_chain", 50_000),
    SchedulingRow("call_soon, batch of 100k", "call_soon_batch", 100_000),
    SchedulingRow("call_soon_threadsafe", "call_soon_threadsafe", 20_000),
    SchedulingRow("call_later + cancel", "call_later_cancel", 20_000),
    SchedulingRow("20,000 due timers", "due_timers", 20_000),
    SchedulingRow("sleep(0)", "sleep_zero", 20_000, scopes=TASKS),
    SchedulingRow("create_task + await", "create_task_await", 10_000, scopes=TASKS),
    SchedulingRow("gather(100), per child", "gather_children", 10_000, scopes=TASKS),
    SchedulingRow("TaskGroup(100), per child", "task_group_children", 10_000, scopes=TASKS),
    SchedulingRow("future set + await", "future_await", 10_000, scopes=TASKS),
    SchedulingRow("Event ping-pong", "event_ping_pong", 5_000, scopes=TASKS),
    SchedulingRow("run_in_executor", "run_in_executor", 1_000),
)

GROWTH = (
    *(
        SchedulingRow(
            f"timers {count:,}", "due_timers", count, quick=count == 1_000, series=Series("timers", count)
        )
        for count in (100, 1_000, 10_000, 100_000, 1_000_000)
    ),
    *(
        SchedulingRow(
            f"tasks {count:,}",
            "waiting_tasks",
            count,
            quick=count == 1_000,
            scopes=TASKS,
            series=Series("tasks", count),
        )
        for count in (100, 1_000, 10_000, 100_000)
    ),
)
"""Cost must grow well: the same operation, with ever more of its kind alive."""

PROCESSES = (
    SchedulingRow("subprocess, wall", "spawn_wait", 50, False, unit="us/op", clock="wall"),
    SchedulingRow("subprocess, CPU", "spawn_wait", 50, False, unit="us/op", clock="cpu"),
    SchedulingRow("subprocess with output, wall", "spawn_output", 48, False, unit="us/op", clock="wall"),
)

SERVERS = ("protocol", "buffered", "streams", "native_streams", "sockets", "unix")
CONNECTIONS = (1, 10, 64, 256, 1000, 5000)
SIZES = (1, 16, 100)
DEFAULT_ECHO = (
    *(("protocol", connections, 1) for connections in CONNECTIONS),
    ("protocol", 64, 16),
    ("protocol", 64, 100),
    ("buffered", 64, 1),
    ("buffered", 1000, 1),
    ("buffered", 64, 16),
    ("buffered", 64, 100),
    ("streams", 1, 1),
    ("streams", 64, 1),
    ("streams", 1000, 1),
    ("streams", 64, 16),
    ("native_streams", 1, 1),
    ("native_streams", 64, 1),
    ("native_streams", 1000, 1),
    ("sockets", 64, 1),
    ("unix", 64, 1),
)
QUICK_ECHO = (("protocol", 1, 1), ("protocol", 64, 1), ("buffered", 64, 1), ("streams", 64, 1))
PIPELINED = (
    ServerRow("answers 16 x 64 B, 64 pipelined", "answers", 16, 64, pipelined=64, scopes=ECHO),
    ServerRow("streams 16 x 64 B, 64 pipelined", "streams", 16, 64, pipelined=64, scopes=ECHO),
)
DATAGRAMS = (
    ServerRow("datagrams 1 x 1 KiB", "datagrams", 1, 1024, transport="datagrams", quick=True),
    ServerRow("datagrams 64 x 1 KiB", "datagrams", 64, 1024, transport="datagrams"),
)
"""One in flight for each of the peers: the kernel drops what a socket's buffer does not hold."""

ENCIPHERED = tuple(
    ServerRow(f"TLS {server} 64 x {size} KiB", f"tls_{server}", 64, size * 1024, transport="tls", scopes=TLS)
    for server in ("protocol", "streams")
    for size in (1, 100)
)
CONNECTING = (
    ServerRow(
        "connections accepted + closed", "protocol", 32, 1, transport="visits", unit="us CPU/connection"
    ),
    ClientRow("connections made + closed", "connect_close", 960),
)
WEB = (
    ServerRow("uvicorn, plain text", "uvicorn", 64, 1, transport="http", unit="us CPU/request"),
    ServerRow("aiohttp server, plain text", "aiohttp", 64, 1, transport="http", unit="us CPU/request"),
    ClientRow("aiohttp client", "aiohttp_client", 480),
)
MEMORY = (
    MemoryRow("memory, protocol", "protocol", 5000),
    MemoryRow("memory, streams", "streams", 5000),
    MemoryRow("memory, native_streams", "native_streams", 5000),
)


def echo(server: str, connections: int, kibibytes: int) -> ServerRow:
    """Describe a row with one message in flight per connection."""
    quick = (server, connections, kibibytes) in QUICK_ECHO
    limited = server == "protocol" and kibibytes == 1
    name = f"{server} {connections} x {kibibytes} KiB"
    return ServerRow(
        name,
        server,
        connections,
        kibibytes * 1024,
        quick=quick,
        scopes=LIMIT if limited else ECHO,
        series=Series("connections", connections) if limited else None,
    )


def every_row(*, full: bool) -> Iterator[Row]:
    """Yield the rows of a default run, or all there are."""
    yield from SCHEDULING
    yield from GROWTH
    for server in SERVERS:
        for connections in CONNECTIONS:
            for kibibytes in SIZES:
                if full or (server, connections, kibibytes) in DEFAULT_ECHO:
                    yield echo(server, connections, kibibytes)
    for group in (PIPELINED, ENCIPHERED, DATAGRAMS, CONNECTING, WEB, PROCESSES, MEMORY):
        yield from group


PORTABLE = (
    "call_soon, chain",
    "call_soon, batch of 100k",
    "call_soon_threadsafe",
    "call_later + cancel",
    "sleep(0)",
    "create_task + await",
    "gather(100), per child",
    "TaskGroup(100), per child",
    "future set + await",
    "run_in_executor",
    *(row.name for row in GROWTH if row.operations <= 100_000),
    *(f"protocol {connections} x 1 KiB" for connections in CONNECTIONS[:-1]),
    "protocol 64 x 100 KiB",
    "buffered 64 x 1 KiB",
    "streams 64 x 1 KiB",
    "answers 16 x 64 B, 64 pipelined",
    "unix 64 x 1 KiB",
    "datagrams 64 x 1 KiB",
    "subprocess, wall",
    "memory, protocol",
    "memory, streams",
)
"""Rows that need nothing but the package, and tell the most."""
PORTABLE_QUICK = (
    "call_soon, chain",
    "sleep(0)",
    "create_task + await",
    "future set + await",
    "protocol 1 x 1 KiB",
    "protocol 64 x 1 KiB",
    "streams 64 x 1 KiB",
)


def portable(*, quick: bool) -> list[Row]:
    """Choose the rows of the short version for users."""
    names = PORTABLE_QUICK if quick else PORTABLE
    return [row for row in every_row(full=False) if row.name in names]


def select(pattern: str | None, *, quick: bool, full: bool) -> list[Row]:
    """Choose rows: those of the wanted width whose name the regular expression is found in."""
    expression = re.compile(pattern or "", re.IGNORECASE)
    rows = every_row(full=full or pattern is not None)
    return [row for row in rows if expression.search(row.name) and (row.quick or not quick or pattern)]
