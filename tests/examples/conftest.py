"""Run the example programs as a reader would: each in a process of its own, on every loop."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from children import without_debug_mode
from example_programs import command, modules

LOOPS = ("asyncio", "aioxide[uring]", "aioxide[epoll]")


@dataclass(frozen=True)
class Outcome:
    """What a program printed and how it ended."""

    code: int
    output: str
    complaints: str
    report: dict[str, Any] | None

    def figures(self) -> dict[str, float]:
        """Return the figures by name."""
        assert self.report is not None
        return {figure["name"]: figure["value"] for figure in self.report["figures"]}


@pytest.fixture(params=LOOPS)
def program_loop(request: pytest.FixtureRequest) -> str:
    """Name a loop that this machine can run."""
    name: str = request.param
    if name == "aioxide[uring]":
        run_all = modules.run_all
        if reason := run_all.why_not(run_all.COLUMNS[name]):
            pytest.skip(reason)
    return name


@pytest.fixture
def environment(program_loop: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make the environment in which a program uses the loop's driver and a Redis of its own."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    loop, _, driver = program_loop.rstrip("]").partition("[")
    chosen = {"AIOXIDE_DRIVER": driver} if driver else {}
    # Anything left open is reported on standard error, which must stay empty.
    return without_debug_mode(**chosen, PROGRAM_LOOP=loop, PYTHONWARNINGS="always::ResourceWarning")


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that runs a program to its end."""

    def run_program(program: str, *options: str, **variables: str) -> Outcome:
        figures = tmp_path / "figures.json"
        finished = subprocess.run(
            command(program, environment, "--json", str(figures), *options),
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        report = json.loads(figures.read_text()) if figures.exists() else None
        return Outcome(finished.returncode, finished.stdout, finished.stderr, report)

    return run_program


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a program; whatever still runs after the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start_program(program: str, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(program, environment, *options),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_program
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
