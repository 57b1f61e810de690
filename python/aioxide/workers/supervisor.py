"""Keeps the processes of a worker running until a signal ends them all.

# Invariants
- A process never gets a signal from the terminal: it has a session of its own. What it gets comes from here.
- A process outlives the supervisor only to finish what it handles: the end of the pipe tells it to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, replace

from .._backoff import Backoff
from .job import MISTAKE, STOPPED, Job
from .slots import Slot

# A process has so many seconds for its farewell to the server, after its grace.
FAREWELL_SECONDS = 15.0
# A process that ran for so many seconds is not one that cannot start.
STEADY_SECONDS = 30.0
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Plan:
    """What to keep running."""

    job: Job
    name: str
    restart_delay: float
    longest_restart_delay: float


class Supervisor:
    """The processes of one worker."""

    def __init__(self, plan: Plan, slots: list[Slot]) -> None:
        self._plan = plan
        self._slots = slots
        self._processes: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self._code = STOPPED

    async def run(self) -> int:
        """Start everything, keep it running until a signal comes, end it, and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._handle_signal, number)
        lifeline, writer = os.pipe()
        try:
            plan = replace(self._plan, job=replace(self._plan.job, lifeline=lifeline))
            tasks = [loop.create_task(self._keep(plan, slot)) for slot in self._slots]
            await self._stopping.wait()
            _, slow = await asyncio.wait(tasks, timeout=plan.job.options["grace"] + FAREWELL_SECONDS)
            if slow:
                self._say(f"{len(slow)} processes do not stop: killed")
                self._code = self._code or 1
                for process in self._processes:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
            await asyncio.gather(*tasks)
        finally:
            os.close(lifeline)
            os.close(writer)
        return self._code

    async def _keep(self, plan: Plan, slot: Slot) -> None:
        """Run one process, and another one whenever it has ended."""
        loop = asyncio.get_running_loop()
        name = f"{plan.name}-{slot.number}"
        job = replace(plan.job, options={**plan.job.options, "consumer": name})
        backoff = Backoff(plan.restart_delay, plan.longest_restart_delay)
        while not self._stopping.is_set():
            started = loop.time()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"{__package__}.process",
                name,
                job.handler,
                env=job.environment(),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(job.lifeline, slot.lock),
                start_new_session=True,
            )
            self._processes.add(process)
            if self._stopping.is_set():
                # The signal came while it was started.
                process.terminate()
            code = await process.wait()
            self._processes.discard(process)
            if self._stopping.is_set():
                # A process that is starting up holds nothing, and does not listen to the signal yet.
                if code not in (STOPPED, -signal.SIGTERM):
                    self._say(f"{name} {describe(code)} while stopping")
                    self._code = self._code or 1
                return
            if code == MISTAKE:
                # Told by the process itself. It would go wrong in the same way for ever.
                self._code = MISTAKE
                self._stop()
                return
            if loop.time() - started >= STEADY_SECONDS:
                backoff.reset()
            delay = backoff.next()
            self._say(f"{name} {describe(code)}; again in {delay:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    def _handle_signal(self, number: signal.Signals) -> None:
        if number == signal.SIGINT and not self._stopping.is_set():
            self._code = self._code or INTERRUPTED
        self._stop()

    def _stop(self) -> None:
        """Pass the wish on: a process that is asked twice cancels what it handles."""
        self._stopping.set()
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    def _say(self, what: str) -> None:
        print(f"aioxide worker: {what}", file=sys.stderr, flush=True)


def describe(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
