"""Programs in processes of their own, for what a test cannot do to the process it runs in."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from children import without_debug_mode

SELECT_LOOP = """
import asyncio, os, signal, sys, threading, time
name = sys.argv[1]
if name == "asyncio":
    factory = asyncio.SelectorEventLoop
else:
    import aioxide, functools
    factory = functools.partial(aioxide.EventLoop, driver=name)
"""


def run_program(
    loop_name: str, body: str, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `body` with interpreter options and variables, without debug mode unless they ask for it."""
    return subprocess.run(
        [sys.executable, *options, "-c", SELECT_LOOP + textwrap.dedent(body), loop_name],
        capture_output=True,
        text=True,
        timeout=60,
        env=without_debug_mode(**variables),
    )
