"""The options every program shares, and the one way they all start: any loop, the same code.

A program hands `run` an ordinary coroutine function. Which event loop carries it is decided here and nowhere
else, by `asyncio.Runner(loop_factory=...)`: no policy, no global state.

Exit codes: 0 correct, 1 a wrong or failed result, 2 wrong options, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import re
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from report import Report

LOOPS = ("asyncio", "uvloop", "aioxide")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Program = Callable[[argparse.Namespace, Report], Coroutine[Any, Any, None]]


class ProgramError(Exception):
    """Something outside the program is missing or wrong; the message says what to do about it."""


def option_parser(description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """Make a parser with the options that every program has."""
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = parser.add_argument_group("shared options")
    shared.add_argument(
        "--loop",
        choices=LOOPS,
        default="asyncio",
        help="what to run on (default: %(default)s); AIOXIDE_DRIVER=uring|epoll picks aioxide's driver",
    )
    shared.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as JSON")
    return parser


def positive(text: str) -> int:
    """Read an option that counts something, so at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def factory(name: str) -> LoopFactory | None:
    """Return what makes a loop called `name`; None leaves the choice to asyncio."""
    if name == "asyncio":
        return None
    try:
        made_by: LoopFactory = importlib.import_module(name).new_event_loop
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ProgramError(f"{name} is not installed for {sys.executable}") from None

    def make() -> asyncio.AbstractEventLoop:
        try:
            return made_by()
        except OSError as error:
            raise ProgramError(f"{name} cannot make a loop here: {error}") from error

    return make


def run(program: Program, options: argparse.Namespace, title: str) -> int:
    """Run a program on the loop the options name; print its figures; return the exit code."""
    report = Report(title)
    try:
        with asyncio.Runner(loop_factory=factory(options.loop)) as runner:
            report.loop = loop_name(runner.get_loop())
            runner.run(program(options, report))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except ProgramError as error:
        print(f"{title}: {error}", file=sys.stderr)
        return 1
    if options.json:
        report.save(options.json)
    report.show()
    return 1 if report.problems else 0


def loop_name(loop: asyncio.AbstractEventLoop) -> str:
    """Name the class and the driver of a loop, to see that a program really ran on what it was asked to."""
    driver = re.search(r"driver=(\w+)", repr(loop))
    return f"{type(loop).__module__}.{type(loop).__qualname__}" + (f"[{driver[1]}]" if driver else "")
