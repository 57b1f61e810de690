"""Delays that grow and differ, so that many workers do not come back to a server in one wave."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from `first` up to `longest` seconds, each cut by a random part of up to a half."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    def reset(self) -> None:
        """Begin again with the shortest delay."""
        self._failures = 0

    def next(self) -> float:
        """Return the next delay."""
        delay = delay_after(self._failures, self._first, self._longest)
        self._failures += 1
        return delay


def delay_after(failures: int, first: float, longest: float) -> float:
    """Return how long to wait after so many earlier failures."""
    # Beyond 2 ** 60 nothing is shorter than `longest`, and the power would not fit a float for ever.
    return min(first * 2.0 ** min(failures, 60), longest) * random.uniform(0.5, 1)
