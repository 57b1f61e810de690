"""The page of results: every target names what exists, and the page says what a run found."""

import tomllib
from typing import Any

import pytest
import write_results
from aioxide.bench import loops, ratio, rows

TARGETS = tomllib.loads(write_results.TARGETS.read_text(encoding="utf-8"))["target"]
KEYS = {"row", "candidate", "note", "uvloop", "zuvloop", "epoll", "epoll_zuvloop", "aiofastnet", "bare"}


def cell(median: float | None, p99: float | None = None) -> dict[str, Any]:
    """Make a cell of a saved run."""
    rounds = [{"value": median}] if median else []
    return {"median": median, "p99_us": p99, "rounds": rounds, "errors": [] if median else ["it broke"]}


def run(*names: str, **cells: dict[str, Any]) -> dict[str, Any]:
    """Make a saved run with one row."""
    return {
        "machine": {
            "python": "CPython 3.13.0",
            "processor": "a processor",
            "cores": 2,
            "system": "Linux",
            "load_average_before": [0.1, 0.2, 0.3],
        },
        "settings": {"command": "python benchmarks/run.py", "clock": "cpu"},
        "when": "2026-01-01T00:00:00+00:00",
        "complete": True,
        "loops": [{"name": name, "version": "1", "available": True} for name in names],
        "rows": [{"name": "protocol 64 x 1 KiB", "unit": "us CPU/msg", "cells": cells}],
    }


def lines(data: dict[str, Any], row: str) -> list[str]:
    """Return the lines of the page about a row."""
    return [line for line in write_results.page([data]) if line.startswith(f"| {row} ")]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target['row']}, {target.get('candidate')}")
def test_a_target_names_what_exists(target: dict[str, Any]) -> None:
    assert target["row"] in [row.name for row in rows.every_row(full=False)]
    assert loops.candidate(target.get("candidate", write_results.MAIN))
    assert target.keys() <= KEYS
    assert len(target.keys() - {"row", "candidate", "note"}) > 0


def test_reached_and_missed_targets_are_told_apart() -> None:
    ours, theirs, slow = cell(1.0, 50), cell(1.3, 60), cell(1.2, 70)
    cells = {"uvloop": theirs, "aioxide[uring]": ours, "aioxide[epoll]": slow}
    uring, epoll, bare, all_loops = lines(run(*cells, **cells), "protocol 64 x 1 KiB")
    assert "| 1.30 | ≥ 1.3 | reached | 50.0 : 60.0 |" in uring
    assert "| 1.08 | ≥ 1.1 | **not reached** | 70.0 : 60.0 |" in epoll
    assert "| not measured |" in bare
    assert all_loops.endswith("| 1.30 | 1.00 | 1.20 |")


def test_where_zuvloop_was_measured_it_is_the_one_to_beat() -> None:
    cells = {"uvloop": cell(9.0), "zuvloop": cell(1.1), "aioxide[uring]": cell(1.0)}
    assert (
        "| zuvloop | 1.00 : 1.10 | 1.10 | ≥ 1.2 | **not reached** |"
        in lines(run(*cells, **cells), "protocol 64 x 1 KiB")[0]
    )


def test_a_row_that_failed_reaches_nothing() -> None:
    cells = {"uvloop": cell(1.0), "aioxide[uring]": cell(None)}
    first, *_, last = lines(run(*cells, **cells), "protocol 64 x 1 KiB")
    assert "**open**" in first
    assert last.endswith("| 1.00 | failed |")


@pytest.mark.parametrize(
    ("own", "reference", "expected"),
    [
        ([1.0, 2.0, 4.0], [3.0, 4.0, 4.0], 2.0),  # the medians' ratio is the same
        ([1.0, 2.0, 2.0], [1.5, 1.5, 3.0], 1.5),  # the machine slowed down in the middle of the second round
        ([1.0, 2.0], [3.0], 2.0),  # a round failed
        ([], [1.0], None),
        ([1.0], [], None),
        ([0.0, 1.0], [1.0, 1.0], None),
    ],
)
def test_each_round_is_compared_with_itself(
    own: list[float], reference: list[float], expected: float | None
) -> None:
    assert ratio.of_rounds(own, reference) == expected


def test_a_cell_that_failed_compares_with_nothing() -> None:
    failed = {**cell(1.0), "errors": ["it broke"]}
    assert ratio.of_cells(cell(1.0), failed) is None
    assert ratio.of_cells(failed, cell(1.0)) is None
    assert ratio.of_cells(None, cell(1.0)) is None
    assert ratio.of_cells(cell(1.0), cell(3.0)) == 3.0
