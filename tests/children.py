"""The environment of programs that the tests start."""

from __future__ import annotations

import os

# What `make test-strict` sets to switch asyncio's debug mode on, which may log more to standard error.
DEBUG_MODE = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE")


def without_debug_mode(**variables: str) -> dict[str, str]:
    """Return this process's environment and `variables`, for a program that is not tested in debug mode."""
    return {name: value for name, value in os.environ.items() if name not in DEBUG_MODE} | variables
