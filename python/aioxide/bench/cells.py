"""One cell of one round: start a process, let it measure or be measured, bring back numbers.

Whatever goes wrong in a cell becomes a `CellError` with a sentence for the table. Every process
started here is gone when its function returns, or its `with` block ends. What loads the servers is a
`Load`: the repository's benchmarks bring one in Rust, `load.py` is one in Python.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from . import machine
from .loops import Candidate
from .rows import ClientRow, MemoryRow, Row, SchedulingRow, ServerRow
from .servers import DIRECTORY

TIME_LIMIT = 120
"""Seconds for one process: far more than any row needs, so only a hang gets there."""
MANY = 100_000
"""Operations after which one repetition has to do."""
FEW = 10_000
"""Operations that all repetitions together should reach, unless an operation is a long one itself."""
INHERITED_DEBUGGING = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC")


class CellError(Exception):
    """A loop did not manage a row; the text says why."""


@dataclass(frozen=True)
class Server:
    """A server that runs, and how to reach it."""

    pid: int
    address: str | int
    """The path of a Unix socket, or a port of the loopback interface."""


class Load(Protocol):
    """Puts load on servers."""

    def load(self, row: ServerRow, server: Server, effort: Effort) -> dict[str, Any]:
        """Return "messages", "seconds", "latency_p50_us", "latency_p99_us" and "server_cpu_seconds"."""

    def memory(self, row: MemoryRow, server: Server) -> dict[str, Any]:
        """Return "resident_before" and "resident_after" in bytes."""


@dataclass(frozen=True)
class Effort:
    """How long and how often one cell measures."""

    seconds: float
    warm_up: float
    slices: int
    """How often the loops take turns in a row before their processes end."""
    repetitions: int
    clock: str
    load: Load
    directory: Path
    """What the run's processes share: certificates, the sockets of Unix servers."""
    peer: Callable[[], AbstractContextManager[int]] | None = None
    """Runs a server for client rows; the value is its port."""


@contextmanager
def prepared(chosen: Candidate, row: Row, effort: Effort) -> Iterator[Callable[[], dict[str, Any]]]:
    """Have one row ready on one loop while the body runs, which may call what this yields: it measures once.

    A result's "value" is in the row's unit.
    """
    match row:
        case SchedulingRow():
            with measuring(chosen, "scheduling", row.scenario, *sizes(row, effort)) as ask:
                yield lambda: timed(row, effort, ask())
        case ServerRow():
            with running_server(chosen, row, effort) as server:
                yield lambda: loaded(effort.load.load(row, server, effort))
        case MemoryRow():
            with running_server(chosen, row, effort) as server:
                yield lambda: grown(row, effort.load.memory(row, server))
        case ClientRow():
            if effort.peer is None:
                raise CellError("there is no server for clients")
            with effort.peer() as port:
                words = ("client", row.client, *sizes(row, effort), str(port))
                with measuring(chosen, *words) as ask:
                    yield lambda: charged(ask())


def slices(row: Row, effort: Effort) -> int:
    """Say how often a row is measured by one process: memory grows once."""
    return 1 if isinstance(row, MemoryRow) else effort.slices


def timed(row: SchedulingRow, effort: Effort, result: dict[str, Any]) -> dict[str, Any]:
    """Take what the clock in question says."""
    nanoseconds = result[f"{row.clock or effort.clock}_ns"]
    return result | {"value": nanoseconds / (1000 if row.unit.startswith("us") else 1)}


def loaded(result: dict[str, Any]) -> dict[str, Any]:
    """Charge a server's CPU time to the messages."""
    return result | {
        "value": result["server_cpu_seconds"] * 1e6 / result["messages"],
        "messages_per_second": result["messages"] / result["seconds"],
    }


def grown(row: MemoryRow, result: dict[str, Any]) -> dict[str, Any]:
    """Charge a server's memory to the connections."""
    bytes_more = result["resident_after"] - result["resident_before"]
    return result | {"value": bytes_more / 1024 / row.connections}


def charged(result: dict[str, Any]) -> dict[str, Any]:
    """Charge a client's CPU time to what it did."""
    return result | {"value": result["cpu_ns"] / 1000}


def sizes(row: SchedulingRow | ClientRow, effort: Effort) -> tuple[str, str]:
    """Say how many operations, and how often: long repetitions once, short ones many times."""
    repetitions = effort.repetitions if row.operations <= MANY else 1
    if row.unit == "ns/op":
        repetitions = max(repetitions, FEW // row.operations)
    return str(row.operations), str(repetitions)


def describe(chosen: Candidate) -> dict[str, Any]:
    """Ask for version and driver in a process of its own."""
    return run_child(chosen, "describe")


def environment(chosen: Candidate) -> dict[str, str]:
    """Prepare a child's environment: the candidate's settings, one core, no debugging aids."""
    variables = {name: value for name, value in os.environ.items() if name not in INHERITED_DEBUGGING}
    measured, _ = machine.cores()
    if measured is not None:
        variables["BENCHMARK_CORES"] = str(measured)
    return variables | {"PYTHONHASHSEED": "0"} | dict(chosen.environment)


def run_child(chosen: Candidate, job: str, *arguments: str) -> dict[str, Any]:
    """Run a measuring process to its end."""
    return parsed(run(chosen.command(job, *arguments), environment(chosen)))


@contextmanager
def measuring(chosen: Candidate, job: str, *arguments: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run a measuring process while the body runs; yield what has it measure once."""
    with started(chosen.command(job, *arguments), environment(chosen)) as program:

        def ask() -> dict[str, Any]:
            with suppress(BrokenPipeError):  # its end is told by what it does not answer
                program.write_line()
            return parsed(program.read_line())

        parsed(program.read_line())
        yield ask


def run(words: list[str], variables: dict[str, str] | None = None) -> str:
    """Run a program that prints a result and return what it printed."""
    try:
        finished = subprocess.run(
            words, env=variables, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise CellError(f"no result after {TIME_LIMIT} s") from None
    if finished.returncode:
        raise CellError(reason(finished.stderr, finished.returncode))
    return finished.stdout


@contextmanager
def running_server(chosen: Candidate, row: ServerRow | MemoryRow, effort: Effort) -> Iterator[Server]:
    """Run a row's server while the body runs."""
    words = chosen.command("serve", row.server, str(row.message_bytes))
    variables = environment(chosen) | {DIRECTORY: str(effort.directory)}
    with announced(words, variables) as (pid, line):
        yield Server(pid, line["path"] if "path" in line else line["port"])


@contextmanager
def announced(
    words: list[str], variables: dict[str, str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a program while the body runs; yield its process and the line of JSON that it begins with."""
    with started(words, variables) as program:
        line = program.read_line()
        try:
            yield program.process.pid, parsed(line)
        except CellError as error:
            raise CellError(
                f"{error}; server: {last_line(tail(program.complaints)) or 'no message'}"
            ) from None
        if program.process.poll() is not None:
            raise program.failure()


@dataclass(frozen=True)
class Running:
    """A program that runs, answers in lines, and complains into a file."""

    process: subprocess.Popen[str]
    complaints: IO[str]

    def write_line(self) -> None:
        """Ask for an answer."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def read_line(self) -> str:
        """Wait for the next line."""
        assert self.process.stdout is not None
        # Whoever answers sends one line and no more, so nothing is in the buffer.
        if not select.select([self.process.stdout], [], [], TIME_LIMIT)[0]:
            raise CellError(f"no result after {TIME_LIMIT} s")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(TIME_LIMIT)
            raise self.failure()
        return line

    def failure(self) -> CellError:
        """Say why it ended."""
        return CellError(reason(tail(self.complaints), self.process.returncode))


@contextmanager
def started(words: list[str], variables: dict[str, str] | None) -> Iterator[Running]:
    """Run a program while the body runs."""
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            words, env=variables, stdin=pipe, stdout=pipe, stderr=complaints, text=True
        ) as process,
    ):
        try:
            yield Running(process, complaints)
        finally:
            process.kill()


def parsed(text: str) -> dict[str, Any]:
    """Read the JSON line a process printed last."""
    try:
        result = json.loads(last_line(text))
    except ValueError:
        raise CellError(f"not a result: {text[-200:]!r}") from None
    if not isinstance(result, dict):
        raise CellError(f"not a result: {text[-200:]!r}")
    return result


def tail(stream: IO[str]) -> str:
    """Return what a process has written so far to its standard error."""
    stream.seek(0)
    return stream.read()


def last_line(text: str) -> str:
    """Return the last line that is not blank: of a traceback, the exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def reason(complaints: str, status: int) -> str:
    """Say why a process failed."""
    return last_line(complaints) or f"exit status {status}"
