"""A run as one self-contained page: bars for each row, lines where something grows. No script, no network.

Colours belong to loops, not to ranks, and are told apart by people who see red and green alike; every
bar and line also bears its name.
"""

import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .chart import compared, reference
from .report import number

COLOURS = {
    "asyncio": "#8d99a6",
    "uvloop": "#3b7dd8",
    "uvloop+aiofastnet": "#7fb2f0",
    "rloop": "#2a9d8f",
    "rsloop": "#8aa62b",
    "zuvloop": "#8e6bbf",
    "aioxide[uring]": "#d9480f",
    "aioxide[epoll]": "#f4a261",
    "aioxide[uring]+native": "#9b2226",
    "bare[uring]": "#5c5c66",
    "bare[epoll]": "#a5a5ad",
}
STYLE = Path(__file__).with_name("page.css")
SECTIONS = {
    "ns/op": ("Scheduling", "Callbacks, timers and tasks inside one process: time per operation."),
    "us CPU/msg": (
        "Servers",
        "CPU time that a server spends on each message it echoes, measured from outside.",
    ),
    "us CPU/connection": ("Connections and the web", "CPU time per connection or request."),
    "us CPU/request": ("Connections and the web", ""),
    "us CPU/op": ("Connections and the web", ""),
    "us/op": ("Processes", "Starting a program and waiting for its end."),
    "KiB/connection": ("Memory", "What an idle connection costs the server."),
}
SERIES = {
    "connections": ("Connections", "CPU per echo of 1 KiB", "us"),
    "timers": ("Timers", "time per timer, so many alive", "ns"),
    "tasks": ("Tasks", "time per task, so many alive", "ns"),
}
PLOTTED_ONLY = ("timers", "tasks")
"""Series whose rows have no bars: the plot says it all."""
PLOT_WIDTH, PLOT_HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 34


def render(data: dict[str, Any]) -> str:
    """Render a run that `comparison.as_data` describes."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>aioxide bench</title>",
            f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main>",
            *header(data),
            *plots(data),
            *sections(data),
            *numbers(data),
            "</main></body></html>",
        ]
    )


def escaped(value: object) -> str:
    """Make text safe inside an element or an attribute."""
    return html.escape(str(value))


def colour(loop: str) -> str:
    """Return a loop's colour."""
    return COLOURS.get(loop, "#777777")


def header(data: dict[str, Any]) -> Iterator[str]:
    """Say what was compared, where, and how it ended."""
    about, against = data["machine"], reference(data)
    yield "<header><h1>aioxide <span>bench</span></h1>"
    where = f"{about['processor']}, {about['cores']} cores · {about['system']} · {about['python']}"
    yield f"<p class=where>{escaped(where)} · {escaped(data['when'])}</p>"
    yield "<ul class=loops>"
    for loop in data["loops"]:
        if loop["available"] and any(took_part(row, loop["name"]) for row in data["rows"]):
            label = escaped(loop["name"])
            label += f" <small>{escaped(loop['version'])}, {escaped(loop['driver'])}</small>"
            yield f'<li><i style="background:{colour(loop["name"])}"></i>{label}</li>'
    yield "</ul>"
    missing = [f"{loop['name']} ({loop['reason']})" for loop in data["loops"] if not loop["available"]]
    if missing:
        yield f"<p class=where>Not measured: {escaped('; '.join(missing))}</p>"
    yield "<div class=sums>"
    for loop in data["loops"]:
        timed = [row for row in data["rows"] if row["kind"] != "memory"]
        ratios = [found for row in timed if (found := ratio(row, loop["name"], against)) is not None]
        if ratios and loop["name"] != against and not loop["name"].startswith("bare"):
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            yield (
                f'<div class=sum style="border-left-color:{colour(loop["name"])}"><b>{mean:.2f}&times;</b>'
                f"<span>{escaped(loop['name'])}</span>"
                f"<small>as fast as {escaped(against)}, geometric mean of {len(ratios)} rows</small></div>"
            )
    yield "</div></header>"


def took_part(row: dict[str, Any], loop: str) -> bool:
    """Tell whether a loop was measured in a row, or failed in it."""
    cell = row["cells"].get(loop)
    return bool(cell) and (cell["median"] is not None or bool(cell["errors"]))


def ratio(row: dict[str, Any], loop: str, against: str) -> float | None:
    """Return how many times as fast as `against` a loop is in a row."""
    return next((found for name, _, found in compared(row, against) if name == loop), None)


def sections(data: dict[str, Any]) -> Iterator[str]:
    """Yield the bars, in sections by what is measured."""
    against = reference(data)
    title = ""
    for row in data["rows"]:
        if row["series"] and row["series"]["name"] in PLOTTED_ONLY:
            continue
        name, text = SECTIONS.get(row["unit"], (row["unit"], ""))
        if name != title:
            yield from ["</div></section>"] if title else []
            title = name
            yield f"<section><h2>{escaped(name)}</h2><p class=lead>{escaped(text)} Shorter is better.</p>"
            yield "<div class=cards>"
        yield from card(row, against)
    if title:
        yield "</div></section>"


def card(row: dict[str, Any], against: str) -> Iterator[str]:
    """Yield one row's bars."""
    entries = list(compared(row, against))
    longest = max((cell["median"] for _, cell, _ in entries if cell["median"] is not None), default=1)
    yield f"<article><h3>{escaped(row['name'])}<small>{escaped(row['unit'])}</small></h3>"
    for loop, cell, times in entries:
        if cell["errors"]:
            yield f"<div class=bar><span>{escaped(loop)}</span><em>failed</em></div>"
            continue
        share = max(0.5, 100 * cell["median"] / longest)
        spread = f"{number(cell['min'])} to {number(cell['max'])} in {len(cell['rounds'])} rounds"
        told = f"{times:.2f}&times;" if times is not None and loop != against else ""
        ours = " ours" if loop.startswith("aioxide") else ""
        yield (
            f'<div class="bar{ours}" title="{escaped(spread)}"><span>{escaped(loop)}</span>'
            f'<u><i style="width:{share:.1f}%;background:{colour(loop)}"></i></u>'
            f"<b>{number(cell['median'])}</b><s>{told}</s></div>"
        )
    yield "</article>"


def plots(data: dict[str, Any]) -> Iterator[str]:
    """Yield a plot for each series of which there are at least two rows."""
    drawn = []
    for name, (title, text, unit) in SERIES.items():
        rows = [row for row in data["rows"] if row["series"] and row["series"]["name"] == name]
        if len(rows) > 1:
            drawn.append(
                f"<figure><figcaption>{title}<small>{text}, {unit}</small></figcaption>"
                f"{''.join(plot(rows))}</figure>"
            )
    if drawn:
        yield "<section><h2>How cost grows</h2>"
        yield "<p class=lead>Lower and flatter is better; both axes are logarithmic.</p>"
        yield f"<div class=plots>{''.join(drawn)}</div></section>"


def plot(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Draw the lines of one series."""
    counts = [row["series"]["count"] for row in rows]
    lines = {
        loop: [
            (row["series"]["count"], row["cells"][loop]["median"])
            for row in rows
            if row["cells"][loop]["median"] is not None
        ]
        for loop in rows[0]["cells"]
    }
    values = [value for points in lines.values() for _, value in points]
    if not values:
        return
    low, high = nice(min(values), down=True), nice(max(values), down=False)

    def across(count: float) -> float:
        return scaled(count, min(counts), max(counts), LEFT, PLOT_WIDTH - RIGHT)

    def up(value: float) -> float:
        return scaled(value, low, high, PLOT_HEIGHT - BOTTOM, TOP)

    yield f'<svg viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img">'
    for tick in ticks(low, high):
        height = f"{up(tick):.1f}"
        yield f'<line class=grid x1="{LEFT}" x2="{PLOT_WIDTH - RIGHT}" y1="{height}" y2="{height}"/>'
        yield f'<text class=tick x="{LEFT - 8}" y="{up(tick) + 4:.1f}" text-anchor="end">{short(tick)}</text>'
    for count in counts:
        yield (
            f'<text class=tick x="{across(count):.1f}" y="{PLOT_HEIGHT - 12}" text-anchor="middle">'
            f"{short(count)}</text>"
        )
    for loop, points in lines.items():
        if points:
            path = " ".join(f"{across(count):.1f},{up(value):.1f}" for count, value in points)
            width = 2.6 if loop.startswith("aioxide") else 1.8
            yield f'<polyline points="{path}" fill="none" stroke="{colour(loop)}" stroke-width="{width}"/>'
            for count, value in points:
                told = f"{loop}: {number(value)} with {count:,}"
                yield (
                    f'<circle cx="{across(count):.1f}" cy="{up(value):.1f}" r="3.4" fill="{colour(loop)}">'
                    f"<title>{escaped(told)}</title></circle>"
                )
    yield "</svg>"


def scaled(value: float, low: float, high: float, start: float, end: float) -> float:
    """Place a value between two ends, logarithmically."""
    if high == low:
        return (start + end) / 2
    return start + (end - start) * (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def nice(value: float, *, down: bool) -> float:
    """Round to 1, 2 or 5 times a power of ten, away from the data."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = [step * power for step in (1, 2, 5, 10)]
    return max(s for s in steps if s <= value) if down else min(s for s in steps if s >= value)


def ticks(low: float, high: float) -> Sequence[float]:
    """List 1, 2 and 5 times the powers of ten from low to high; only the powers if that is many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 4 else (1,)
    found = [step * 10.0**power for power in powers for step in steps]
    return [tick for tick in found if low * 0.999 <= tick <= high * 1.001]


def short(value: float) -> str:
    """Show a number as 10k or 1M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def numbers(data: dict[str, Any]) -> Iterator[str]:
    """Yield every number in a table, folded away, and where it comes from."""
    loops = [loop["name"] for loop in data["loops"] if loop["available"]]
    yield "<section><details><summary>Every number</summary><div class=wide><table><thead><tr><th>row<th>unit"
    yield "".join(f"<th>{escaped(loop)}" for loop in loops) + "</tr></thead><tbody>"
    for row in data["rows"]:
        yield f"<tr><td>{escaped(row['name'])}<td>{escaped(row['unit'])}"
        for loop in loops:
            cell = row["cells"].get(loop)
            if cell and cell["errors"]:
                yield f'<td title="{escaped(cell["errors"][0])}">failed'
            elif cell and cell["median"] is not None:
                tail = f" <small>p99 {number(cell['p99_us'])}</small>" if cell["p99_us"] else ""
                spread = f"{number(cell['min'])} to {number(cell['max'])}"
                yield f'<td title="{spread}">{number(cell["median"])}{tail}'
            else:
                yield "<td>"
        yield "</tr>"
    yield "</tbody></table></div></details>"
    yield (
        f"<p class=where>Made with <code>{escaped(data['settings']['command'])}</code>. Medians of rounds in "
        "which every loop ran every row once, in a process of its own. Compare within one page only: "
        "machines differ more than loops do.</p></section>"
    )
