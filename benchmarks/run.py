"""Compare event loops: the same work on each, in turn, in one run.

    python benchmarks/run.py [--quick | --full] [--only PATTERN] [--loops NAMES] [--rounds N] [--json FILE]

In every round each loop runs each row once, in a process of its own; the next round begins with the
next loop, so a machine that speeds up or slows down treats all of them alike. Exit status 1 means
that aioxide, or everything, failed somewhere; slowness is no failure.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cells
import loops
import machine
import report
import rows
from results import Results

FORMAT = 1
"""Of the JSON file; raised when a reader of old files would misunderstand a new one."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare event loops, round robin.")
    width = parser.add_mutually_exclusive_group()
    width.add_argument("--quick", action="store_true", help="fewer rows, shorter and fewer rounds")
    width.add_argument("--full", action="store_true", help="every server, connection count and size")
    parser.add_argument("--only", metavar="PATTERN", help="rows in whose name this regular expression occurs")
    parser.add_argument("--loops", metavar="NAMES", help="for example asyncio,uvloop,aioxide[uring]")
    parser.add_argument("--rounds", type=positive, metavar="N", help="rounds per row (5; quick: 3)")
    parser.add_argument("--seconds", type=float, help="of load per echo cell (0.8; quick: 0.4)")
    parser.add_argument("--repetitions", type=positive, help="per scheduling cell (5; quick: 3)")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="of the scheduling rows (wall)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where results go (benchmarks/results/...)")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    return parser.parse_args()


def positive(text: str) -> int:
    """Accept whole numbers from one up."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main() -> int:
    """Measure, print, save."""
    options = arguments()
    chosen_rows = rows.select(options.only, quick=options.quick, full=options.full)
    if options.list:
        print("\n".join(row.name for row in chosen_rows))
        return 0
    if not chosen_rows:
        raise SystemExit(f"no row is called anything like {options.only!r}; --list shows them")
    described = list(describe(options.loops))
    available = [loops.candidate(loop["name"]) for loop in described if loop["available"]]
    if not available:
        raise SystemExit("none of these loops can be measured here")
    machine.allow_many_files()
    about = machine.describe()
    effort = plan(options, chosen_rows)
    results = Results(chosen_rows, [known.name for known in available])
    complete = measure(results, available, effort, options.rounds or (3 if options.quick else 5))
    print(report.table(results, described, about, options.clock))
    about["load_average_after"] = list(os.getloadavg())
    path = options.json or default_path()
    save(path, results, described, about, options, complete=complete)
    print(f"\nresults: {path}")
    return exit_status(results) if complete else 130


def describe(names: str | None) -> Iterator[dict[str, Any]]:
    """Find out which loops work here; one that was asked for by name has to."""
    try:
        wanted = loops.select(names) if names else list(loops.CANDIDATES)
    except LookupError as error:
        raise SystemExit(str(error)) from None
    for known in wanted:
        try:
            yield {"name": known.name, "available": True, **cells.describe(known)}
        except cells.CellError as error:
            if names:
                raise SystemExit(f"{known.name} cannot be measured: {error}") from None
            yield {"name": known.name, "available": False, "reason": str(error)}


def plan(options: argparse.Namespace, chosen_rows: list[rows.Row]) -> cells.Effort:
    """Decide how long each cell takes, and build the load generator if a row needs it."""
    needed = any(isinstance(row, rows.EchoRow) for row in chosen_rows)
    return cells.Effort(
        seconds=options.seconds or (0.4 if options.quick else 0.8),
        warm_up=0.1 if options.quick else 0.2,
        repetitions=options.repetitions or (3 if options.quick else 5),
        clock=options.clock,
        load_generator=machine.build_load_generator() if needed else None,
    )


def measure(results: Results, available: list[loops.Candidate], effort: cells.Effort, rounds: int) -> bool:
    """Fill the cells round by round; return False when the user interrupts."""
    try:
        for number in range(rounds):
            start = number % len(available)
            for row in results.rows:
                progress(f"round {number + 1} of {rounds}: {row.name}")
                for known in available[start:] + available[:start]:
                    cell = results.cell(row, known.name)
                    try:
                        cell.rounds.append(cells.run_cell(known, row, effort))
                    except cells.CellError as error:
                        cell.errors.append(str(error))
    except KeyboardInterrupt:
        progress("interrupted: this is what there is")
        return False
    finally:
        progress("")
    return True


def progress(text: str) -> None:
    """Keep a person at a terminal informed, on one line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def default_path() -> Path:
    """Name a new file after the moment."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return Path(__file__).with_name("results") / f"{moment}.json"


def save(
    path: Path,
    results: Results,
    described: list[dict[str, Any]],
    about: dict[str, Any],
    options: argparse.Namespace,
    *,
    complete: bool,
) -> None:
    """Write everything that was measured, and under which circumstances."""
    data = {
        "format": FORMAT,
        "complete": complete,
        "baseline": loops.BASELINE,
        "machine": about,
        "settings": vars(options) | {"json": str(path)},
        "loops": described,
        "rows": results.as_data(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def exit_status(results: Results) -> int:
    """Fail when aioxide did not manage a row, or nobody managed anything."""
    ours = any(loop.startswith("aioxide") for _, loop, _ in results.failed())
    nothing = not any(cell.rounds for cell in results.cells.values())
    return int(ours or nothing)


if __name__ == "__main__":
    sys.exit(main())
