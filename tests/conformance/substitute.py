"""Make CPython's own tests build the loop under test instead of asyncio's selector loop.

Those tests reach a loop by four doors: `asyncio.new_event_loop` (through the default policy), the class
`asyncio.SelectorEventLoop`, `TestCase.new_test_loop` of their utilities, and the fixtures of two modules. All
are changed in the same way for every loop, asyncio's own included, so that a test which cannot live with the
change fails on the reference too and is not held against aioxide.

Invariant: `loops_made()` counts every loop made through a door. A class that made none proves nothing.
"""

from __future__ import annotations

import asyncio
import os
import types
from typing import Any

LOOPS = ("asyncio", "uring", "epoll", "native", "uvloop")
"""`native` is aioxide on the best driver, making its own tasks and futures."""

_made = 0


def loops_made() -> int:
    """Return how many loops under test have been made in this process."""
    return _made


def base_class(name: str) -> type:
    """Return the class of the loop called `name`; a driver's name means aioxide on that driver."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    if name == "uvloop":
        import uvloop

        return uvloop.Loop
    if name not in LOOPS:
        raise ValueError(f"unknown loop {name!r}: one of {', '.join(LOOPS)}")
    os.environ["AIOXIDE_DRIVER"] = "auto" if name == "native" else name
    import aioxide

    return _with_native_tasks(aioxide.EventLoop) if name == "native" else aioxide.EventLoop


def _with_native_tasks(base: type) -> type:
    import aioxide

    class NativeLoop(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.set_task_factory(aioxide.native_task_factory)

    return NativeLoop


def counting(base: type) -> type:
    """Return a subclass of `base` that counts its instances and takes, and ignores, a selector."""

    class LoopUnderTest(base):  # type: ignore[misc]
        def __new__(cls, selector: object = None) -> Any:
            return super().__new__(cls)

        def __init__(self, selector: object = None) -> None:
            global _made
            super().__init__()
            _made += 1

    return LoopUnderTest


def put_own_streams() -> None:
    """Let `asyncio` name aioxide's own streams in place of its own."""
    from aioxide import _streams

    for name in asyncio.streams.__all__:
        setattr(asyncio, name, getattr(_streams, name))


def open_doors(name: str) -> type:
    """Put the loop called `name` behind the doors of asyncio and of the tests' utilities.

    `name` may end in "+streams": then aioxide's own streams stand in for asyncio's.
    """
    name, _, extra = name.partition("+")
    loop_class = counting(base_class(name))
    if extra == "streams":
        put_own_streams()
    from asyncio import unix_events

    for module in (asyncio, unix_events):
        for attribute in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, attribute):
                setattr(module, attribute, loop_class)
    for attribute in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        if policy := getattr(unix_events, attribute, None):
            policy._loop_factory = loop_class

    from test.test_asyncio import utils

    fake_clock_loop = utils.TestCase.new_test_loop

    def new_test_loop(self: Any, gen: Any = None) -> Any:
        # A test that passes a generator plays the clock: only the fake loop can do that.
        if gen is not None:
            return fake_clock_loop(self, gen)
        loop = loop_class()
        self.set_event_loop(loop)
        return loop

    def close_loop(loop: Any) -> None:
        if not loop.is_closed() and getattr(loop, "_default_executor", None) is not None:
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    utils.TestCase.new_test_loop = new_test_loop
    if name != "asyncio":
        # CPython's own reads private fields and knows CPython's child watchers.
        utils.TestCase.close_loop = staticmethod(close_loop)
    return loop_class


def use_native_classes(module: types.ModuleType) -> None:
    """Let the tests of a module that take asyncio's C classes as they are take our native ones.

    Classes derived from them stay as they are: ours are final.
    """
    from asyncio import futures, tasks

    from aioxide import _rust

    native = {tasks._CTask: _rust.Task, futures._CFuture: _rust.Future}  # type: ignore[attr-defined]
    for member in list(vars(module).values()):
        if not isinstance(member, type):
            continue
        for name in ("Task", "Future", "cls"):
            if (ours := native.get(vars(member).get(name))) is not None:
                setattr(member, name, ours)
    tasks._CTask, futures._CFuture = _rust.Task, _rust.Future  # type: ignore[attr-defined]


def open_doors_of_module(module: types.ModuleType, loop_class: type) -> None:
    """Change the doors that exist in one test module only."""
    if module.__name__.endswith(".test_runners"):

        def new_loop(self: Any) -> Any:
            loop = loop_class()
            loop.shutdown_ag_run = False

            async def shutdown_asyncgens() -> None:
                loop.shutdown_ag_run = True

            loop.shutdown_asyncgens = shutdown_asyncgens
            return loop

        module.BaseTest.new_loop = new_loop  # type: ignore[attr-defined]
    elif module.__name__.endswith(".test_pep492"):

        def set_up(self: Any) -> None:
            super(module.BaseTest, self).setUp()
            self.loop = loop_class()
            self.set_event_loop(self.loop)

        module.BaseTest.setUp = set_up  # type: ignore[attr-defined]
