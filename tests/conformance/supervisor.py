"""Start runner.py in a process of its own, watch it, and collect what it reports.

A test that writes nothing for `TEST_LIMIT` seconds hangs: its process is killed, the test counts as failed,
and a new process runs the remaining tests. The same happens after a crash, so one bad test never hides its
neighbours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNNER = Path(__file__).with_name("runner.py")
TEST_LIMIT = 20.0
CLASS_LIMIT = 150.0
POLL_INTERVAL = 0.05


@dataclasses.dataclass
class ClassReport:
    """What one class did on one loop: outcomes by test, and the number of loops made."""

    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    details: dict[str, str] = dataclasses.field(default_factory=dict)
    loops: int = 0
    seconds: float = 0.0

    def add(self, test: str, outcome: str, detail: str) -> None:
        self.outcomes[test] = outcome
        self.details[test] = detail

    def merge(self, other: ClassReport) -> None:
        """Add what the same class did in another process."""
        self.outcomes |= other.outcomes
        self.details |= other.details
        self.loops += other.loops
        self.seconds += other.seconds


def list_classes() -> list[tuple[str, str]]:
    """Return (module, class) for each class of CPython's asyncio tests; empty when they are not installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "classes.json")
        done = subprocess.run(
            [sys.executable, str(RUNNER), "--list", str(report)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            if "No module named 'test" in done.stderr:
                return []
            raise RuntimeError(done.stderr)
        return [(module, name) for module, name in json.loads(report.read_text(encoding="utf-8"))]


def run_class(
    loop: str, module: str, name: str, tests: list[str], *, stop_at_failure: bool = False
) -> ClassReport:
    """Run `tests` of a class (all when empty) on `loop`, in as many processes as it takes."""
    options = ["--loop", loop, *(["--stop-at-failure"] if stop_at_failure else [])]
    result = ClassReport()
    begin = time.monotonic()
    remaining = tests
    while True:
        ending, unfinished = _run_once(result, options, module, name, remaining, begin + CLASS_LIMIT)
        if ending is None:
            break
        stopped = unfinished or "(class)"
        result.add(stopped, "failed", ending)
        # Without a list there is nothing to resume from: only the reference is run like that.
        remaining = [test for test in remaining if test not in result.outcomes]
        if not remaining or unfinished is None or stop_at_failure or time.monotonic() > begin + CLASS_LIMIT:
            for test in remaining:
                result.add(test, "failed", "not reached: " + ending)
            break
    result.seconds = time.monotonic() - begin
    return result


def _run_once(
    result: ClassReport, options: list[str], module: str, name: str, tests: list[str], deadline: float
) -> tuple[str | None, str | None]:
    """Run one process; return why it ended early (None: it did not) and the test it was in."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        report, output = Path(folder, "report"), Path(folder, "output")
        report.touch()
        with output.open("wb") as sink, report.open(encoding="utf-8") as lines:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-X",
                    "faulthandler",
                    str(RUNNER),
                    *options,
                    str(report),
                    module,
                    name,
                    *tests,
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            ending: str | None = None
            started: str | None = None
            finished = False
            last_news = time.monotonic()
            try:
                while True:
                    exited = process.poll() is not None
                    for entry in _entries(lines):
                        last_news = time.monotonic()
                        if "started" in entry:
                            started = entry["started"]
                        elif "test" in entry:
                            result.add(entry["test"], entry["outcome"], entry["detail"])
                            result.loops = max(result.loops, entry["loops"])
                            started = None
                        else:
                            finished = True
                    if exited or finished:
                        break
                    now = time.monotonic()
                    if now > last_news + TEST_LIMIT or now > deadline:
                        ending = f"hung: no result within {now - last_news:.0f} s"
                        process.send_signal(signal.SIGABRT)  # faulthandler writes where it hangs
                        break
                    time.sleep(POLL_INTERVAL)
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                ending = ending or "the process did not end after its last test"
            finally:
                _kill_session(process)
            if ending is None and not finished:
                ending = f"crashed: exit status {process.returncode}"
            if ending is not None:
                text = output.read_text(encoding="utf-8", errors="replace")
                if finished:  # every test has its result: only the end of the process went wrong
                    result.add("(exit)", "failed", f"{ending}\n{text[-4000:]}")
                    return None, None
                return f"{ending}\n{text[-4000:]}", started
    return None, None


def _entries(lines: Any) -> list[dict[str, Any]]:
    """Return the whole lines written since the last call."""
    entries = []
    while True:
        position = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):
            lines.seek(position)
            return entries
        entries.append(json.loads(line))


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process and of the children its tests started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
