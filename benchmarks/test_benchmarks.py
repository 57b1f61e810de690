"""The benchmarks run and say what they found: one tiny round, no statement about speed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(900)
"""The first run builds the load generator."""
RUN = Path(__file__).with_name("run.py")
ROWS = {
    "sleep(0)": "scheduling",
    "future set + await": "scheduling",
    "timers 100": "scheduling",
    "tasks 100": "scheduling",
    "protocol 1 x 1 KiB": "server",
    "streams 1 x 1 KiB": "server",
    "native_streams 1 x 1 KiB": "server",
    "sockets 1 x 1 KiB": "server",
    "unix 1 x 1 KiB": "server",
    "answers 16 x 64 B, 64 pipelined": "server",
    "TLS protocol 64 x 1 KiB": "server",
    "TLS streams 64 x 100 KiB": "server",
    "datagrams 1 x 1 KiB": "server",
    "connections accepted + closed": "server",
    "connections made + closed": "client",
    "uvicorn, plain text": "server",
    "aiohttp server, plain text": "server",
    "aiohttp client": "client",
    "subprocess, CPU": "scheduling",
    "memory, protocol": "memory",
}
"""At least one of each kind, each server and each client."""
PATTERN = "|".join(f"^{re.escape(row)}$" for row in ROWS)


SHORT = ("--quick", "--rounds", "1", "--slices", "1", "--repetitions", "1", "--seconds", "0.05")
BROKEN_LOOP = """
import asyncio

class Loop(asyncio.SelectorEventLoop):
    async def create_server(self, *arguments, **options):
        raise NotImplementedError("servers come later")

new_event_loop = Loop
"""


def run(*arguments: str, modules: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks in a process of their own, which may find more modules than this one."""
    environment = dict(os.environ) | ({"PYTHONPATH": str(modules)} if modules else {})
    command = [sys.executable, str(RUN), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=800)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Run one tiny round on asyncio; give the table and the saved results."""
    for package in ("aiohttp", "httptools", "uvicorn"):
        pytest.importorskip(package, reason="the rows of the web need it: make .venv/.rivals")
    path = tmp_path_factory.mktemp("benchmarks") / "results.json"
    done = run(*SHORT, "--loops", "asyncio", "--only", PATTERN, "--json", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text(encoding="utf-8"))


def test_a_tiny_round_fills_every_cell(finished: tuple[str, dict[str, Any]]) -> None:
    _, data = finished
    assert data["complete"] is True
    assert {row["name"]: row["kind"] for row in data["rows"]} == ROWS
    for row in data["rows"]:
        cell = row["cells"]["asyncio"]
        assert cell["errors"] == []
        assert len(cell["rounds"]) == 1
        assert 0 < cell["min"] <= cell["median"] <= cell["max"]
        assert cell["ratio_to_uvloop"] is None


def test_a_server_cell_says_what_the_load_generator_saw(finished: tuple[str, dict[str, Any]]) -> None:
    table, data = finished
    assert "p99" in table
    for row in data["rows"]:
        if row["kind"] == "server":
            (result,) = row["cells"]["asyncio"]["rounds"]
            assert row["cells"]["asyncio"]["p99_us"] == result["latency_p99_us"]
            assert result["messages"] >= 1
            assert result["seconds"] >= 0.05
            assert 0 < result["latency_p50_us"] <= result["latency_p99_us"]
            assert result["server_cpu_seconds"] > 0
            assert result["server_threads_ended"] == 0


def test_the_file_says_where_and_with_what_it_was_measured(finished: tuple[str, dict[str, Any]]) -> None:
    _, data = finished
    (loop,) = data["loops"]
    assert (loop["name"], loop["driver"]) == ("asyncio", "epoll")
    assert data["machine"]["python"].endswith(loop["version"])
    assert data["settings"]["rounds"] == 1


def test_the_table_shows_every_row(finished: tuple[str, dict[str, Any]]) -> None:
    table, _ = finished
    lines = table.splitlines()
    for name in ROWS:
        assert any(line.startswith(name) for line in lines)
    assert "ERROR" not in table


def test_a_loop_that_fails_in_a_row_stays_in_the_table_as_an_error(tmp_path: Path) -> None:
    (tmp_path / "zuvloop.py").write_text(BROKEN_LOOP, encoding="utf-8")
    path = tmp_path / "results.json"
    rows = ("--only", "^(sleep|protocol 1 x 1 KiB)")
    done = run(*SHORT, *rows, "--loops", "zuvloop,asyncio", "--json", str(path), modules=tmp_path)
    assert "zuvloop, protocol 1 x 1 KiB: NotImplementedError: servers come later" in done.stdout
    sleep, protocol = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert sleep["cells"]["zuvloop"]["errors"] == []
    assert protocol["cells"]["zuvloop"]["errors"] == ["NotImplementedError: servers come later"]
    assert protocol["cells"]["zuvloop"]["median"] is None
    assert protocol["cells"]["asyncio"]["median"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--loops", "tachyon"], "unknown loop 'tachyon'"),
        (["--only", "no such row"], "no row is called"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_nonsense_is_refused_with_a_reason(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode != 0
    assert words in done.stderr
