"""The programs in the documentation run; those that name a Redis on this machine get one of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from services import Unavailable, redis_server

DOCS = Path(__file__).parents[2] / "docs"
PROGRAMS = [
    pytest.param(program, id=f"{page.name}-{number}")
    for page in sorted(DOCS.rglob("*.md"))
    for number, program in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M), 1)
]


REDIS = "redis://localhost"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_runs_without_a_complaint(program: str) -> None:
    if REDIS not in program:
        run(program)
        return
    pytest.importorskip("redis", reason="redis-py cannot be had for this Python")
    try:
        with redis_server() as server:
            run(program.replace(REDIS, f"redis://{server.host}:{server.port}"))
    except Unavailable as reason:
        pytest.skip(str(reason))


def run(program: str) -> None:
    """Run a program, which must have nothing to complain about."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
