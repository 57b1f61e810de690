"""Counting the instructions of a process with valgrind's callgrind, which no other work disturbs.

What the kernel does is not counted. Under valgrind all is fifty times slower.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

TIME_LIMIT = 600
"""Seconds for one process."""


def is_installed() -> bool:
    """Tell whether there is anything to count with."""
    return shutil.which("valgrind") is not None


@contextmanager
def counting() -> Iterator[tuple[list[str], Iterable[str]]]:
    """Lend a file: yield how a command line begins that counts into it, and its lines for afterwards."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as counted:
        yield ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counted.name}"], counted


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, where strings hash alike in every process."""
    return dict(os.environ) | {"PYTHONHASHSEED": "0"} | more


def of_process(words: list[str], variables: Mapping[str, str]) -> Counter[str]:
    """Run a program to its end and count it, by library; SystemExit where it fails."""
    with counting() as (valgrind, counted):
        finished = subprocess.run(
            valgrind + words, env=variables, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
        if finished.returncode:
            raise SystemExit(f"{' '.join(words)} cannot be counted:\n{finished.stderr.strip()}")
        return by_library(counted)


def by_library(lines: Iterable[str]) -> Counter[str]:
    """Add up a callgrind file (valgrind's manual, "Callgrind Format Specification") by library."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    library = ""
    is_call = False
    for line in lines:
        if named := re.match(r"c?ob=\((\d+)\)(?: (.*))?", line):
            number, name = named.groups()
            if name is not None:
                names[number] = name
            if line.startswith("ob="):
                library = names[number]
        elif line.startswith("calls="):
            # The line after it says what the call cost, which is counted where it is spent.
            is_call = True
        elif re.match(r"[\d+*-]", line):
            if not is_call:
                counts[library] += int(line.split()[1])
            is_call = False
    return counts
