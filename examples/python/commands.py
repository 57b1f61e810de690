#!/usr/bin/env python3
"""Run many subprocesses at once and collect their outputs in order.

Four things that everybody needs of subprocesses sooner or later, each verified:

  in order    many commands run at once, finish in any order, and their outputs come back in order
  exit codes  every code arrives, and so does the signal that ended a process
  time-outs   a command that takes too long is asked to end, then killed, and never left behind
  pipes       a megabyte goes through a process and comes back whole, while lines are read from another

With COMMANDs of your own, these are run instead, by the shell: commands.py 'uname -a' 'sleep 1; date'.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import loops
from report import Report, Stopwatch, progress

NAP = 0.05
GRACE = 0.2
PATIENCE = 30.0


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended."""

    command: str
    output: bytes
    code: int
    timed_out: bool = False


async def run(command: str, timeout: float) -> Result:
    """Run one command in the shell; end it when it takes too long or when nobody waits for it any more."""
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # The shell and all that it starts become one group, which can be ended as a whole.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate()
        return Result(command, output, ended(process))
    except TimeoutError:
        return Result(command, b"", await end(process), timed_out=True)
    except asyncio.CancelledError:
        await end(process)
        raise


def ended(process: Process) -> int:
    """Return the exit code of a process that has ended."""
    if process.returncode is None:
        raise AssertionError("the process is still running")
    return process.returncode


async def end(process: Process) -> int:
    """Ask a process and its children to end; kill them when they do not; read what is left in the pipe."""
    send(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(GRACE):
            await process.communicate()
    except TimeoutError:
        send(process, signal.SIGKILL)
        await process.communicate()
    return ended(process)


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to a process and its children."""
    # Nobody left in the group is what was wanted.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def run_all(
    commands: list[str], concurrency: int, timeout: float, advance: Callable[[int], None] = lambda _: None
) -> list[Result]:
    """Run every command, at most `concurrency` at once; return the results in the order given."""
    places = asyncio.Semaphore(concurrency)

    async def one(command: str) -> Result:
        async with places:
            result = await run(command, timeout)
        advance(1)
        return result

    # Unlike gather, a group that is cancelled waits until every task has ended its process.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(command)) for command in commands]
    return [task.result() for task in tasks]


async def outputs_in_order(options: argparse.Namespace, report: Report) -> None:
    """Let commands finish in any order and see their outputs in order."""
    dice = random.Random(2026)
    commands = [f"sleep {dice.uniform(0, 2 * NAP):.3f}; echo {number}" for number in range(options.commands)]
    few = commands[: max(1, options.commands // 10)]
    with progress("one command at a time", len(few)) as advance, Stopwatch() as alone:
        await run_all(few, 1, PATIENCE, advance)
    with (
        progress(f"{options.concurrency} commands at a time", len(commands)) as advance,
        Stopwatch() as together,
    ):
        results = await run_all(commands, options.concurrency, PATIENCE, advance)
    for number, result in enumerate(results):
        printed = f"{result.output!r}, code {result.code}"
        report.check(
            result.output == b"%d\n" % number and result.code == 0, f"command {number} printed {printed}"
        )
    report.rate("one at a time", len(few), alone.seconds, "commands")
    report.rate(f"{options.concurrency} at a time", len(commands), together.seconds, "commands")


async def exit_codes(options: argparse.Namespace, report: Report) -> None:
    """End processes with every kind of code."""
    codes = [0, 1, 2, 77, 127, 255]
    signals = [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1]
    commands = [f"exit {code}" for code in codes] + [f"kill -{number.value} $$" for number in signals]
    results = await run_all(commands, options.concurrency, PATIENCE)
    for result, expected in zip(results, codes + [-number for number in signals], strict=True):
        report.check(result.code == expected, f"{result.command!r} ended with {result.code}, not {expected}")
    problem = "was started"
    try:
        await asyncio.create_subprocess_exec("/nowhere/no-such-program")
    except OSError as error:
        problem = "" if isinstance(error, FileNotFoundError) else f"failed with {error!r}"
    report.check(not problem, f"a program that does not exist {problem}")


async def time_outs(options: argparse.Namespace, report: Report) -> None:
    """Give up on a polite command and on a stubborn one."""
    polite, stubborn = "exec sleep 60", "trap '' TERM; while :; do sleep 60 & wait $!; done"
    with Stopwatch() as watch:
        results = await run_all([polite, stubborn], 2, timeout=0.3)
    codes = [result.code for result in results]
    report.check(all(result.timed_out for result in results), "a command of 60 seconds ended by itself")
    report.check(codes == [-signal.SIGTERM, -signal.SIGKILL], f"timed-out commands ended with {codes}")
    report.check(watch.seconds < PATIENCE, f"giving up took {watch.seconds:.1f} s")
    report.seconds("giving up after 0.3 s", watch.seconds)


async def pipes(options: argparse.Namespace, report: Report) -> None:
    """Send a megabyte through a process while reading another one line by line."""
    megabyte = random.Random(2026).randbytes(1 << 20)

    async def through() -> bytes:
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, start_new_session=True)
        try:
            output, _ = await process.communicate(megabyte)
            return output
        finally:
            await end(process)

    async def line_by_line() -> list[int]:
        process = await asyncio.create_subprocess_exec(
            *("seq", "1", "10000"), stdin=DEVNULL, stdout=PIPE, start_new_session=True
        )
        assert process.stdout is not None
        try:
            return [int(line) async for line in process.stdout]
        finally:
            await end(process)

    with Stopwatch() as watch:
        async with asyncio.TaskGroup() as group:
            sending, reading = group.create_task(through()), group.create_task(line_by_line())
    output, lines = sending.result(), reading.result()
    report.check(
        output == megabyte, f"{len(output)} bytes came back of {len(megabyte)}, or they were changed"
    )
    report.check(lines == list(range(1, 10001)), f"{len(lines)} lines were read, or they were out of order")
    report.milliseconds("1 MiB through cat", watch.seconds)


PARTS: tuple[Callable[[argparse.Namespace, Report], Awaitable[None]], ...] = (
    outputs_in_order,
    exit_codes,
    time_outs,
    pipes,
)


async def own_commands(options: argparse.Namespace, report: Report) -> None:
    """Run the commands of the command line and print what they printed."""
    for result in await run_all(options.command, options.concurrency, options.timeout):
        sys.stdout.buffer.write(result.output)
        sys.stdout.buffer.flush()
        problem = "took too long" if result.timed_out else f"ended with code {result.code}"
        report.check(result.code == 0, f"{result.command!r} {problem}")


async def commands(options: argparse.Namespace, report: Report) -> None:
    """Run what the options ask for."""
    if options.command:
        await own_commands(options, report)
        return
    for part in PARTS:
        await part(options, report)


def main() -> int:
    """Read the options and run."""
    parser = loops.option_parser(__doc__)
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="run these instead")
    parser.add_argument(
        "--commands", type=loops.positive, default=200, metavar="N", help="how many (%(default)s)"
    )
    parser.add_argument(
        "--concurrency", type=loops.positive, default=50, metavar="N", help="at once (%(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=PATIENCE, metavar="SECONDS", help="for a COMMAND (%(default)s)"
    )
    return loops.run(commands, parser.parse_args(), "commands")


if __name__ == "__main__":
    sys.exit(main())
