"""Names of consumers that no other process of this machine has, and that come back after a restart.

A slot is a number, locked by a file in the directory for temporary files. The lock belongs to whoever has the
file open: the supervisor and, by inheritance, the slot's process. So a slot is free when both are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Slot:
    """A number that is ours."""

    number: int
    lock: int


@contextlib.contextmanager
def locked_slots(purpose: str, count: int) -> Iterator[list[Slot]]:
    """Lock the lowest numbers that are free; `purpose` tells apart what may have the same numbers."""
    digest = hashlib.sha256(purpose.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir())
    slots: list[Slot] = []
    try:
        for number in itertools.count():
            lock = _lock(folder / f"aioxide-worker-{digest}-{number}.lock")
            if lock is not None:
                slots.append(Slot(number, lock))
            if len(slots) == count:
                break
        yield slots
    finally:
        for slot in slots:
            os.close(slot.lock)


def _lock(path: Path) -> int | None:
    """Lock a file without waiting; return its descriptor, or None when another process has the lock."""
    # flock(2) asks for no right to write, so another user's file will do.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
