"""The programs' own checks can fail, and what they say reaches the table and the exit code."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from children import without_debug_mode
from example_programs import PROGRAMS, modules

download, leaderboard, loops, pages, run_all = (
    modules.download,
    modules.leaderboard,
    modules.loops,
    modules.pages,
    modules.run_all,
)
Report = modules.report.Report
private_server = modules.redis_server.private_server


async def lose_one(board: Any, wins: list[Any]) -> None:
    """Count every win but the first."""
    await leaderboard.one_command_at_a_time(board, wins[1:])


def test_a_lost_win_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(leaderboard.VARIANTS, "one", ("losing", lose_one))
    report = Report("leaderboard")
    with private_server() as server:
        wins = leaderboard.invent_wins(20)
        asyncio.run(leaderboard.measure("one", wins, server.url, 2, report))
    assert any("the total is" in problem for problem in report.problems)
    assert any(f"{wins[0].player} has" in problem for problem in report.problems)


def test_a_page_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    good, bad = (
        download.Page(number, 1, digest=pages.content_digest(pages.page(number))) for number in (1, 2)
    )
    for page in (good, bad):
        download.file_of(tmp_path, page.number).write_bytes(pages.page(1))
    report = Report("download")
    download.verify([good, bad], tmp_path, report, is_our_server=True)
    assert report.problems == ["page 2 on disk is not what the server sent"]


def test_a_page_given_up_too_early_is_noticed(tmp_path: Path) -> None:
    report = Report("download")
    download.verify([download.Page(3, 4, error="503 Busy")], tmp_path, report, is_our_server=True)
    assert report.problems == ["page 3: 503 Busy"]


def test_a_wrong_result_ends_with_code_one_and_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    async def wrong(options: argparse.Namespace, report: Any) -> None:
        report.check(False, "two and two are five")

    assert loops.run(wrong, argparse.Namespace(loop="asyncio", json=None), "wrong") == 1
    assert "wrong: two and two are five" in capsys.readouterr().out


def test_a_loop_that_is_not_installed_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    async def nothing(options: argparse.Namespace, report: Any) -> None:
        return

    assert loops.run(nothing, argparse.Namespace(loop="uvloop", json=None), "nothing") == 1
    assert capsys.readouterr().err.startswith("nothing: uvloop is not installed for ")


def table_run(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run run_all.py on the programs of a folder."""
    for name in ("run_all.py", "loops.py", "report.py", "redis_server.py"):
        (folder / name).symlink_to(PROGRAMS / name)
    script = "import sys, pathlib, run_all; run_all.FOLDER = pathlib.Path.cwd(); sys.exit(run_all.main())"
    return subprocess.run(
        [sys.executable, "-c", script, *options],
        cwd=folder,
        env=without_debug_mode(**{"REDIS_URL": "redis://unused", **variables}),
        capture_output=True,
        text=True,
        timeout=60,
    )


PROGRAM = """
import asyncio, sys, loops
async def program(options, report):
    {body}
    report.seconds("a figure", 1.5)
sys.exit(loops.run(program, loops.option_parser("").parse_args(), "bot"))
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("report.check(False, 'bad')", "bot on asyncio FAILED: it ended with code 1"),
        ("raise ValueError", "bot on asyncio FAILED: it ended with code 1"),
        ("sys.exit(0)", "bot on asyncio FAILED: it wrote no figures"),
        ("report.loop = 'other.Loop'", "bot on asyncio FAILED: it ran on other.Loop"),
        ("report.loop = 'asyncio.Loop[epoll]'", "bot on asyncio FAILED: it ran on asyncio.Loop[epoll]"),
    ],
)
def test_a_failed_run_fails_the_table(body: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(PROGRAM.format(body=body))
    finished = table_run(tmp_path, "--loops", "asyncio", "--programs", "bot")
    assert finished.returncode == 1
    assert says in finished.stdout
    assert "0 of 1 runs were correct" in finished.stdout


def test_the_table_shows_every_figure_of_a_correct_run(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(PROGRAM.format(body="report.check(True, '')"))
    finished = table_run(tmp_path, "--loops", "asyncio", "--programs", "bot")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert "Redis: redis://unused, from REDIS_URL" in finished.stdout
    assert "1.50 s" in finished.stdout
    assert "1 of 1 runs were correct" in finished.stdout


def test_a_denied_io_uring_is_said_and_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Denied:
        """A libc whose system calls all fail, as under a seccomp filter."""

        def syscall(self, *_: Any) -> int:
            return -1

    monkeypatch.setattr(run_all.ctypes, "CDLL", lambda *_, **__: Denied())
    monkeypatch.setenv("REDIS_URL", "redis://unused")
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--loops", "aioxide[uring]", "--programs", "bot"])
    assert run_all.main() == 0
    output = capsys.readouterr().out
    assert "aioxide[uring] was not run: the kernel denies io_uring" in output
    assert "unavailable" in output


def test_figures_are_written_as_data(tmp_path: Path) -> None:
    report = Report("bot", loop="asyncio.Loop")
    report.rate("answers", 100, 0.5, "answers")
    report.save(tmp_path / "figures.json")
    figure = {"name": "answers", "value": 200.0, "unit": "answers/s", "better": "higher"}
    assert json.loads((tmp_path / "figures.json").read_text())["figures"] == [figure]
