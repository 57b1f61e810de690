"""A comparison: which loops can be measured, the rounds, and what is saved.

In every round each loop runs each row in a process of its own, and the loops take turns, for a short slice
each; the next round begins with the next loop. So a machine that speeds up or slows down treats all of them
alike.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import cells
from .loops import BASELINE, Candidate, select
from .results import Results
from .rows import Row

FORMAT = 2
"""Of the JSON file; raised when a reader of old files would misunderstand a new one."""


def describe(names: str | None, known: Sequence[Candidate]) -> Iterator[dict[str, Any]]:
    """Find out which loops work here; one that was asked for by its full name has to."""
    try:
        wanted = select(names, known) if names else known
    except LookupError as error:
        raise SystemExit(str(error)) from None
    for one in wanted:
        try:
            yield {"name": one.name, "available": True, **cells.describe(one)}
        except cells.CellError as error:
            if names and one.name in names.split(","):
                raise SystemExit(f"{one.name} cannot be measured: {error}") from None
            yield {"name": one.name, "available": False, "reason": str(error)}


def measure(results: Results, available: list[Candidate], effort: cells.Effort, rounds: int) -> bool:
    """Fill the cells round by round; return False when the user interrupts."""
    try:
        for number in range(rounds):
            start = number % len(available)
            for row in results.rows:
                progress(f"round {number + 1} of {rounds}: {row.name}")
                turn = [one for one in available[start:] + available[:start] if one.measures(row.scopes)]
                take_turns(results, row, turn, effort)
    except KeyboardInterrupt:
        progress("interrupted: this is what there is")
        return False
    finally:
        progress("")
    return True


def take_turns(results: Results, row: Row, turn: Sequence[Candidate], effort: cells.Effort) -> None:
    """Measure a row on each loop in turn, slice by slice; a loop that fails is out."""
    with ExitStack() as stack:
        ready = {}
        for one in turn:
            try:
                ready[one.name] = stack.enter_context(cells.prepared(one, row, effort))
            except cells.CellError as error:
                results.cell(row, one.name).errors.append(str(error))
        for _ in range(cells.slices(row, effort)):
            for name, measure_once in list(ready.items()):
                try:
                    results.cell(row, name).rounds.append(measure_once())
                except cells.CellError as error:
                    results.cell(row, name).errors.append(str(error))
                    del ready[name]


def progress(text: str) -> None:
    """Keep a person at a terminal informed, on one line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def as_data(
    results: Results,
    described: list[dict[str, Any]],
    about: dict[str, Any],
    settings: dict[str, Any],
    *,
    complete: bool,
) -> dict[str, Any]:
    """Gather everything that was measured, and under which circumstances."""
    return {
        "format": FORMAT,
        "complete": complete,
        "baseline": BASELINE,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        "settings": settings,
        "loops": described,
        "rows": results.as_data(),
    }


def save(path: Path, data: dict[str, Any]) -> None:
    """Write a file of JSON, with what has nothing more in it than numbers and words on one line each."""
    text = json.dumps(data, indent=1, default=str)
    for flat in (r"\[[-\d.e,\s]+\]", r"\{[^{}]*\}"):
        text = re.sub(flat, lambda found: re.sub(r"\s*\n\s*", " ", found.group()), text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def exit_status(results: Results) -> int:
    """Fail when aioxide did not manage a row, or nobody managed anything."""
    ours = any(loop.startswith("aioxide") for _, loop, _ in results.failed())
    nothing = not any(cell.rounds for cell in results.cells.values())
    return int(ours or nothing)


def positive(text: str) -> int:
    """Accept whole numbers from one up."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
