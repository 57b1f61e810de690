#!/usr/bin/env python3
"""Serve numbered pages, slowly and not quite reliably: the other side of download.py.

Every answer comes 50 ms late. Some pages are missing for good (404), some are busy the first time (503), and
for some the connection breaks off the first time. Each page says in its Content-Digest header what its body
must be.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import sys
from collections import Counter

import loops
from aiohttp import web
from report import Report

HOST = "127.0.0.1"


def is_missing(number: int) -> bool:
    """Say whether a page does not exist."""
    return number % 250 == 249


def page(number: int) -> bytes:
    """Write a page."""
    lines = "".join(f"<p>Line {line} of page {number}.</p>\n" for line in range(50))
    return f"<!doctype html>\n<title>Page {number}</title>\n{lines}".encode()


def content_digest(body: bytes) -> str:
    """Describe a body as the header of RFC 9530 does."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


class Pages:
    """The handler of all pages; remembers how often each one was asked for."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.requests: Counter[int] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        """Wait, then answer, refuse, or break off, always the same way for the same page."""
        number = int(request.match_info["number"])
        self.requests[number] += 1
        await asyncio.sleep(self.delay)
        if is_missing(number):
            raise web.HTTPNotFound(text=f"There is no page {number}.")
        is_first_time = self.requests[number] % 2 == 1
        if number % 100 == 42 and is_first_time:
            raise web.HTTPServiceUnavailable(text="Busy, try again.")
        if number % 200 == 77 and is_first_time and request.transport is not None:
            request.transport.abort()
        body = page(number)
        return web.Response(
            body=body, content_type="text/html", headers={"Content-Digest": content_digest(body)}
        )


async def serve(options: argparse.Namespace, report: Report) -> None:
    """Serve until Ctrl-C, or until standard input ends if it was asked for."""
    application = web.Application()
    application.router.add_get(r"/page/{number:\d+}", Pages(options.delay).answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, options.port).start()
        port = runner.addresses[0][1]
        print(f"http://{HOST}:{port}", flush=True)
        is_over = asyncio.Event()
        if options.until_input_ends:
            asyncio.get_running_loop().add_reader(sys.stdin, is_over.set)
        await is_over.wait()
    finally:
        if options.until_input_ends:
            asyncio.get_running_loop().remove_reader(sys.stdin)
        await runner.cleanup()


def main() -> int:
    """Read the options and serve."""
    parser = loops.option_parser(__doc__)
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: any free one)")
    parser.add_argument(
        "--delay", type=float, default=0.05, metavar="SECONDS", help="before an answer (%(default)s)"
    )
    parser.add_argument(
        "--until-input-ends", action="store_true", help="end when standard input, a pipe, is closed"
    )
    return loops.run(serve, parser.parse_args(), "pages")


if __name__ == "__main__":
    sys.exit(main())
