"""What a handler is given, and the two ways in which it says more than "done" or "failed"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a stream, delivered to this worker."""

    stream: str
    id: str
    fields: Mapping[Any, Any] = field(hash=False)
    # How often it has been delivered, to any worker, this time included: 1 unless something went wrong.
    deliveries: int = 1

    @property
    def timestamp(self) -> float:
        """Return when the entry was added, in seconds since the epoch, as the server's clock had it."""
        return int(self.id.partition("-")[0]) / 1000


class Reject(Exception):
    """Raised by a handler for an event that no retry will mend: it goes to the dead-letter stream at once."""


class EventsFailed(Exception):
    """Raised by a handler of batches of which a part failed: the events that are not named have succeeded."""

    def __init__(self, errors: Mapping[Event, BaseException] | Mapping[str, BaseException]) -> None:
        """Take the errors by event, or by the event's id."""
        self.errors = {key.id if isinstance(key, Event) else key: error for key, error in errors.items()}
        super().__init__(f"{len(self.errors)} events failed: {', '.join(sorted(self.errors))}")
