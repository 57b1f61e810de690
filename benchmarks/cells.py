"""One cell of one round: start a process, let it measure or be measured, bring back a number.

Whatever goes wrong in a cell becomes a `CellError` with a sentence for the table. Every process
started here is gone when its function returns.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import machine
from loops import Candidate
from rows import EchoRow, Row, SchedulingRow

CHILD = Path(__file__).with_name("child.py")
TIME_LIMIT = 120
"""Seconds for one process: far more than any row needs, so only a hang gets there."""
INHERITED_DEBUGGING = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC")


class CellError(Exception):
    """A loop did not manage a row; the text says why."""


@dataclass(frozen=True)
class Effort:
    """How long and how often one cell measures."""

    seconds: float
    warm_up: float
    repetitions: int
    clock: str
    load_generator: Path | None


def run_cell(chosen: Candidate, row: Row, effort: Effort) -> dict[str, Any]:
    """Measure one row on one loop once; the result's "value" is in the row's unit."""
    match row:
        case SchedulingRow():
            sizes = (row.operations, effort.repetitions)
            result = run_child(chosen, "scheduling", row.scenario, *map(str, sizes))
            return result | {"value": result[f"{effort.clock}_ns"]}
        case EchoRow():
            return run_echo(chosen, row, effort)


def describe(chosen: Candidate) -> dict[str, Any]:
    """Ask for version and driver in a process of its own."""
    return run_child(chosen, "describe")


def command(chosen: Candidate, job: str, *arguments: str) -> list[str]:
    """Spell out the command line of a measuring process."""
    return [sys.executable, str(CHILD), job, chosen.name, *arguments]


def environment(chosen: Candidate) -> dict[str, str]:
    """Prepare a child's environment: the candidate's settings, one core, no debugging aids."""
    variables = {name: value for name, value in os.environ.items() if name not in INHERITED_DEBUGGING}
    measured, _ = machine.cores()
    if measured is not None:
        variables["BENCHMARK_CORES"] = str(measured)
    return variables | {"PYTHONHASHSEED": "0"} | dict(chosen.environment)


def run_child(chosen: Candidate, job: str, *arguments: str) -> dict[str, Any]:
    """Run a measuring process to its end."""
    finished = run(command(chosen, job, *arguments), environment(chosen))
    return parsed(finished)


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


def run_echo(chosen: Candidate, row: EchoRow, effort: Effort) -> dict[str, Any]:
    """Put the load generator on a server and charge the server's CPU time to the messages."""
    assert effort.load_generator is not None
    _, core = machine.cores()
    with echo_server(chosen, row) as (pid, port):
        words = [str(effort.load_generator), "--address", f"127.0.0.1:{port}", "--pid", str(pid)]
        words += ["--connections", str(row.connections), "--message-bytes", str(row.message_bytes)]
        words += ["--transport", "datagrams" if row.server == "datagrams" else "stream"]
        words += ["--pipelined", str(row.pipelined), "--seconds", str(effort.seconds)]
        words += ["--warm-up", str(effort.warm_up)]
        if core is not None:
            words += ["--core", str(core)]
        result = parsed(run(words))
    result["value"] = result["server_cpu_seconds"] * 1e6 / result["messages"]
    result["messages_per_second"] = result["messages"] / result["seconds"]
    return result


@contextmanager
def echo_server(chosen: Candidate, row: EchoRow) -> Iterator[tuple[int, int]]:
    """Run a server while the body runs; yield its process and its port."""
    words = command(chosen, "serve", row.server, str(row.message_bytes))
    with tempfile.TemporaryFile("w+") as complaints:
        server = subprocess.Popen(
            words, env=environment(chosen), stdout=subprocess.PIPE, stderr=complaints, text=True
        )
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            if not line:
                raise CellError(reason(tail(complaints), server.wait(TIME_LIMIT)))
            try:
                yield server.pid, parsed(line)["port"]
            except CellError as error:
                raise CellError(f"{error}; server: {last_line(tail(complaints)) or 'no message'}") from None
            if server.poll() is not None:
                raise CellError(reason(tail(complaints), server.returncode))
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


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
