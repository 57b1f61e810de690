"""Tests of native tasks: `loop` is stock asyncio first, then aioxide's loops with native tasks on them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import aioxide
import pytest

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def loop_factory(loop_factory: LoopFactory, is_aioxide: bool) -> LoopFactory:
    """Return a function that makes a loop, with native tasks where it is aioxide's."""
    return functools.partial(with_native_tasks, loop_factory) if is_aioxide else loop_factory


def with_native_tasks(factory: LoopFactory) -> asyncio.AbstractEventLoop:
    """Make a loop and choose native tasks for it."""
    loop = factory()
    loop.set_task_factory(aioxide.native_task_factory)
    return loop


@pytest.fixture
def kept_by_others() -> frozenset[str]:
    """Demand that no task or future is left: nothing here keeps them."""
    return frozenset()
