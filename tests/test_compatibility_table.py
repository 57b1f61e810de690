"""docs/compatibility.md is complete and names only tests that exist.

Whoever adds a method to asyncio, or a difference to aioxide, hears of it here.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import aioxide
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
METHODS = sorted(name for name in vars(asyncio.AbstractEventLoop) if not name.startswith("_"))
NAME = re.compile(r"`(\w+)`")


def rows(chapter: str) -> Iterator[list[str]]:
    """Return the cells of each line of a chapter's table, without its head."""
    _, _, text = PAGE.partition(f"\n## {chapter}\n")
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def methods_by_row() -> dict[str, list[str]]:
    return {name: cells for cells in rows("Every method of the loop") for name in NAME.findall(cells[0])}


def existing_tests() -> set[str]:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {
        name for text in sources for name in re.findall(r"^ *(?:async )?def (test_\w+)", text, re.MULTILINE)
    }


def test_every_method_of_a_loop_has_its_row():
    assert methods_by_row().keys() == set(METHODS)


def test_every_row_speaks_of_every_loop():
    for name, cells in methods_by_row().items():
        assert len(cells) == 4, name
        assert all(cells), name
    for cells in (*rows("Behaviour"), *rows("Different on purpose")):
        assert len(cells) == 4, cells
        assert all(cells), cells


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_there_with_every_argument(method):
    ours = getattr(aioxide.EventLoop, method)
    assert ours is not getattr(asyncio.AbstractEventLoop, method), "inherited from the abstract class"
    parameters = inspect.signature(ours).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    asyncios = inspect.signature(getattr(asyncio.SelectorEventLoop, method)).parameters
    assert asyncios.keys() <= {parameter.name for parameter in parameters}


def test_every_difference_names_a_test():
    for what, *_, pinned_by in rows("Different on purpose"):
        assert re.findall(r"`(test_\w+)`", pinned_by), what


def test_every_test_that_is_named_exists():
    named = {name for name in NAME.findall(PAGE) if name.startswith("test_")}
    assert named
    assert named <= existing_tests()
