#!/usr/bin/env python3
"""Download 1,000 pages from a server that takes 50 ms to answer each of them.

One after another, 1,000 pages take 1,000 times the wait. Together, the waits overlap, and what remains is the
work of the loop. What fails for a moment is tried again, each time after a longer pause; what fails for good
is listed, and the other pages still arrive. Pages and a report end up in the output folder, where they are
read back and verified.

Without --url the pages come from pages.py, started for this run on the same kind of loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import loops
import pages
from report import Report, Stopwatch, progress

ATTEMPTS = 4
FIRST_PAUSE = 0.05
PATIENCE = aiohttp.ClientTimeout(total=30)


class PageError(Exception):
    """A page that will not come, however often it is asked for."""


class TryAgain(Exception):
    """A page that may come next time."""


@dataclass(frozen=True)
class Page:
    """What became of one page."""

    number: int
    attempts: int
    digest: str = ""
    error: str = ""


async def request(session: aiohttp.ClientSession, number: int) -> tuple[bytes, str]:
    """Ask once; return the body and its promised digest."""
    try:
        async with session.get(f"/page/{number}") as response:
            if response.status >= 500 or response.status == 429:
                raise TryAgain(f"{response.status} {response.reason}")
            if response.status != 200:
                raise PageError(f"{response.status} {response.reason}")
            return await response.read(), response.headers.get("Content-Digest", "")
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
        raise TryAgain(str(error) or type(error).__name__) from error


async def download(session: aiohttp.ClientSession, number: int, folder: Path) -> Page:
    """Ask until the page is on disk or there is no hope; never raise for a page."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            body, digest = await request(session, number)
        except PageError as error:
            return Page(number, attempt, error=str(error))
        except TryAgain as error:
            if attempt == ATTEMPTS:
                return Page(number, attempt, error=str(error))
            # The random part keeps many clients from coming back in step.
            await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
        else:
            await asyncio.to_thread(file_of(folder, number).write_bytes, body)
            return Page(number, attempt, digest=digest)
    raise AssertionError("the last attempt returns")


async def download_all(
    url: str, numbers: Iterable[int], folder: Path, concurrency: int, advance: Callable[[int], None]
) -> list[Page]:
    """Download every page, at most `concurrency` at once, and return them in the order asked for."""
    places = asyncio.Semaphore(concurrency)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(url, connector=connector, timeout=PATIENCE) as session:

        async def one(number: int) -> Page:
            async with places:
                page = await download(session, number, folder)
            advance(1)
            return page

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in numbers]
    return [task.result() for task in tasks]


def file_of(folder: Path, number: int) -> Path:
    """Name the file of a page."""
    return folder / f"page-{number:05}.html"


def verify(results: list[Page], folder: Path, report: Report, is_our_server: bool) -> None:
    """Read everything back from the disk and compare it with what the server promised."""
    for page in results:
        if not page.error:
            body = file_of(folder, page.number).read_bytes()
            # Other servers need not send a digest; ours does.
            if page.digest or is_our_server:
                is_right = pages.content_digest(body) == page.digest
                report.check(is_right, f"page {page.number} on disk is not what the server sent")
        if is_our_server:
            # Only our own server is known to have or not to have a page.
            missing = pages.is_missing(page.number)
            report.check(
                missing == bool(page.error), f"page {page.number}: {page.error or 'came, but does not exist'}"
            )


@asynccontextmanager
async def own_server(loop: str) -> AsyncIterator[str]:
    """Run pages.py for as long as the block runs and yield its address."""
    script = Path(pages.__file__)
    # A session of its own: Ctrl-C is for this program, which then closes the server's standard input.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, script, "--loop", loop, "--until-input-ends"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise loops.ProgramError(f"{script.name} ended with code {await process.wait()} before it served")
        yield url
    finally:
        process.stdin.close()
        await process.wait()


async def run(options: argparse.Namespace, report: Report) -> None:
    """Download a few pages one by one, then all of them together."""
    folder: Path = options.output
    async with nullcontext(options.url) if options.url else own_server(options.loop) as url:
        few = range(min(options.sequential, options.pages))
        if few:
            with progress("one page at a time", len(few)) as advance, Stopwatch() as alone:
                results = await download_all(url, few, folder, 1, advance)
            verify(results, folder, report, is_our_server=not options.url)
        with (
            progress(f"{options.concurrency} pages at a time", options.pages) as advance,
            Stopwatch() as together,
        ):
            results = await download_all(url, range(options.pages), folder, options.concurrency, advance)
    verify(results, folder, report, is_our_server=not options.url)
    report.check(len(results) == options.pages, f"{len(results)} results for {options.pages} pages")
    summary = folder / "report.json"
    summary.write_text(json.dumps([asdict(page) for page in results], indent=2) + "\n", encoding="utf-8")
    failed = [page for page in results if page.error]
    again = sum(page.attempts > 1 and not page.error for page in results)
    print(f"  {options.pages - len(failed)} pages are on disk, {again} of them after more than one attempt")
    for page in failed:
        print(f"  page {page.number} failed: {page.error}")
    if few:
        report.milliseconds("one at a time, per page", alone.seconds / len(few))
    report.milliseconds(f"{options.concurrency} at a time, per page", together.seconds / options.pages)
    report.seconds(f"{options.concurrency} at a time, all {options.pages:,}", together.seconds)


def main() -> int:
    """Read the options and download."""
    parser = loops.option_parser(__doc__)
    parser.add_argument(
        "--pages", type=loops.positive, default=1000, metavar="N", help="how many (%(default)s)"
    )
    parser.add_argument(
        "--concurrency", type=loops.positive, default=100, metavar="N", help="at once (%(default)s)"
    )
    parser.add_argument(
        "--sequential",
        type=int,
        default=20,
        metavar="N",
        help="pages to download one by one first, for comparison (%(default)s; 1000 takes about a minute)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where pages go (default: a temporary folder)"
    )
    parser.add_argument("--url", help="a server that is running already")
    options = parser.parse_args()
    with nullcontext(options.output) if options.output else tempfile.TemporaryDirectory() as folder:
        options.output = Path(folder)
        options.output.mkdir(parents=True, exist_ok=True)
        return loops.run(run, options, "download")


if __name__ == "__main__":
    sys.exit(main())
