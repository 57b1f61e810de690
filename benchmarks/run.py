"""Compare event loops: the same work on each, in turn, in one run.

    python benchmarks/run.py [--quick | --long] [--full] [--only PATTERN] [--loops NAMES] [--json FILE]

In every round each loop runs each row in a process of its own, and the loops take turns, for a short slice
each; the next round begins with the next loop. So a machine that speeds up or slows down treats all of them
alike. Exit status 1 means that aioxide, or everything, failed somewhere; slowness is no failure.
"""

import argparse
import os
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import certificates
import generator
from aioxide.bench import cells, comparison, loops, machine, page, report, rows
from aioxide.bench.comparison import positive
from aioxide.bench.results import Results


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
    parser.add_argument(
        "--slices", type=positive, metavar="N", help="turns of each loop in a round (5; quick: 1)"
    )
    parser.add_argument("--seconds", type=float, help="of load per slice (0.15; quick: 0.2; long: 0.5)")
    parser.add_argument("--repetitions", type=positive, help="of an operation per slice (1; quick: 3)")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="of the scheduling rows (wall)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where results go (benchmarks/results/...)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with bars and plots")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    return parser.parse_args()


def main() -> int:
    """Measure, print, save."""
    options = arguments()
    chosen_rows = rows.select(options.only, quick=options.quick, full=options.full)
    if options.list:
        print("\n".join(row.name for row in chosen_rows))
        return 0
    if not chosen_rows:
        raise SystemExit(f"no row is called anything like {options.only!r}; --list shows them")
    known = candidates(chosen_rows, options.loops)
    described = list(comparison.describe(options.loops, known))
    available = [loops.candidate(loop["name"], known) for loop in described if loop["available"]]
    available = [one for one in available if any(one.measures(row.scopes) for row in chosen_rows)]
    if not available:
        raise SystemExit("none of these loops can be measured here")
    machine.allow_many_files()
    os.environ["BENCHMARK_FOLDER"] = str(Path(__file__).resolve().parent)
    about = machine.describe()
    results = Results(chosen_rows, available)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        effort = plan(options, chosen_rows, Path(directory))
        complete = comparison.measure(
            results, available, effort, options.rounds or (5 if options.long else 3)
        )
    print(report.table(results, described, about, options.clock))
    about["load_average_after"] = list(os.getloadavg())
    settings = vars(options) | {"command": shlex.join(["python", "benchmarks/run.py", *sys.argv[1:]])}
    data = comparison.as_data(results, described, about, settings, complete=complete)
    path = options.json or default_path()
    comparison.save(path, data)
    print(f"\nresults: {path}")
    if options.html:
        options.html.write_text(page.render(data), encoding="utf-8")
    return comparison.exit_status(results) if complete else 130


def candidates(chosen_rows: list[rows.Row], names: str | None) -> list[loops.Candidate]:
    """List the loops, and the program without one if it is wanted and a row compares with it."""
    known = list(loops.CANDIDATES)
    wanted = names is None or "bare" in names
    if wanted and any("limit" in row.scopes for row in chosen_rows):
        binary = generator.build("bare-echo")
        known += [generator.bare(driver, binary) for driver in ("uring", "epoll")]
    return known


def plan(options: argparse.Namespace, chosen_rows: list[rows.Row], directory: Path) -> cells.Effort:
    """Decide how long each cell takes, and prepare the load generator if a row needs it."""
    needed = any(row.kind != "scheduling" for row in chosen_rows)
    load = generator.Generator(generator.build("load-generator", "load") if needed else Path(), directory)
    certificates.make(directory)
    return cells.Effort(
        seconds=options.seconds or (0.2 if options.quick else 0.5 if options.long else 0.15),
        warm_up=0.1 if options.quick or options.long else 0.05,
        slices=options.slices or (1 if options.quick else 5),
        repetitions=options.repetitions or (3 if options.quick else 1),
        clock=options.clock,
        load=load,
        directory=directory,
        peer=load.peer,
    )


def default_path() -> Path:
    """Name a new file after the moment."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return Path(__file__).with_name("results") / f"{moment}.json"


if __name__ == "__main__":
    sys.exit(main())
