"""Write RESULTS.md from saved runs: what was to be reached (targets.toml), and what was.

    python benchmarks/write_results.py [FILE...]

Without files, every `RESULTS-3*.json` beside this script; one run per Python version. A target whose row or
loop was not measured stays in the table as such. Nothing here is decided by hand but the notes.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aioxide.bench import ratio
from aioxide.bench.report import number

HERE = Path(__file__).parent
PAGE = HERE / "RESULTS.md"
TARGETS = HERE / "targets.toml"
MAIN, OTHER = "aioxide[uring]", "aioxide[epoll]"


@dataclass(frozen=True)
class Claim:
    """One loop is to be `wanted` times as fast as another in a row."""

    row: str
    candidate: str
    reference: str
    wanted: float
    note: str


@dataclass(frozen=True)
class Verdict:
    """What became of a claim; `ratio` is `None` where it was not measured."""

    claim: Claim
    own: dict[str, Any] | None
    other: dict[str, Any] | None

    @property
    def ratio(self) -> float | None:
        """Compare round by round."""
        return ratio.of_cells(self.own, self.other)

    @property
    def is_reached(self) -> bool:
        """Compare with what is wanted, as exactly as the table shows it."""
        return self.ratio is not None and round(self.ratio, 2) >= self.claim.wanted


def claims(run: dict[str, Any]) -> list[Claim]:
    """Read the targets as they apply to a run: zuvloop's where it was measured."""
    measured = {loop["name"] for loop in run["loops"] if loop["available"]}
    rival, suffix = ("zuvloop", "zuvloop") if "zuvloop" in measured else ("uvloop", "uvloop")
    epoll = "epoll" if suffix == "uvloop" else "epoll_zuvloop"
    found = []
    for target in tomllib.loads(TARGETS.read_text(encoding="utf-8"))["target"]:
        own = target.get("candidate", MAIN)
        for key, candidate, reference in (
            (suffix, own, rival),
            (epoll, OTHER, rival),
            ("aiofastnet", own, "uvloop+aiofastnet"),
            ("bare", own, "bare[uring]"),
        ):
            if key in target:
                found.append(Claim(target["row"], candidate, reference, target[key], target.get("note", "")))
    return found


def verdicts(run: dict[str, Any]) -> list[Verdict]:
    """Look every claim up in a run."""
    cells = {row["name"]: row["cells"] for row in run["rows"]}
    return [
        Verdict(claim, *(cells.get(claim.row, {}).get(loop) for loop in (claim.candidate, claim.reference)))
        for claim in claims(run)
    ]


def page(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the page line by line."""
    yield "# Results"
    yield ""
    yield "Written by `write_results.py` from the `RESULTS-*.json` beside it; the [README](README.md) says"
    yield "how it is measured. Ratios are times as fast (memory: times as little): more is better everywhere."
    yield "Measured is the median of the rounds, and the ratio is the median of the rounds' ratios: on a"
    yield "machine that changes its pace it need not be that of the two medians beside it."
    for run in runs:
        judged = verdicts(run)
        yield ""
        yield f"## {run['machine']['python']}"
        yield ""
        yield from circumstances(run)
        yield ""
        reached = sum(verdict.is_reached for verdict in judged)
        yield f"**{reached} of {len(judged)} targets reached.**"
        yield ""
        yield from target_table(judged)
        yield from notes(judged)
        yield ""
        yield "### Every row"
        yield ""
        yield from every_row(run)


def circumstances(run: dict[str, Any]) -> Iterator[str]:
    """Say where, when and with what."""
    about, settings = run["machine"], run["settings"]
    loads = ", ".join(f"{load:.1f}" for load in about["load_average_before"])
    yield f"- {about['processor']}, {about['cores']} cores, {about['system']}; load average before: {loads}"
    versions = [f"{loop['name']} {loop['version']}" for loop in run["loops"] if loop["available"]]
    yield f"- {', '.join(versions)}"
    missing = [f"{loop['name']} ({loop['reason']})" for loop in run["loops"] if not loop["available"]]
    if missing:
        yield f"- not measured: {'; '.join(missing)}"
    yield f"- measured at {run['when']}: `{settings['command']}`; scheduling rows by {settings['clock']} time"
    if not run["complete"]:
        yield "- **interrupted**: some rounds are missing"


def target_table(judged: list[Verdict]) -> Iterator[str]:
    """Yield one line per claim."""
    yield "| row | loop | against | measured | ratio | target | | p99, us |"
    yield "|---|---|---|---|---|---|---|---|"
    for verdict in judged:
        claim, times = verdict.claim, verdict.ratio
        shown = (
            (f"{value(verdict.own)} : {value(verdict.other)}", f"{times:.2f}")
            if times is not None
            else ("not measured", "")
        )
        words = "reached" if verdict.is_reached else "**not reached**" if times is not None else "**open**"
        columns = [claim.row, claim.candidate, claim.reference, *shown, f"≥ {claim.wanted:g}", words]
        yield f"| {' | '.join([*columns, latencies(verdict)])} |"


def value(cell: dict[str, Any] | None) -> str:
    """Show a median."""
    return number(cell["median"]) if cell and cell["median"] is not None else "-"


def latencies(verdict: Verdict) -> str:
    """Show both 99th percentiles where there are any."""
    both = [cell["p99_us"] for cell in (verdict.own, verdict.other) if cell and cell.get("p99_us")]
    return " : ".join(map(number, both)) if len(both) == 2 else ""


def notes(judged: list[Verdict]) -> Iterator[str]:
    """Say what was tried where a target is not reached."""
    texts = {(v.claim.row, v.claim.note): None for v in judged if v.claim.note and not v.is_reached}
    if texts:
        yield ""
        yield from (f"- **{row}**: {note}" for row, note in texts)


def every_row(run: dict[str, Any]) -> Iterator[str]:
    """Yield the median of every row on every loop."""
    loops = [loop["name"] for loop in run["loops"] if loop["available"]]
    yield f"| row | unit | {' | '.join(loops)} |"
    yield f"|---|---|{'---|' * len(loops)}"
    for row in run["rows"]:
        cells = [row["cells"].get(loop) or {"median": None, "errors": []} for loop in loops]
        shown = ["failed" if cell["errors"] else value(cell) for cell in cells]
        yield f"| {row['name']} | {row['unit']} | {' | '.join(shown)} |"


def main(arguments: list[str]) -> None:
    """Read the runs, write the page."""
    paths = [Path(argument) for argument in arguments] or sorted(HERE.glob("RESULTS-3*.json"))
    if not paths:
        raise SystemExit("no saved runs: make bench BENCH_FLAGS='--json benchmarks/RESULTS-3.13.json'")
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    PAGE.write_text("\n".join(page(runs)) + "\n", encoding="utf-8")
    print(f"{PAGE}: {sum(len(verdicts(run)) for run in runs)} targets from {len(runs)} runs")


if __name__ == "__main__":
    main(sys.argv[1:])
