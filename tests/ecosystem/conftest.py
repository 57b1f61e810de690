"""Programs as the users of other people's libraries write them, on stock asyncio and on both drivers.

One file per library, each a page of what its users do, against a real counterpart on the loopback. A test
takes `loop` (tests/conftest.py), which demands that nothing is left behind; a library that makes a loop of
its own gets `loop_factory`; one that is started as a program gets `loop_environment`. `requirements.txt` pins
the libraries; `pytest.importorskip` at the head of a file skips it where its library cannot be had.
"""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def loop_environment(loop_name: str, loop_factory: object) -> dict[str, str]:
    """Make the environment in which `aioxide:new_event_loop` uses the driver under test."""
    chosen = {"AIOXIDE_DRIVER": loop_name} if loop_name in ("uring", "epoll") else {}
    return {**os.environ, **chosen, "PYTHONWARNINGS": "always::ResourceWarning"}
