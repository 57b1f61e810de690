#!/usr/bin/env python3
"""Run every program on stock asyncio and on aioxide, and end with one table of figures.

Each run is a process of its own: the same file, only --loop and AIOXIDE_DRIVER differ. A Redis server is
started for the leaderboard unless REDIS_URL names one. The exit code is 1 if any run failed or verified a
wrong result. Where the kernel denies io_uring, that column says so and nothing has failed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis_server import private_server
from report import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

FOLDER = Path(__file__).resolve().parent
PROGRAMS = ("leaderboard", "download", "commands", "bot", "realms")
TIME_LIMIT = 60.0


@dataclass(frozen=True)
class Column:
    """A loop to run the programs on, and how it is asked for."""

    title: str
    loop: str
    driver: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment of a run on this loop."""
        chosen = {"AIOXIDE_DRIVER": self.driver} if self.driver else {}
        return {**os.environ, **chosen}


COLUMNS = {
    column.title: column
    for column in (
        Column("asyncio", "asyncio"),
        Column("uvloop", "uvloop"),
        Column("aioxide[uring]", "aioxide", "uring"),
        Column("aioxide[epoll]", "aioxide", "epoll"),
    )
}
DEFAULT_COLUMNS = ("asyncio", "aioxide[uring]", "aioxide[epoll]")
# The number of the system call is the same on every architecture.
SYS_IO_URING_SETUP = 425
# IORING_SETUP_SINGLE_ISSUER and IORING_SETUP_DEFER_TASKRUN: what aioxide needs, so that old kernels say no.
URING_FLAGS = 1 << 12 | 1 << 13


@dataclass
class Run:
    """What became of one program on one loop."""

    seconds: float = 0.0
    figures: dict[str, Figure] = field(default_factory=dict)
    problem: str = ""


def run_program(program: str, column: Column) -> Run:
    """Run one program; its output goes where ours goes."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command: list[str | Path] = [
            sys.executable,
            FOLDER / f"{program}.py",
            "--loop",
            column.loop,
            "--json",
            figures,
        ]
        started = time.perf_counter()
        code = wait_for(subprocess.Popen(command, env=column.environment()))
        run = Run(time.perf_counter() - started)
        if code is None:
            run.problem = f"took longer than {TIME_LIMIT:.0f} s"
        elif code != 0:
            run.problem = f"ended with code {code}"
        if figures.exists():
            read_figures(run, json.loads(figures.read_text(encoding="utf-8")), column)
        elif not run.problem:
            run.problem = "wrote no figures"
    return run


def wait_for(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code, or None for a program that had to be killed."""
    try:
        return process.wait(TIME_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
    except KeyboardInterrupt:
        # The terminal told the program too; it gets a moment to end properly.
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def read_figures(run: Run, report: dict[str, object], column: Column) -> None:
    """Take over the figures of a run, and make sure that it used the loop it was told to use."""
    figures = report["figures"]
    assert isinstance(figures, list)
    run.figures = {figure["name"]: Figure(**figure) for figure in figures}
    loop = str(report["loop"])
    # The class of a loop lives in the package that the option is named after; then comes the driver, if any.
    driver = loop.rstrip("]").partition("[")[2]
    if loop.partition(".")[0] != column.loop or driver != (column.driver or ""):
        run.problem = run.problem or f"ran on {loop}"


def why_not(column: Column) -> str:
    """Say why the kernel will not carry a loop, or nothing; anything else that is wrong is a failure."""
    if column.driver != "uring":
        return ""
    libc = ctypes.CDLL(None, use_errno=True)
    # struct io_uring_params is 120 bytes, of which the third number is `flags`: io_uring_setup(2).
    parameters = struct.pack("30I", 0, 0, URING_FLAGS, *[0] * 27)
    descriptor = libc.syscall(SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(parameters, 120))
    if descriptor < 0:
        return f"the kernel denies io_uring ({os.strerror(ctypes.get_errno())})"
    os.close(descriptor)
    return ""


@contextmanager
def redis_for_all(console: Console) -> Iterator[None]:
    """Put a server's address into REDIS_URL, unless one is there."""
    if url := os.environ.get("REDIS_URL"):
        console.print(f"Redis: {url}, from REDIS_URL", style="dim")
        yield
        return
    with private_server() as server:
        console.print(
            f"Redis: {server.kind}, on {server.url}", style="bold yellow" if server.is_stand_in else "dim"
        )
        os.environ["REDIS_URL"] = server.url
        try:
            yield
        finally:
            del os.environ["REDIS_URL"]


def table_of(runs: dict[str, dict[str, Run]], missing: dict[str, str], columns: list[Column]) -> Table:
    """Put all figures into one table: a row for each figure, a column for each loop."""
    table = Table(box=box.SIMPLE_HEAD, title="Figures of this machine, this run", title_justify="left")
    table.add_column("program")
    table.add_column("figure")
    for column in columns:
        table.add_column(Text(column.title), justify="right", no_wrap=True)
    for program, by_column in runs.items():
        states = [state(by_column.get(column.title), missing.get(column.title)) for column in columns]
        table.add_row(Text(program, style="bold"), "result, time of the whole run", *states)
        names = dict.fromkeys(name for run in by_column.values() for name in run.figures)
        for name in names:
            row = [by_column[column.title] if column.title in by_column else Run() for column in columns]
            table.add_row("", name, *(cell(run.figures.get(name)) for run in row))
        table.add_section()
    return table


def state(run: Run | None, reason: str | None) -> Text:
    """Write whether a run was correct."""
    if run is None:
        return Text("unavailable" if reason else "not run", style="yellow")
    if run.problem:
        return Text("FAILED", style="bold red")
    return Text(f"ok {run.seconds:5.1f} s", style="green")


def cell(figure: Figure | None) -> str:
    """Write a figure, or that there is none."""
    return figure.text() if figure else "-"


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--loops",
        nargs="+",
        choices=COLUMNS,
        default=DEFAULT_COLUMNS,
        metavar="LOOP",
        help=f"any of {' '.join(COLUMNS)} (default: {' '.join(DEFAULT_COLUMNS)})",
    )
    parser.add_argument(
        "--programs",
        nargs="+",
        choices=PROGRAMS,
        default=PROGRAMS,
        metavar="PROGRAM",
        help=f"any of {' '.join(PROGRAMS)} (default: all)",
    )
    return parser.parse_args()


def main() -> int:
    """Run everything."""
    options = read_options()
    # A pipe has no width; a table that is cut in the middle of a number helps nobody.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)
    columns = [COLUMNS[title] for title in options.loops]
    missing = {column.title: reason for column in columns if (reason := why_not(column))}
    for title, reason in missing.items():
        console.print(Text(f"{title} cannot be used here: {reason}", style="yellow"), soft_wrap=True)
    runs: dict[str, dict[str, Run]] = {}
    started = time.perf_counter()
    try:
        with redis_for_all(console):
            for program in options.programs:
                runs[program] = {}
                for column in columns:
                    if column.title in missing:
                        continue
                    console.print(Text(f"\n{program} on {column.title}", style="bold"))
                    runs[program][column.title] = run_program(program, column)
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    console.print()
    console.print(table_of(runs, missing, columns))
    return conclude(runs, missing, time.perf_counter() - started, console)


def conclude(
    runs: dict[str, dict[str, Run]], missing: dict[str, str], seconds: float, console: Console
) -> int:
    """Say what failed and return the exit code."""
    failed = 0
    for program, by_column in runs.items():
        for title, run in by_column.items():
            if run.problem:
                failed += 1
                console.print(
                    Text(f"{program} on {title} FAILED: it {run.problem}", style="bold red"), soft_wrap=True
                )
    for title, reason in missing.items():
        console.print(Text(f"{title} was not run: {reason}", style="yellow"), soft_wrap=True)
    total = sum(len(by_column) for by_column in runs.values())
    console.print(f"{total - failed} of {total} runs were correct, in {seconds:.0f} s.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
