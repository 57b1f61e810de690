"""aiomonitor: a running program looked into by telnet and HTTP, its tasks listed, explained and cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from peers import unused_port

aiomonitor = pytest.importorskip("aiomonitor", reason="aiomonitor cannot be had for this Python")

# aiomonitor names its aiohttp settings in a way that aiohttp advises against.
pytestmark = pytest.mark.filterwarnings("ignore:It is recommended to use web.AppKey")

LIMIT = 20.0
TERMINAL_TYPE = b"\xff\xfa\x18\x00xterm\xff\xf0"  # telnet's answer to the question for it (RFC 1091)
PROMPT = "monitor >>> "
PROMPT_OF_PYTHON = "(?<!monitor )>>> "
# Colours, cursor movements, telnet's own commands.
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\xff\xfa.*?\xff\xf0|\xff[\xfb-\xfe].", re.DOTALL)


@pytest.fixture(params=["stock asyncio", "the loop under test"])
def loop_of_the_monitor(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, loop_factory: Any
) -> None:
    """The monitor serves in a thread of its own with `asyncio.run`: on stock asyncio, or on ours too."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        factory = loop_factory if request.param == "the loop under test" else asyncio.SelectorEventLoop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)

    monkeypatch.setattr(asyncio, "run", run)


class Visitor:
    """A telnet client."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.position = 0
        connection.sendall(TERMINAL_TYPE)
        self.expect(PROMPT)

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until something is shown, after what was expected before, that matches."""
        while True:
            shown = CONTROL.sub(b"", self.received).decode(errors="replace")
            if match := re.compile(pattern).search(shown, self.position):
                self.position = match.end()
                return match
            try:
                part = self.connection.recv(1 << 14)
            except TimeoutError:
                part = b""
            assert part, f"{pattern!r} was not shown, but {shown[self.position :]!r}"
            if b"\x1b[6n" in part:  # it wants to know where the cursor is
                self.connection.sendall(b"\x1b[1;1R")
            self.received += part

    def ask(self, command: str, pattern: str) -> re.Match[str]:
        """Type a command and wait for the answer."""
        self.connection.sendall(command.encode() + b"\r")
        return self.expect(pattern)

    def leave(self) -> None:
        self.connection.sendall(b"exit\r")
        while self.connection.recv(1 << 14):
            pass


@contextlib.contextmanager
def visit(port: int) -> Iterator[Visitor]:
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        visitor = Visitor(connection)
        yield visitor
        visitor.leave()


async def serve_forever(name: str) -> None:
    await asyncio.Event().wait()


@pytest.mark.usefixtures("loop_of_the_monitor")
@pytest.mark.parametrize("hooked", [False, True], ids=["", "task factory"])
async def test_tasks_are_listed_explained_and_cancelled(
    loop: asyncio.AbstractEventLoop, hooked: bool
) -> None:
    ports = {"port": unused_port(), "webui_port": unused_port(), "console_port": unused_port()}

    def look_and_cancel() -> None:
        with visit(ports["port"]) as visitor:
            identifier = visitor.ask("ps -f worker-2", r"(\d+)\s+PENDING\s+worker-2\s")[1]
            visitor.expect(PROMPT)
            made_by = "start_workers" if hooked else "No stack available"
            visitor.ask(f"where {identifier}", rf"(?s){made_by}.*await asyncio\.Event\(\)\.wait\(\)")
            visitor.expect(PROMPT)
            visitor.ask(f"cancel {identifier}", f"Cancelled task {identifier}")

    async def start_workers() -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(serve_forever(f"job {number}"), name=f"worker-{number}")
            for number in range(5)
        ]

    with aiomonitor.start_monitor(loop, hook_task_factory=hooked, **ports):
        workers = await start_workers()
        await asyncio.to_thread(look_and_cancel)
        assert [worker.cancelled() for worker in workers] == [False, False, True, False, False]
        api = f"http://127.0.0.1:{ports['webui_port']}/api"
        assert await asyncio.to_thread(
            ask_api, f"{api}/live-tasks", {"filter": "worker"}, names_of_tasks
        ) == {f"worker-{number}" for number in (0, 1, 3, 4)}
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def names_of_tasks(answer: dict[str, Any]) -> set[str]:
    return {task["name"] for task in answer["tasks"]}


def ask_api(address: str, form: dict[str, str], read: Callable[[dict[str, Any]], Any]) -> Any:
    with urllib.request.urlopen(address, urllib.parse.urlencode(form).encode(), timeout=LIMIT) as response:
        return read(json.load(response))


@pytest.mark.usefixtures("loop_of_the_monitor")
async def test_the_console_runs_inside_the_program(loop: asyncio.AbstractEventLoop) -> None:
    """The monitor's console reaches from the monitor's thread into the loop that it watches."""
    ports = {"port": unused_port(), "webui_port": unused_port(), "console_port": unused_port()}
    answer = asyncio.Event()

    def use_the_console() -> None:
        with visit(ports["port"]) as visitor:
            visitor.ask("console", PROMPT_OF_PYTHON)
            visitor.ask("await asyncio.sleep(0.01, [5 * 100])", r"\[500\]")
            visitor.expect(PROMPT_OF_PYTHON)
            visitor.ask("answer.set()", PROMPT_OF_PYTHON)
            visitor.ask("raise SystemExit", PROMPT)

    with aiomonitor.start_monitor(loop, locals={"answer": answer}, **ports):
        await asyncio.gather(asyncio.to_thread(use_the_console), answer.wait())
