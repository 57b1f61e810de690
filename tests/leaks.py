"""What a test may leave behind: open files and child processes of this process, as the kernel counts them."""

from __future__ import annotations

import os


def open_files() -> dict[int, str]:
    """Return what each file descriptor of this process is."""
    files = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            files[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return files


_earlier_children: set[str] = set()


def children() -> list[str]:
    """Return the processes of this one that the present test started and that are not yet reaped."""
    return [child for child in _all_children() if child not in _earlier_children]


def forget_earlier_children() -> None:
    """Count from now on: servers of other tests may live as long as this process."""
    _earlier_children.clear()
    _earlier_children.update(_all_children())


def _all_children() -> list[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()
