"""What a program shows and concludes: a progress bar, its figures, and whether its own results were right.

A bar moves only on a terminal; a pipe or a file gets one plain line when the work is done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text


@dataclass(frozen=True)
class Figure:
    """One measured number; `better` says which way is the good one."""

    name: str
    value: float
    unit: str
    better: str = "lower"

    def text(self) -> str:
        """Write the number with as many digits as mean something."""
        digits = 0 if self.value >= 100 else 1 if self.value >= 10 else 2
        return f"{self.value:,.{digits}f} {self.unit}"


@dataclass
class Report:
    """The figures of one run and everything that was wrong with its results."""

    program: str
    loop: str = ""
    figures: list[Figure] = field(default_factory=list)
    checks: int = 0
    problems: list[str] = field(default_factory=list)

    def rate(self, name: str, amount: int, seconds: float, unit: str) -> None:
        """Record how many units were done each second."""
        self.figures.append(Figure(name, amount / seconds, f"{unit}/s", better="higher"))

    def seconds(self, name: str, seconds: float) -> None:
        """Record a duration."""
        self.figures.append(Figure(name, seconds, "s"))

    def milliseconds(self, name: str, seconds: float) -> None:
        """Record a short duration."""
        self.figures.append(Figure(name, seconds * 1000, "ms"))

    def check(self, is_right: bool, problem: str) -> None:
        """Count one verified result; remember the problem if it was wrong."""
        self.checks += 1
        if not is_right:
            self.problems.append(problem)

    def save(self, path: Path) -> None:
        """Write everything as JSON, for `run_all.py` and other readers."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def show(self) -> None:
        """Print the figures and the conclusion."""
        console = Console(highlight=False)
        width = max((len(figure.name) for figure in self.figures), default=0)
        for figure in self.figures:
            console.print(Text(f"  {figure.name:<{width}}  {figure.text():>18}"), soft_wrap=True)
        for problem in self.problems:
            console.print(Text(f"  wrong: {problem}", style="bold red"), soft_wrap=True)
        if not self.problems:
            console.print(
                Text(f"  correct: {self.checks} checks passed on {self.loop}", style="green"), soft_wrap=True
            )


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar for `total` steps; the block is given the function that advances it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        started = time.perf_counter()
        yield lambda steps: None
        print(f"  {description}: {total:,} in {time.perf_counter() - started:.2f} s", flush=True)
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps: bar.advance(task, steps)


class Stopwatch:
    """Measure how long a block took: `with Stopwatch() as watch: ...`, then `watch.seconds`."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
