"""`python -m aioxide bench`: a tiny run, what it prints, and the page it writes."""

import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest
from aioxide.bench import chart, page, rows

TINY = ("--quick", "--rounds", "1", "--seconds", "0.05")
LOOPS = ("asyncio", "aioxide[epoll]")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "aioxide", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], str]:
    """Run it once; give the drawing, the data and the page."""
    folder = tmp_path_factory.mktemp("bench")
    files = ("--json", str(folder / "run.json"), "--html", str(folder / "run.html"))
    done = bench(*TINY, "--loops", ",".join(LOOPS), *files)
    assert done.returncode == 0, done.stderr
    data = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return done.stdout, data, (folder / "run.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Count elements, and see that each one that must be closed is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        if tag in ("section", "article", "div", "svg", "figure", "table", "ul"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("section", "article", "div", "svg", "figure", "table", "ul"):
            assert self.open.pop() == tag


def test_every_row_is_measured_on_every_loop(finished: tuple[str, dict[str, Any], str]) -> None:
    _, data, _ = finished
    assert [row["name"] for row in data["rows"]] == [row.name for row in rows.portable(quick=True)]
    for row in data["rows"]:
        for loop in LOOPS:
            assert row["cells"][loop]["errors"] == []
            assert row["cells"][loop]["median"] > 0


def test_the_terminal_shows_a_bar_for_every_cell(finished: tuple[str, dict[str, Any], str]) -> None:
    drawing, data, _ = finished
    bars = re.findall(r"^  \S+ +[\d.]+ +[\d.]+x  [█▏▎▍▌▋▊▉]+$", drawing, re.MULTILINE)
    assert len(bars) == len(LOOPS) * len(data["rows"])
    assert "times as fast as asyncio" in drawing


def test_the_page_is_whole_and_needs_nothing_else(finished: tuple[str, dict[str, Any], str]) -> None:
    _, data, text = finished
    elements = Elements(text)
    assert elements.open == []
    assert elements.counts["article"] == len(data["rows"])
    assert elements.counts["svg"] == 1, "the rows with one and with 64 connections make a plot"
    assert elements.counts["script"] == elements.counts["link"] == elements.counts["img"] == 0
    assert "://" not in text


def test_names_cannot_break_the_page(finished: tuple[str, dict[str, Any], str]) -> None:
    _, data, _ = finished
    changed = json.loads(json.dumps(data).replace("aioxide[epoll]", "<script>"))
    assert Elements(page.render(changed)).counts["script"] == 0


def test_a_row_that_failed_says_so(finished: tuple[str, dict[str, Any], str]) -> None:
    _, data, _ = finished
    changed = json.loads(json.dumps(data))
    changed["rows"][0]["cells"]["aioxide[epoll]"] |= {"errors": ["no luck"], "median": None}
    assert "failed: no luck" in "\n".join(chart.draw(changed, colour=False))
    assert "failed" in page.render(changed)


def test_a_loop_that_is_not_there_is_an_error_only_if_it_was_asked_for() -> None:
    done = bench(*TINY, "--loops", "tachyon")
    assert done.returncode != 0
    assert "unknown loop 'tachyon'" in done.stderr
