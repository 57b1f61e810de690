"""aioconsole: a chat over pipes and a terminal, and the Python console over a terminal and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

aioconsole = pytest.importorskip("aioconsole", reason="aioconsole cannot be had for this Python")

LIMIT = 20.0

START = """
import asyncio, logging, sys, warnings
logging.getLogger("asyncio").setLevel(logging.ERROR)  # debug mode's slow callbacks go to standard error
warnings.simplefilter("ignore", DeprecationWarning)  # aioconsole names what later Pythons drop
warnings.simplefilter("ignore", ResourceWarning)  # it never closes the transports of the standard streams
import aioconsole

def run(main):
    if sys.argv[1] == "asyncio":
        new_event_loop = asyncio.SelectorEventLoop
    else:
        from aioxide import new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())
"""

CHAT = """
async def go_on():
    for _ in range(3):
        await asyncio.sleep(0.01)
    await aioconsole.aprint("we go on", use_stderr=True)

async def main():
    await aioconsole.aprint("hello")
    meanwhile = asyncio.create_task(go_on())
    name = await aioconsole.ainput("name? ")
    await meanwhile
    await aioconsole.aprint(f"Hello, {name}!")
    total = 0
    try:
        while True:
            total += int(await aioconsole.ainput())
    except EOFError:
        await aioconsole.aprint("total", total)
    await aioconsole.aprint("gone", use_stderr=True)

run(main)
"""

CONSOLE = """
run(lambda: aioconsole.interact(banner="welcome", locals={"answer": 42}))
"""


class Terminal:
    """A program in a pseudo-terminal, and what it printed so far."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.output = ""
        self._descriptor = descriptor
        self._read_up_to = 0

    def until(self, text: str) -> None:
        """Read until the program has printed `text` after what was read before."""
        while (found := self.output.find(text, self._read_up_to)) < 0:
            try:
                self.output += os.read(self._descriptor, 1 << 12).decode()
            except OSError:
                raise AssertionError(f"{text!r} was not printed:\n{self.output}") from None
        self._read_up_to = found + len(text)

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())


@contextlib.contextmanager
def in_terminal(command: list[str], environment: dict[str, str]) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            yield Terminal(ours, process)
        finally:
            process.kill()
            process.wait(LIMIT)
    finally:
        os.close(ours)


@pytest.fixture
def command(loop_name: str, tmp_path: Path) -> Callable[[str], list[str]]:
    """Make the command that runs a program on the loop under test."""

    def command_of(program: str) -> list[str]:
        file = tmp_path / "program.py"
        file.write_text(START + textwrap.dedent(program))
        return [sys.executable, str(file), loop_name]

    return command_of


def test_a_chat_over_pipes(command: Callable[[str], list[str]], loop_environment: dict[str, str]) -> None:
    numbers = "".join(f"{number}\n" for number in range(20_000))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command(CHAT), env=loop_environment, **pipes) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"we go on\n"  # although nobody has answered yet
        output, errors = process.communicate(f"Ann\n{numbers}".encode(), timeout=LIMIT)
    assert output == f"hello\nname? Hello, Ann!\ntotal {sum(range(20_000))}\n".encode()
    assert errors == b"gone\n"
    assert process.returncode == 0


def test_a_chat_with_files(
    command: Callable[[str], list[str]], loop_environment: dict[str, str], tmp_path: Path
) -> None:
    """Files are no pipes: aioconsole reads them in threads."""
    (tmp_path / "input").write_text("Bob\n1\n2\n")
    with (tmp_path / "input").open() as stdin:
        done = subprocess.run(
            command(CHAT), env=loop_environment, stdin=stdin, capture_output=True, timeout=LIMIT
        )
    assert done.stdout == b"hello\nname? Hello, Bob!\ntotal 3\n"
    assert (done.returncode, done.stderr) == (0, b"we go on\ngone\n")


def test_a_console_in_a_terminal(
    command: Callable[[str], list[str]], loop_environment: dict[str, str]
) -> None:
    with in_terminal(command(CONSOLE), loop_environment) as terminal:
        terminal.until("welcome")
        terminal.until(">>> ")
        terminal.type("await asyncio.sleep(0.01, answer)\n")
        terminal.until("42")
        terminal.until(">>> ")
        terminal.type("for n in range(3):\n    print('n is', n)\n\n")
        terminal.until("n is 2")
        terminal.until(">>> ")
        # The terminal would send it for Ctrl-C, if it were the program's controlling one.
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("KeyboardInterrupt")
        terminal.until(">>> ")
        terminal.type("print('fast', 'asleep'); await asyncio.sleep(1000)\n")
        terminal.until("fast asleep")
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("CancelledError")
        terminal.until(">>> ")
        terminal.type("1 / 0\n")
        terminal.until("ZeroDivisionError")
        terminal.type("type(loop).__module__\n")
        module = "asyncio.unix_events" if command("")[-1] == "asyncio" else "aioxide.loop"
        terminal.until(module)
        terminal.type("raise SystemExit(7)\n")
        assert terminal.process.wait(LIMIT) == 7


async def test_consoles_over_tcp_share_the_program(loop: asyncio.AbstractEventLoop) -> None:
    """Several visitors at once: each has its own variables, all see the same objects and the same loop."""
    shared: dict[str, Any] = {"visits": []}
    server = await aioconsole.server.start_console_server(
        host="127.0.0.1", port=0, locals=shared, banner="welcome"
    )
    port = server.sockets[0].getsockname()[1]

    def visit(name: str) -> list[str]:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
            conversation = connection.makefile("rw", encoding="utf-8", newline="\n")
            assert conversation.readline() == "welcome\n"
            conversation.write(f"name = {name!r}\nawait asyncio.sleep(0.01)\nvisits.append(name)\nname\n")
            conversation.write("await asyncio.get_running_loop().run_in_executor(None, sum, [1, 2])\n1 / 0\n")
            conversation.flush()
            connection.shutdown(socket.SHUT_WR)
            return conversation.read().replace(">>> ", "").splitlines()

    async with server:
        outputs = await asyncio.gather(*(asyncio.to_thread(visit, f"visitor {n}") for n in range(4)))
        for number, lines in enumerate(outputs):
            assert lines[:2] == [f"'visitor {number}'", "3"]
            assert "ZeroDivisionError: division by zero" in lines
        assert sorted(shared["visits"]) == [f"visitor {number}" for number in range(4)]
        server.close()
        while len(asyncio.all_tasks(loop)) > 1:  # the consoles end when they have seen the end of their input
            await asyncio.sleep(0.005)
