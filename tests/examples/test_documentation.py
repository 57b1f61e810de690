"""The programs in the documentation run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PROGRAMS = [
    pytest.param(program, id=f"{page.name}-{number}")
    for page in sorted(DOCS.rglob("*.md"))
    for number, program in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M), 1)
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_runs_without_a_complaint(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
