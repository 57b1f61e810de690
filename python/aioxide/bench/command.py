"""`python -m aioxide bench`: the short comparison, for any machine and the loops that are installed there."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from . import cells, chart, comparison, loops, machine, page, rows
from .comparison import positive
from .load import PythonLoad
from .results import Results


def main(arguments: list[str]) -> int:
    """Measure, draw, save what was asked for; return the exit status."""
    options = parser().parse_args(arguments)
    chosen_rows = rows.portable(quick=options.quick)
    described = list(comparison.describe(options.loops, loops.CANDIDATES))
    available = [loops.candidate(loop["name"]) for loop in described if loop["available"]]
    available = [one for one in available if any(one.measures(row.scopes) for row in chosen_rows)]
    if not available:
        raise SystemExit("none of these loops can be measured here")
    machine.allow_many_files()
    machine.leave_measured_core()
    about = machine.describe()
    results = Results(chosen_rows, available)
    with tempfile.TemporaryDirectory(prefix="aioxide-bench-") as directory:
        effort = cells.Effort(
            seconds=options.seconds,
            warm_up=options.seconds / 4,
            slices=1,
            repetitions=3,
            clock="wall",
            load=PythonLoad(),
            directory=Path(directory),
        )
        complete = comparison.measure(results, available, effort, options.rounds)
    about["load_average_after"] = list(os.getloadavg())
    settings = vars(options) | {"clock": effort.clock, "command": "python -m aioxide bench"}
    data = comparison.as_data(results, described, about, settings, complete=complete)
    print("\n".join(chart.draw(data, colour=sys.stdout.isatty())))
    if options.json:
        comparison.save(options.json, data)
        print(f"results: {options.json}")
    if options.html:
        options.html.write_text(page.render(data), encoding="utf-8")
        print(f"page: {options.html}")
    return comparison.exit_status(results) if complete else 130


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(
        prog="python -m aioxide bench",
        description="Compare aioxide with the other event loops that are installed here, in turn, each in "
        "processes of its own.",
        allow_abbrev=False,
    )
    made.add_argument("--loops", metavar="NAMES", help="for example asyncio,uvloop,aioxide[epoll]")
    made.add_argument("--quick", action="store_true", help="a few rows only")
    made.add_argument("--rounds", type=positive, default=3, metavar="N", help="how often each row is run (3)")
    made.add_argument("--seconds", type=float, default=0.3, help="of load on each server in each round (0.3)")
    made.add_argument("--html", type=Path, metavar="FILE", help="write a page with bars and plots")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return made
