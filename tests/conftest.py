"""One test body, three loops: asyncio as the reference, aioxide on io_uring and aioxide on epoll.

A test that takes `loop` runs once on each. A coroutine test runs inside that loop. When the test is over, the
fixture closes the loop and demands that nothing is left: no call of the exception handler that the test did
not take from `reported`, no pending task, no live native object, no open file.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from leaks import forget_earlier_children, open_files

LOOPS = ("asyncio", "uring", "epoll")
TLS_ENGINES = ("direct", "python")
TESTS_BETWEEN_FULL_COLLECTIONS = 200
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loops", default=",".join(LOOPS), help="the loops to test, separated by commas")
    parser.addoption("--native-tasks", action="store_true", help="let aioxide's loops make native tasks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loop_name" not in metafunc.fixturenames:
        return
    loops = metafunc.config.getoption("--loops").split(",")
    if "tls_engine" in metafunc.fixturenames:
        pairs = [(loop, engine) for loop in loops for engine in tls_engines(loop)]
        metafunc.parametrize(("loop_name", "tls_engine_name"), pairs, scope="session")
    else:
        metafunc.parametrize("loop_name", loops, scope="session")


def tls_engines(loop_name: str) -> tuple[str, ...]:
    """Return the ways in which a loop speaks TLS; loops that are not ours have one."""
    return TLS_ENGINES if loop_name in ("uring", "epoll") else ("own",)


tests_begun = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep what was there before a test out of the collections in it: they would be most of the work."""
    if next(tests_begun) % TESTS_BETWEEN_FULL_COLLECTIONS == 0:
        gc.unfreeze()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test on its loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    pyfuncitem.funcargs["loop"].run_until_complete(pyfuncitem.obj(**arguments))
    return True


@functools.cache
def why_unavailable(driver: str) -> str | None:
    """Return why aioxide cannot use `driver` here, or None when it can."""
    import aioxide

    try:
        aioxide.EventLoop(driver=driver).close()
    except OSError as error:
        return f"the kernel denies {driver}: {error}"
    return None


@pytest.fixture
def require_driver(driver: str) -> None:
    """Skip the test when the kernel denies its driver; epoll is never denied, "native" means any."""
    if driver == "uring" and (reason := why_unavailable(driver)):
        pytest.skip(reason)


@pytest.fixture
def tls_engine(tls_engine_name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the test run with each engine of TLS; `pytest.mark.usefixtures` does for a whole file."""
    if tls_engine_name == "own":
        return tls_engine_name
    import aioxide

    monkeypatch.setenv("AIOXIDE_TLS", "auto")
    info = aioxide.build_info()
    if tls_engine_name == "direct" and info["tls"] != "direct":
        pytest.skip(f"no direct TLS here: {info['tls_reason']}")
    monkeypatch.setenv("AIOXIDE_TLS", tls_engine_name)
    return tls_engine_name


@pytest.fixture
def loop_factory(loop_name: str, request: pytest.FixtureRequest) -> LoopFactory:
    """Return a function that makes a loop of the kind under test."""
    if loop_name == "asyncio":
        return asyncio.SelectorEventLoop
    if loop_name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    if loop_name == "uring" and (reason := why_unavailable(loop_name)):
        pytest.skip(reason)
    import aioxide

    native = request.config.getoption("--native-tasks")
    return functools.partial(native_loop if native else aioxide.EventLoop, driver=loop_name)


def native_loop(driver: str) -> asyncio.AbstractEventLoop:
    """Make a loop of aioxide's that makes native tasks."""
    import aioxide

    loop = aioxide.EventLoop(driver)
    loop.set_task_factory(aioxide.native_task_factory)
    return loop


@pytest.fixture
def is_aioxide(loop_name: str) -> bool:
    """Tell whether the loop under test is aioxide's."""
    return loop_name in ("uring", "epoll")


@pytest.fixture
def reported() -> list[dict[str, Any]]:
    """Contexts given to the loop's exception handler; a test takes those it expects."""
    return []


@pytest.fixture
def loop(
    loop_factory: LoopFactory, reported: list[dict[str, Any]], kept_by_others: frozenset[str]
) -> Iterator[asyncio.AbstractEventLoop]:
    """A new loop, closed afterwards, which must leave nothing behind."""
    gc.collect()
    files_before = open_files()
    forget_earlier_children()
    loop = loop_factory()
    counts_before = counters(loop, kept_by_others)
    loop.set_exception_handler(lambda _, context: reported.append(context))
    yield loop
    problems = []
    if not loop.is_closed():
        if pending := asyncio.all_tasks(loop):
            problems.append(f"pending tasks: {pending}")
        gc.collect()  # a future that nobody asked reports itself while the loop can still hear it
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    gc.collect()
    if reported:
        problems.append(f"unexpected calls of the exception handler: {reported}")
    # Handles are counted for the whole process, so what an earlier test left is not held against this one.
    counts = counters(loop, kept_by_others)
    if alive := {name: count for name, count in counts.items() if count != counts_before[name]}:
        problems.append(f"alive after close: {alive}")
    del loop
    gc.collect()
    files = open_files()
    if left := {number: name for number, name in files.items() if files_before.get(number) != name}:
        problems.append(f"open files left: {left}")
    assert not problems, "\n".join(problems)


@pytest.fixture
def kept_by_others(pytestconfig: pytest.Config) -> frozenset[str]:
    """Name what fixtures, libraries and resolving threads may keep for a while, as they may asyncio's own."""
    return frozenset(("tasks", "futures") if pytestconfig.getoption("--native-tasks") else ())


def counters(loop: asyncio.AbstractEventLoop, left_out: frozenset[str]) -> dict[str, int]:
    """Return how many native objects live; asyncio has none."""
    counts = dict(loop.statistics()) if hasattr(loop, "statistics") else {}
    return {name: count for name, count in counts.items() if name not in left_out}
