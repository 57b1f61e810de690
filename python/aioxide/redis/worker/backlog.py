"""Entries that are this consumer's in Redis and wait here, by their ids only, for their next delivery.

Two kinds: what a handler failed on, until its retry is due, and what was found pending (left by an earlier
process of this name, or taken over from another consumer), due at once. Redis has the fields, and counts.

# Invariants
- At most `LIMIT` entries. What does not fit stays pending in Redis, where it is found by its idle time.
- An entry in here is not held: whoever claims it meanwhile may have it.
- `_ids` tells what is in here; what is in a line without being there has been discarded.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

LIMIT = 10_000


@dataclass(slots=True, order=True)
class Waiting:
    """One entry, known by its id."""

    due: float
    id: str
    deliveries: int = field(compare=False)
    # When Redis last began to count its idle time.
    touched: float = field(compare=False)
    # Why the handler failed; None for an entry that was found pending, of which nobody knows what became.
    reason: str | None = field(compare=False, default=None)

    @property
    def is_suspect(self) -> bool:
        """Tell whether its earlier deliveries ended processes, for all we know."""
        return self.reason is None and self.deliveries > 1


class Backlog:
    """The waiting entries, by the time they are due; suspects in a line of their own."""

    def __init__(self) -> None:
        self._by_time: list[Waiting] = []
        self._suspects: deque[Waiting] = deque()
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, id: str) -> bool:
        return id in self._ids

    def add(self, waiting: Waiting) -> bool:
        """Keep an entry; tell whether there was room for it."""
        if waiting.id in self._ids or len(self._ids) >= LIMIT:
            return False
        self._ids.add(waiting.id)
        if waiting.is_suspect:
            self._suspects.append(waiting)
        else:
            heapq.heappush(self._by_time, waiting)
        return True

    def discard(self, id: str) -> None:
        """Give up an entry that came in by another way."""
        self._ids.discard(id)

    def next_due(self) -> float | None:
        """Return when the first entry that is no suspect is due."""
        while self._by_time and self._by_time[0].id not in self._ids:
            heapq.heappop(self._by_time)
        return self._by_time[0].due if self._by_time else None

    def take_due(self, now: float, room: int) -> list[Waiting]:
        """Take up to `room` entries that are due and no suspects."""
        taken: list[Waiting] = []
        while len(taken) < room and (due := self.next_due()) is not None and due <= now:
            taken.append(heapq.heappop(self._by_time))
            self._ids.discard(taken[-1].id)
        return taken

    def take_suspect(self) -> list[Waiting]:
        """Take one suspect, or none."""
        while self._suspects:
            suspect = self._suspects.popleft()
            if suspect.id in self._ids:
                self._ids.discard(suspect.id)
                return [suspect]
        return []

    def clear(self) -> list[Waiting]:
        """Give up all entries."""
        everything = [waiting for waiting in (*self._by_time, *self._suspects) if waiting.id in self._ids]
        self._by_time.clear()
        self._suspects.clear()
        self._ids.clear()
        return everything
