"""The table for a person in a hurry: medians and ratios first, spreads below, errors never hidden."""

import textwrap
from collections.abc import Iterator
from typing import Any

from .loops import BASELINE
from .results import Cell, Results
from .rows import Row, SchedulingRow

COLUMN = 19
CLOSE = 0.05
"""Differences up to this are noise on most machines."""


def table(results: Results, loops: list[dict[str, Any]], machine: dict[str, Any], clock: str) -> str:
    """Render a whole run as text."""
    return "\n".join(
        [
            *heading(loops, machine),
            *body(results, clock),
            *errors(results),
            *verdicts(results),
        ]
    )


def heading(loops: list[dict[str, Any]], machine: dict[str, Any]) -> Iterator[str]:
    """Say what ran where."""
    yield f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {machine['python']}"
    for loop in loops:
        if loop["available"]:
            profile = loop["build"].get("profile", "release")
            warning = "" if profile == "release" else f", built with profile {profile}: not worth measuring"
            yield f"  {loop['name']:<21} {loop['version']:<13} driver: {loop['driver']}{warning}"
        else:
            yield f"  {loop['name']:<21} not measured: {loop['reason']}"


def body(results: Results, clock: str) -> Iterator[str]:
    """Yield two lines per row: median and ratio, then the spread of the rounds; a third one for latencies."""
    width = max((len(row.name) for row in results.rows), default=0) + 2
    unit = None
    for row in results.rows:
        if row.unit != unit:
            unit = row.unit
            yield ""
            by = f" by {clock} time" if isinstance(row, SchedulingRow) and row.clock is None else ""
            yield f"{unit}{by}: median and times as fast as {BASELINE}; below, the spread of the rounds"
            yield " " * width + "".join(f"{loop:>{COLUMN}}" for loop in results.loops)
        yield f"{row.name:<{width}}" + "".join(first_line(results, row, loop) for loop in results.loops)
        cells = [results.cell(row, loop) for loop in results.loops]
        yield " " * width + "".join(second_line(cell) for cell in cells)
        if any(cell.p99 is not None for cell in cells):
            yield " " * width + "".join(third_line(cell) for cell in cells)


def first_line(results: Results, row: Row, loop: str) -> str:
    """Render median and ratio, or the word that something went wrong."""
    cell = results.cell(row, loop)
    if cell.errors:
        return f"{'ERROR':>{COLUMN}}"
    if cell.median is None:
        return f"{'-':>{COLUMN}}"
    ratio = results.ratio(row, loop)
    times = f"{ratio:.2f}x" if ratio is not None else ""
    return f"{number(cell.median)} {times:>6}".rjust(COLUMN)


def second_line(cell: Cell) -> str:
    """Render the spread, or how many rounds failed."""
    if cell.errors:
        rounds = len(cell.errors) + len(cell.rounds)
        return f"{len(cell.errors)} of {rounds} rounds".rjust(COLUMN)
    if not cell.values:
        return " " * COLUMN
    return f"{number(min(cell.values))}-{number(max(cell.values))}".rjust(COLUMN)


def third_line(cell: Cell) -> str:
    """Render the latency that one message in a hundred exceeds."""
    if cell.errors or cell.p99 is None:
        return " " * COLUMN
    return f"p99 {number(cell.p99)} us".rjust(COLUMN)


def number(value: float) -> str:
    """Show three figures or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def errors(results: Results) -> Iterator[str]:
    """Explain every failed cell."""
    failed = results.failed()
    if failed:
        yield ""
        yield "errors:"
        yield from (f"  {loop}, {row}: {reason}" for row, loop, reason in failed)


def verdicts(results: Results) -> Iterator[str]:
    """Sum up each loop, naming the rows in which the baseline is clearly faster."""
    if BASELINE not in results.loops:
        return
    yield ""
    for loop in results.loops:
        compared = [(row.name, results.ratios(row, loop)) for row in results.rows]
        known = [(name, ratios) for name, ratios in compared if ratios]
        if loop == BASELINE or not known:
            continue
        # Median and minimum have to agree: noise moves the one or the other, a difference both.
        faster = sum(min(ratios) > 1 + CLOSE for _, ratios in known)
        slower = [f"{name} ({ratios[0]:.2f}x)" for name, ratios in known if max(ratios) < 1 - CLOSE]
        equal = len(known) - faster - len(slower)
        line = f"{loop}: faster than {BASELINE} in {faster} rows, equal in {equal}, slower in {len(slower)}"
        text = f"{line}: {', '.join(slower)}" if slower else line
        yield from textwrap.wrap(text, 110, subsequent_indent="  ", break_on_hyphens=False)
