"""Compare event loops: the same work on each, in turn, in one run.

    python benchmarks/run.py [--quick | --long] [--full] [--only PATTERN] [--loops NAMES] [--json FILE]

In every round each loop runs each row once, in a process of its own; the next round begins with the
next loop, so a machine that speeds up or slows down treats all of them alike. Exit status 1 means
that aioxide, or everything, failed somewhere; slowness is no failure.
"""

import argparse
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import certificates
import generator
from aioxide.bench import cells, loops, machine, report, rows
from aioxide.bench.results import Results

FORMAT = 2
"""Of the JSON file; raised when a reader of old files would misunderstand a new one."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare event loops, round robin.")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="fewer rows and shorter cells")
    effort.add_argument("--long", action="store_true", help="longer cells and more rounds")
    parser.add_argument("--full", action="store_true", help="every server, connection count and size")
    parser.add_argument("--only", metavar="PATTERN", help="rows in whose name this regular expression occurs")
    parser.add_argument("--loops", metavar="NAMES", help="for example asyncio,uvloop,aioxide[uring]")
    parser.add_argument("--rounds", type=positive, metavar="N", help="rounds per row (3; long: 5)")
    parser.add_argument("--seconds", type=float, help="of load per cell (0.4; quick: 0.2; long: 1)")
    parser.add_argument("--repetitions", type=positive, help="per scheduling cell (3; long: 5)")
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
    known = candidates(chosen_rows)
    described = list(describe(options.loops, known))
    available = [loops.candidate(loop["name"], known) for loop in described if loop["available"]]
    available = [one for one in available if any(one.measures(row.scopes) for row in chosen_rows)]
    if not available:
        raise SystemExit("none of these loops can be measured here")
    machine.allow_many_files()
    about = machine.describe()
    results = Results(chosen_rows, available)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        effort = plan(options, chosen_rows, Path(directory))
        complete = measure(results, available, effort, options.rounds or (5 if options.long else 3))
    print(report.table(results, described, about, options.clock))
    about["load_average_after"] = list(os.getloadavg())
    path = options.json or default_path()
    save(path, results, described, about, options, complete=complete)
    print(f"\nresults: {path}")
    return exit_status(results) if complete else 130


def candidates(chosen_rows: list[rows.Row]) -> list[loops.Candidate]:
    """List the loops, and the program without one where a row compares with it."""
    known = list(loops.CANDIDATES)
    if any("limit" in row.scopes for row in chosen_rows):
        binary = generator.build("bare-echo")
        known += [generator.bare(driver, binary) for driver in ("uring", "epoll")]
    return known


def describe(names: str | None, known: list[loops.Candidate]) -> Iterator[dict[str, Any]]:
    """Find out which loops work here; one that was asked for by its full name has to."""
    try:
        wanted = loops.select(names, known) if names else known
    except LookupError as error:
        raise SystemExit(str(error)) from None
    for one in wanted:
        try:
            yield {"name": one.name, "available": True, **cells.describe(one)}
        except cells.CellError as error:
            if names and one.name in names.split(","):
                raise SystemExit(f"{one.name} cannot be measured: {error}") from None
            yield {"name": one.name, "available": False, "reason": str(error)}


def plan(options: argparse.Namespace, chosen_rows: list[rows.Row], directory: Path) -> cells.Effort:
    """Decide how long each cell takes, and prepare the load generator if a row needs it."""
    if any(row.kind != "scheduling" for row in chosen_rows):
        load = generator.Generator(generator.build("load-generator"), directory)
        certificates.make(directory)
    else:
        load = generator.Generator(Path(), directory)
    return cells.Effort(
        seconds=options.seconds or (0.2 if options.quick else 1.0 if options.long else 0.4),
        warm_up=0.2 if options.long else 0.1,
        repetitions=options.repetitions or (5 if options.long else 3),
        clock=options.clock,
        load=load,
        directory=directory,
    )


def measure(results: Results, available: list[loops.Candidate], effort: cells.Effort, rounds: int) -> bool:
    """Fill the cells round by round; return False when the user interrupts."""
    try:
        for number in range(rounds):
            start = number % len(available)
            for row in results.rows:
                progress(f"round {number + 1} of {rounds}: {row.name}")
                for one in available[start:] + available[:start]:
                    if not one.measures(row.scopes):
                        continue
                    cell = results.cell(row, one.name)
                    try:
                        cell.rounds.append(cells.run_cell(one, row, effort))
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
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        "settings": vars(options) | {"json": str(path), "command": command()},
        "loops": described,
        "rows": results.as_data(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(compact(json.dumps(data, indent=1)) + "\n", encoding="utf-8")


def command() -> str:
    """Spell out how this run was started."""
    return shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]])


def compact(text: str) -> str:
    """Put lists of numbers on one line each."""
    return re.sub(r"\[[-\d.e,\s]+\]", lambda found: re.sub(r"\s+", " ", found.group()), text)


def exit_status(results: Results) -> int:
    """Fail when aioxide did not manage a row, or nobody managed anything."""
    ours = any(loop.startswith("aioxide") for _, loop, _ in results.failed())
    nothing = not any(cell.rounds for cell in results.cells.values())
    return int(ours or nothing)


if __name__ == "__main__":
    sys.exit(main())
