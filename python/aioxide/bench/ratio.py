"""How many times as fast one loop is as another, by their rounds.

A machine that others use has a slow and a fast pace, and changes between them. The cells of one round follow
each other within seconds and mostly meet the same pace, so each round is compared with itself; the medians of
two loops may well come from different paces.
"""

import statistics
from collections.abc import Sequence
from typing import Any


def of_rounds(own: Sequence[float], reference: Sequence[float]) -> float | None:
    """Return the median of the rounds' ratios of reference to own; `None` where nothing can be compared.

    Where a round failed on one of them, rounds have no partner: then it is the ratio of the medians.
    """
    if not (own and reference and all(own)):
        return None
    if len(own) != len(reference):
        return statistics.median(reference) / statistics.median(own)
    return statistics.median(theirs / ours for ours, theirs in zip(own, reference, strict=True))


def of_cells(own: dict[str, Any] | None, reference: dict[str, Any] | None) -> float | None:
    """Compare two cells of a saved run; one that failed compares with nothing."""
    if not (own and reference) or own["errors"] or reference["errors"]:
        return None
    return of_rounds(*([result["value"] for result in cell["rounds"]] for cell in (own, reference)))
