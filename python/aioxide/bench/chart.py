"""A run drawn in the terminal: a block of bars for each row. Shorter is better everywhere."""

from collections.abc import Iterator
from typing import Any

from . import ratio
from .report import heading, number

WIDTH = 40
"""Characters of the longest bar."""
EIGHTHS = " ▏▎▍▌▋▊▉"
OURS, STRONG, RESET = "\x1b[38;5;208m", "\x1b[1m", "\x1b[0m"


def reference(data: dict[str, Any]) -> str:
    """Choose the loop that ratios refer to: the usual one, or the first that was measured."""
    measured: list[str] = [loop["name"] for loop in data["loops"] if loop["available"]]
    usual = str(data["baseline"])
    return usual if usual in measured else measured[0]


def compared(row: dict[str, Any], against: str) -> Iterator[tuple[str, dict[str, Any], float | None]]:
    """Yield the loops that took part in a row, and how many times as fast as `against` they are."""
    base = row["cells"].get(against)
    for loop, cell in row["cells"].items():
        if cell["errors"] or cell["median"] is not None:
            yield loop, cell, ratio.of_cells(cell, base)


def draw(data: dict[str, Any], *, colour: bool) -> Iterator[str]:
    """Yield the lines of the whole drawing."""
    paint = (
        {"ours": OURS, "strong": STRONG, "end": RESET}
        if colour
        else dict.fromkeys(("ours", "strong", "end"), "")
    )
    yield from heading(data["loops"], data["machine"])
    against = reference(data)
    yield f"Shorter is better; ratios: times as fast as {against}."
    for row in data["rows"]:
        yield ""
        yield f"{paint['strong']}{row['name']}{paint['end']}  {row['unit']}"
        entries = list(compared(row, against))
        longest = max((cell["median"] for _, cell, _ in entries if cell["median"] is not None), default=0)
        for loop, cell, times_as_fast in entries:
            if cell["errors"]:
                yield f"  {loop:<21} failed: {cell['errors'][0]}"
                continue
            times = f"{times_as_fast:5.2f}x" if times_as_fast is not None else ""
            painted = paint["ours"] if loop.startswith("aioxide") else ""
            drawn = f"{painted}{bar(cell['median'] / longest)}{paint['end'] if painted else ''}"
            yield f"  {loop:<21} {number(cell['median']):>8} {times:>7}  {drawn}"
    yield ""


def bar(share: float) -> str:
    """Draw a bar of a share of the width, to an eighth of a character."""
    eighths = max(1, round(share * WIDTH * 8))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
