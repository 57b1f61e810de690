"""The loops take turns in a row, and one that fails is out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aioxide.bench import cells, comparison, loops, rows
from aioxide.bench.results import Results

ROW = next(row for row in rows.every_row(full=False) if row.kind == "scheduling")
MEMORY = next(row for row in rows.every_row(full=False) if row.kind == "memory")
SLICES = 3


@pytest.fixture
def effort() -> Any:
    """Three slices; nothing is run."""
    return cells.Effort(
        seconds=0, warm_up=0, slices=SLICES, repetitions=1, clock="wall", load=None, directory=None
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is measured and ended, in order; uvloop fails when it is measured for the second time."""
    told: list[str] = []

    @contextmanager
    def prepared(chosen: loops.Candidate, *_: object) -> Iterator[Callable[[], dict[str, Any]]]:
        def measure() -> dict[str, Any]:
            if chosen.name == "uvloop" and told.count("uvloop") == 1:
                raise cells.CellError("it broke")
            told.append(chosen.name)
            return {"value": 1.0}

        yield measure
        told.append(f"{chosen.name} ends")

    monkeypatch.setattr(cells, "prepared", prepared)
    return told


def test_the_loops_take_turns_and_one_that_fails_is_out(asked: list[str], effort: cells.Effort) -> None:
    turn = [loops.candidate(name) for name in ("asyncio", "uvloop")]
    results = Results([ROW], turn)
    comparison.take_turns(results, ROW, turn, effort)
    assert asked == ["asyncio", "uvloop", "asyncio", "asyncio", "uvloop ends", "asyncio ends"]
    assert len(results.cell(ROW, "asyncio").rounds) == SLICES
    assert results.cell(ROW, "uvloop").errors == ["it broke"]


def test_memory_grows_once(asked: list[str], effort: cells.Effort) -> None:
    turn = [loops.candidate("asyncio")]
    comparison.take_turns(Results([MEMORY], turn), MEMORY, turn, effort)
    assert asked == ["asyncio", "asyncio ends"]
