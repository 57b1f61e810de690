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


def children() -> list[str]:
    """Return the processes of this one that are not yet reaped."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return file.read().split()
