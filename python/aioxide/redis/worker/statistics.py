"""What a worker counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Statistics:
    """Counters since the worker began; each entry is counted in as many as apply."""

    # Where entries came from: new, left by an earlier process of the same name, claimed from other consumers.
    read: int = 0
    recovered: int = 0
    claimed: int = 0
    # What the handler did with them: calls are counted per entry.
    succeeded: int = 0
    failed: int = 0
    # What became of them in Redis.
    acknowledged: int = 0
    dead_lettered: int = 0
    dropped: int = 0
    released: int = 0
    # Claimed by another consumer while this one had them; deleted from the stream before they were handled.
    lost: int = 0
    trimmed: int = 0
    # Errors of the server or the connection.
    errors: int = 0
