"""What a run found out: values and errors per row and loop, and the figures derived from them.

Invariants: a cell that failed once stays visible as failed, whatever its other rounds say; ratios
are "times as fast as the baseline", so more is better in every row.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import ratio
from .loops import BASELINE, Candidate
from .rows import Row


@dataclass
class Cell:
    """The rounds of one row on one loop."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """List the measured values in the order of the rounds."""
        return [result["value"] for result in self.rounds]

    @property
    def median(self) -> float | None:
        """Return the median of the rounds, if any succeeded."""
        return statistics.median(self.values) if self.rounds else None

    @property
    def p99(self) -> float | None:
        """Return the median of the rounds' 99th percentiles of latency, where latencies were measured."""
        latencies = [result["latency_p99_us"] for result in self.rounds if "latency_p99_us" in result]
        return statistics.median(latencies) if latencies else None


class Results:
    """The table as data: one cell per row and loop."""

    def __init__(self, rows: Sequence[Row], candidates: Sequence[Candidate]) -> None:
        self.rows = list(rows)
        self.loops = [candidate.name for candidate in candidates]
        self.cells = {(row.name, loop): Cell() for row in rows for loop in self.loops}

    def cell(self, row: Row, loop: str) -> Cell:
        """Return one cell."""
        return self.cells[row.name, loop]

    def ratio(self, row: Row, loop: str) -> float | None:
        """Return how many times as fast as the baseline a loop is, if both ran."""
        ratios = self.ratios(row, loop)
        return ratios[0] if ratios else None

    def ratios(self, row: Row, loop: str) -> tuple[float, float] | None:
        """Compare with the baseline twice: round by round, and by the least disturbed rounds."""
        if BASELINE not in self.loops:
            return None
        own, reference = self.cell(row, loop).values, self.cell(row, BASELINE).values
        by_rounds = ratio.of_rounds(own, reference)
        return None if by_rounds is None else (by_rounds, min(reference) / min(own))

    def failed(self) -> list[tuple[str, str, str]]:
        """List row, loop and reason of every error, each reason once per cell."""
        return [
            (row, loop, reason)
            for (row, loop), cell in self.cells.items()
            for reason in dict.fromkeys(cell.errors)
        ]

    def as_data(self) -> list[dict[str, Any]]:
        """Render every row for a JSON file."""
        return [
            {
                "name": row.name,
                "kind": row.kind,
                "unit": row.unit,
                "series": row.series and {"name": row.series.name, "count": row.series.count},
                "cells": {loop: self.cell_as_data(row, loop) for loop in self.loops},
            }
            for row in self.rows
        ]

    def cell_as_data(self, row: Row, loop: str) -> dict[str, Any]:
        """Render one cell for a JSON file."""
        cell = self.cell(row, loop)
        return {
            "median": cell.median,
            "min": min(cell.values, default=None),
            "max": max(cell.values, default=None),
            "p99_us": cell.p99,
            f"ratio_to_{BASELINE}": self.ratio(row, loop),
            "rounds": cell.rounds,
            "errors": cell.errors,
        }
