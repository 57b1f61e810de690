#!/usr/bin/env python3
"""Count what CPython's own asyncio tests say: the running interpreter's tests, on asyncio and on aioxide.

    python tools/conformance_numbers.py                       # rows for this interpreter
    python tools/conformance_numbers.py --update              # the same, and into docs/compatibility.md
    python tools/conformance_numbers.py --loops asyncio,uvloop
    python tools/conformance_numbers.py --left-out            # what is not run, and why

Every class in scope runs (tests/conformance/scope.py), each in a process of its own, with no list of expected
failures: a number counts what happened. `differ` counts the tests that asyncio passes and the loop does not.
"""

from __future__ import annotations

import argparse
import collections
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- conformance numbers: begin -->", "<!-- conformance numbers: end -->"
HEADER = ("| Python | loop | tests | passed | skipped | failed | differ |", "|---|---|---|---|---|---|---|")

sys.path.insert(0, str(ROOT / "tests" / "conformance"))

import scope  # noqa: E402
import supervisor  # noqa: E402

Outcomes = dict[str, str]


def run(loop: str, reference: Outcomes | None, classes: list[tuple[str, str]]) -> Outcomes:
    """Return the outcome of every test of the classes in scope on one loop, by its full name."""
    outcomes: Outcomes = {}
    for module, name in classes:
        prefix = f"{module}.{name}."
        tests = [test.removeprefix(prefix) for test in reference or () if test.startswith(prefix)]
        report = supervisor.run_class(loop, module, name, tests)
        for test, outcome in report.outcomes.items():
            # What is no test is the set-up of a class or the end of its process: told, not counted.
            if not test.startswith("test"):
                print(f"{loop}: {prefix}{test}: {report.details.get(test, outcome)}", file=sys.stderr)
            else:
                outcomes[prefix + test] = outcome
    return outcomes


def counted(outcomes: Outcomes) -> Outcomes:
    """Leave out the tests that are run only because CPython's tests may depend on those before them."""
    return {test: outcome for test, outcome in outcomes.items() if test not in scope.EXCLUDED_TESTS}


def row(loop: str, outcomes: Outcomes, differing: list[str]) -> str:
    """Return one line of the table."""
    counts = collections.Counter(outcomes.values())
    cells = [
        platform.python_version() + ("t" if "free-threading" in sys.version else ""),
        loop if loop in ("asyncio", "uvloop") else f"aioxide, {'io_uring' if loop == 'uring' else loop}",
        *map(str, (len(outcomes), counts["passed"], counts["skipped"], counts["failed"], len(differing))),
    ]
    return f"| {' | '.join(cells)} |"


def update(rows: list[str]) -> None:
    """Put the rows into the page, in place of those of the same interpreter and loop."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    kept = {key(line): line for line in table.splitlines() if line.startswith("|") and line not in HEADER}
    kept |= {key(line): line for line in rows}
    lines = [BEGIN, *HEADER, *(kept[name] for name in sorted(kept, key=position)), END]
    PAGE.write_text(before + "\n".join(lines) + after, encoding="utf-8")


def print_left_out(classes: list[tuple[str, str]]) -> None:
    """Print every class and every single test of this interpreter's suite that is not counted, and why."""
    for module, name in classes:
        if reason := scope.reason_excluded(module, name):
            print(f"{module}.{name}: {reason}")
    for test, reason in scope.EXCLUDED_TESTS.items():
        print(f"{test}: {reason}")


def key(line: str) -> tuple[str, str]:
    """Return what a line of the table speaks of: (Python, loop)."""
    _, python, loop, *_ = (cell.strip() for cell in line.split("|"))
    return python, loop


def position(name: tuple[str, str]) -> tuple[list[int], bool, int]:
    """Order the lines by version, then asyncio first and uvloop last."""
    python, loop = name
    version = "".join(letter if letter.isdigit() else " " for letter in python).split()
    order = ("asyncio", "aioxide, io_uring", "aioxide, epoll", "uvloop")
    return [int(part) for part in version], python.endswith("t"), order.index(loop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loops", default="asyncio,uring,epoll", help="separated by commas")
    parser.add_argument("--update", action="store_true", help="write the rows into docs/compatibility.md")
    parser.add_argument("--left-out", action="store_true", help="print what is not run, and why; run nothing")
    arguments = parser.parse_args()
    known = supervisor.list_classes()
    if not known:
        parser.exit(1, "this interpreter comes without CPython's tests (on Debian: libpython3-testsuite)\n")
    if arguments.left_out:
        print_left_out(known)
        return
    classes = [entry for entry in known if scope.reason_excluded(*entry) is None]
    reference = run("asyncio", None, classes)
    passed = [test for test, outcome in counted(reference).items() if outcome == "passed"]
    rows = []
    print(*HEADER, sep="\n")
    for loop in arguments.loops.split(","):
        outcomes = counted(reference if loop == "asyncio" else run(loop, reference, classes))
        differing = [test for test in passed if outcomes.get(test) != "passed"]
        rows.append(row(loop, outcomes, differing))
        print(rows[-1], flush=True)
        for test, outcome in outcomes.items():
            if outcome != "passed":
                print(f"{loop}: {test}: {outcome}", file=sys.stderr)
    if arguments.update:
        update(rows)


if __name__ == "__main__":
    main()
