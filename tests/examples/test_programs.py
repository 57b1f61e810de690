"""Every program is correct on every loop, tells a wrong option from a wrong result, and obeys Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_programs import PROGRAMS, command, modules

Run = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]

SMALL = {
    "leaderboard": ("--events", "150"),
    "download": ("--pages", "260", "--concurrency", "60", "--sequential", "3"),
    "commands": ("--commands", "20", "--concurrency", "10"),
    "bot": ("--visitors", "10", "--questions", "20", "--patience", "0.5"),
    "realms": ("--calls", "50", "--items", "500"),
}


@pytest.mark.parametrize("program", SMALL)
def test_a_program_is_correct_on_the_loop_it_was_given(program: str, run: Run, program_loop: str) -> None:
    outcome = run(program, *SMALL[program])
    assert outcome.complaints == ""
    assert outcome.code == 0, outcome.output
    assert outcome.report is not None
    assert outcome.report["problems"] == []
    assert outcome.report["checks"] > 5
    package, _, driver = program_loop.partition("[")
    assert outcome.report["loop"].startswith(f"{package}.")
    assert outcome.report["loop"].endswith(f"[{driver}" if driver else "EventLoop")
    assert all(value > 0 for value in outcome.figures().values())


@pytest.mark.parametrize("program_loop", ["asyncio"], indirect=True)
@pytest.mark.parametrize("program", ["bot", "realms"])
def test_the_command_line_of_aioxide_carries_an_unmodified_program(
    program: str, environment: dict[str, str], tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    # The program is told to use asyncio; `python -m aioxide` decides what that is.
    line = [*command(program, environment, "--json", str(figures)), *SMALL[program]]
    line[1:1] = ["-m", "aioxide", "--driver", "epoll"]
    finished = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert json.loads(figures.read_text())["loop"] == "aioxide.loop.EventLoop[epoll]"


@pytest.mark.parametrize("program_loop", ["asyncio"], indirect=True)
@pytest.mark.parametrize("program", [*SMALL, "pages"])
def test_help_names_the_shared_options(program: str, run: Run) -> None:
    outcome = run(program, "--help")
    assert outcome.code == 0
    assert "--loop {asyncio,uvloop,aioxide}" in outcome.output
    assert "--json FILE" in outcome.output


@pytest.mark.parametrize("program_loop", ["asyncio"], indirect=True)
@pytest.mark.parametrize("options", [("--events", "0"), ("--events", "many"), ("--variant", "all at once")])
def test_a_wrong_option_ends_with_code_two(options: tuple[str, str], run: Run) -> None:
    assert run("leaderboard", *options).code == 2


def test_the_ways_of_the_leaderboard_are_selectable(run: Run, program_loop: str) -> None:
    figures = run("leaderboard", "--events", "30", "--variant", "batch").figures()
    assert list(figures) == [
        "whole batches together",
        *(["whole batches together, aioxide.redis"] if program_loop != "asyncio" else []),
    ]


def test_the_client_of_the_leaderboard_is_selectable(run: Run, program_loop: str) -> None:
    options = ("--events", "30", "--variant", "one")
    figures = run("leaderboard", *options, "--client", "redis-py").figures()
    assert list(figures) == ["one command at a time"]
    outcome = run("leaderboard", *options, "--client", "aioxide")
    if program_loop == "asyncio":
        assert outcome.code == 2
        assert "needs aioxide's loop" in outcome.complaints
    else:
        assert list(outcome.figures()) == ["one command at a time, aioxide.redis"]


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="workers need a real redis-server")
def test_the_leaderboard_is_counted_by_worker_processes(run: Run) -> None:
    outcome = run("leaderboard", "--events", "300", "--variant", "workers")
    assert (outcome.code, outcome.complaints) == (0, ""), outcome.output
    assert list(outcome.figures()) == ["2 worker processes"]


def test_a_server_that_is_not_there_is_one_line_and_code_one(run: Run) -> None:
    with socket.socket() as nobody:
        # Bound and never listening: nobody else can take the port and answer.
        nobody.bind(("127.0.0.1", 0))
        outcome = run("leaderboard", REDIS_URL=f"redis://127.0.0.1:{nobody.getsockname()[1]}")
    assert outcome.code == 1
    assert outcome.complaints.startswith("leaderboard: Redis at redis://127.0.0.1:")
    assert outcome.complaints.count("\n") == 1


def test_pages_that_fail_are_listed_and_the_others_are_on_disk(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    outcome = run("download", "--pages", "251", "--sequential", "0", "--output", str(folder))
    assert outcome.code == 0
    assert "page 249 failed: 404 Not Found" in outcome.output
    summary = json.loads((folder / "report.json").read_text())
    assert [page["number"] for page in summary] == list(range(251))
    assert [page["number"] for page in summary if page["error"]] == [249]
    assert [page["number"] for page in summary if page["attempts"] > 1 and not page["error"]]
    assert len(list(folder.glob("page-*.html"))) == 250


def test_own_commands_are_run_and_a_failed_one_is_reported(run: Run) -> None:
    outcome = run("commands", "sleep 0.1; echo first", "echo second; exit 3")
    assert outcome.code == 1
    assert outcome.output.startswith("first\nsecond\n")
    assert "'echo second; exit 3' ended with code 3" in outcome.output


def test_a_command_that_takes_too_long_is_ended_with_its_children(run: Run, tmp_path: Path) -> None:
    number = tmp_path / "pid"
    outcome = run("commands", "--timeout", "0.5", f"sleep 60 & echo $! > {number}; wait")
    assert outcome.code == 1
    assert "took too long" in outcome.output
    status = Path(f"/proc/{number.read_text().strip()}/stat")
    # Nobody may have collected the orphan yet, but it does not run any more.
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_bot_talks_to_people_until_ctrl_c(start: Start) -> None:
    bot = start("bot", "--serve")
    assert bot.stdout is not None
    port = int(bot.stdout.readline().split()[-1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as ada, ada.makefile("rw") as lines:
        assert lines.readline().startswith("Welcome, guest-1.")
        lines.write("!name Ada\n!who\n!echo hello\n!what\n")
        lines.flush()
        assert [lines.readline() for _ in range(3)] == ["You are Ada now.\n", "Ada\n", "hello\n"]
        assert lines.readline().startswith("I understand")
        bot.send_signal(signal.SIGINT)
        assert lines.readline() == "The room closes. Goodbye.\n"
        assert lines.readline() == ""
    assert_interrupted(bot)


def test_a_line_without_end_costs_the_connection_only(start: Start) -> None:
    bot = start("bot", "--serve")
    assert bot.stdout is not None
    address = ("127.0.0.1", int(bot.stdout.readline().split()[-1]))
    with socket.create_connection(address, timeout=10) as rude, rude.makefile("r") as lines:
        lines.readline()
        rude.sendall(b"x" * 10_000)
        assert lines.readline() == "That line is too long for me. Goodbye.\n"
    with socket.create_connection(address, timeout=10) as polite, polite.makefile("r") as lines:
        assert lines.readline().startswith("Welcome, guest-2.")
    bot.send_signal(signal.SIGINT)
    assert_interrupted(bot)


def test_ctrl_c_ends_a_leaderboard_that_waits_for_wins(start: Start) -> None:
    board = start("leaderboard", "--follow", "nobody:writes:here")
    assert board.stdout is not None
    lines = iter(board.stdout.readline, "")
    assert any(line.startswith("Following nobody:writes:here") for line in lines)
    board.send_signal(signal.SIGINT)
    assert_interrupted(board)


def test_a_killed_program_takes_its_private_redis_along(start: Start) -> None:
    board = start("leaderboard", "--follow", "nobody:writes:here")
    assert board.stdout is not None
    lines = iter(board.stdout.readline, "")
    assert any(line.startswith("Following") for line in lines)
    [server] = Path(f"/proc/{board.pid}/task/{board.pid}/children").read_text().split()
    watched = os.pidfd_open(int(server))
    try:
        assert not select.select([watched], [], [], 0)[0]
        board.kill()
        board.wait()
        # A descriptor of a process is readable when the process has ended.
        assert select.select([watched], [], [], 20)[0]
    finally:
        os.close(watched)


@pytest.mark.parametrize(
    ("program", "moment"),
    [
        ("leaderboard", "  one command at a time: "),
        ("download", "  one page at a time: "),
        ("commands", "  one command at a time: "),
        ("bot", "  50 visitors enter"),
        ("realms", "  thread: "),
        ("realms", "  processes: "),
    ],
)
def test_ctrl_c_in_the_middle_of_the_work_leaves_nothing_open(
    program: str, moment: str, start: Start
) -> None:
    process = start(program)
    assert process.stdout is not None
    assert any(line.startswith(moment) for line in iter(process.stdout.readline, ""))
    # A terminal interrupts the whole group.
    os.killpg(process.pid, signal.SIGINT)
    assert_interrupted(process)


def test_ctrl_c_leaves_no_command_behind(start: Start, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    subprocess.run(["mkfifo", pipe], check=True)
    commands = start("commands", f"exec sleep 60 > {pipe}")
    # Opens when the command has opened its end; ends when the command is gone.
    with pipe.open("rb") as reader:
        commands.send_signal(signal.SIGINT)
        assert reader.read() == b""
    assert_interrupted(commands)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="compares with a real redis-server")
def test_the_stand_in_for_redis_gives_the_same_results(run: Run) -> None:
    for allow_real in (True, False):
        with modules.redis_server.private_server(allow_real) as server:
            assert server.is_stand_in is not allow_real
            outcome = run("leaderboard", "--events", "120", REDIS_URL=server.url)
        assert outcome.code == 0, outcome.output
        assert "private" not in outcome.output


def test_the_page_server_ends_with_its_input(environment: dict[str, str]) -> None:
    server = subprocess.Popen(
        command("pages", environment, "--until-input-ends"),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("http://127.0.0.1:")
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(20) == 0


def test_every_program_of_make_run_is_tested_here() -> None:
    assert set(modules.run_all.PROGRAMS) == set(SMALL)
    assert all((PROGRAMS / f"{program}.py").is_file() for program in modules.run_all.PROGRAMS)


def assert_interrupted(process: subprocess.Popen[str]) -> None:
    """See that a program ended as Ctrl-C ends programs, without a traceback."""
    _, complaints = process.communicate(timeout=20)
    # Where a start is cancelled, stock asyncio itself sometimes collects a process twice, and says so.
    # Which of its watchers is first decides how.
    twice = re.compile(r"(already read: |Unknown child process pid \d+,) will report returncode 255")
    is_reference = "asyncio" in process.args
    lines = [line for line in complaints.splitlines() if not (is_reference and twice.search(line))]
    assert lines == ["Interrupted."]
    assert process.returncode == 130
