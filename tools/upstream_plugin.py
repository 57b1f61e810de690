"""A pytest plugin: run somebody's tests on the loop that UPSTREAM_LOOP names, and write down how they end.

Loaded by upstream.py with `-p upstream_plugin`, also into the workers of pytest-xdist. For "asyncio" it
changes nothing. For a driver's name every door through which a suite gets a loop leads to aioxide:
`asyncio.run`, `asyncio.Runner`, `asyncio.new_event_loop`, and the classes `asyncio.SelectorEventLoop` and
`asyncio.EventLoop`.

With UPSTREAM_NATIVE_REDIS redis-py's names mean aioxide.redis there too.

Writes lines of JSON into the folder UPSTREAM_REPORT: one per test, and how many loops each process made.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio import unix_events
from pathlib import Path
from typing import Any

import pytest

LOOP = os.environ["UPSTREAM_LOOP"]

_loops_made = 0


def open_doors() -> None:
    """Put aioxide behind every door to a new loop."""
    import aioxide
    from aioxide._everywhere import use_everywhere

    class EventLoop(aioxide.EventLoop):
        """aioxide's loop, counted; takes the selector that asyncio's class takes, and has no use for it."""

        def __new__(cls, selector: object = None) -> Any:
            return super().__new__(cls)

        def __init__(self, selector: object = None) -> None:
            global _loops_made
            super().__init__()
            _loops_made += 1

    use_everywhere(EventLoop)
    for module in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, EventLoop)


def use_native_redis() -> None:
    """Have redis-py's names of its asyncio client and pipeline mean ours."""
    import aioxide.redis
    import redis.asyncio
    import redis.asyncio.client

    for module in (redis.asyncio, redis.asyncio.client):
        for name in ("Redis", "StrictRedis", "Pipeline"):
            if hasattr(module, name):
                setattr(module, name, getattr(aioxide.redis, name))
    redis.asyncio.from_url = aioxide.redis.from_url


if LOOP != "asyncio":
    open_doors()
    if os.environ.get("UPSTREAM_NATIVE_REDIS"):
        use_native_redis()


class Report:
    """Collects the outcome of each test, in the process that hears of all of them."""

    def __init__(self) -> None:
        self.file = (Path(os.environ["UPSTREAM_REPORT"]) / f"tests-{os.getpid()}.jsonl").open("w")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        if outcome == "failed" or report.when == "call" or (report.when == "setup" and outcome != "passed"):
            entry = {"test": report.nodeid, "outcome": outcome, "detail": report.longreprtext[-6000:]}
            self.file.write(json.dumps(entry) + "\n")
            self.file.flush()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            entry = {"test": report.nodeid, "outcome": "failed", "detail": report.longreprtext[-6000:]}
            self.file.write(json.dumps(entry) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report(), "upstream-report")


def pytest_unconfigure(config: pytest.Config) -> None:
    path = Path(os.environ["UPSTREAM_REPORT"]) / f"loops-{os.getpid()}.jsonl"
    path.write_text(json.dumps({"loops": _loops_made}) + "\n")
