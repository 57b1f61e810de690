"""The example of an extension module with Rust futures: built by maturin as its readers would, and awaited.

It is a project of its own that knows nothing of aioxide but the crate `aioxide-awaitable`, so what is seen
here is what other people's extensions get. What an awaitable is to asyncio: tests/loop/test_awaitable.py.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
import threading
import tomllib
from pathlib import Path

import pytest
from children import without_debug_mode
from extension_modules import BUILD_SECONDS, ROOT, SHARED_COUNTER, TRIAL, built, load

pytestmark = pytest.mark.timeout(BUILD_SECONDS)


@pytest.fixture
def counter(loop, is_aioxide):
    """A counter for tasks of aioxide's loop."""
    if not is_aioxide:
        pytest.skip("Rust futures need aioxide's loop")
    return load(SHARED_COUNTER, "shared_counter").Counter()


def run_python(
    *arguments: str, project: Path = SHARED_COUNTER, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program that can import the module."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=without_debug_mode(PYTHONPATH=str(built(project)), **variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("driver", ["uring", "epoll"])
@pytest.mark.usefixtures("require_driver")
def test_the_program_does_what_it_shows(driver):
    finished = run_python(str(SHARED_COUNTER / "counting.py"), AIOXIDE_DRIVER=driver)
    assert finished.stderr == ""
    assert finished.stdout.splitlines() == [
        "at once: 0",
        "from a thread: 1000",
        "in the background: ['ticking counter']",
        f"together: {list(range(1001, 1011))}",
        "no million in ten milliseconds: the future was dropped",
    ]


async def test_a_thread_of_the_extension_wakes_those_who_wait(loop, counter):
    counter.count_in_a_thread(1000)
    waiting = [counter.wait_for(goal) for goal in range(1, 1001)]
    values = await asyncio.gather(*waiting)
    assert all(value >= goal for goal, value in enumerate(values, 1))
    assert counter.value == 1000


async def test_a_thread_of_python_wakes_those_who_wait(loop, counter):
    thread = threading.Thread(target=lambda: [counter.add() for _ in range(100)])
    waiting = asyncio.create_task(counter.wait_for(100))
    await asyncio.sleep(0)
    thread.start()
    assert await waiting == 100
    thread.join()


async def test_a_cancelled_wait_disturbs_nobody(loop, counter):
    tasks = [asyncio.create_task(counter.wait_for(1)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    counter.add(7)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, int] * 50
    assert set(results[1::2]) == {7}


async def test_a_task_counts_in_the_background_until_it_is_done(loop, counter):
    counter.tick(0.0005, last=5)
    assert loop.statistics()["rust_task_names"] == ["ticking counter"]
    assert await counter.wait_for(5) == 5
    await asyncio.sleep(0)
    assert loop.statistics()["rust_task_names"] == []


async def test_its_awaitable_tells_what_it_is(loop, counter):
    awaitable = counter.wait_for(1)
    assert repr(awaitable).startswith("<awaitable Counter.wait_for at 0x")
    assert (awaitable.__name__, awaitable.__qualname__) == ("wait_for", "Counter.wait_for")
    with pytest.warns(RuntimeWarning, match=r"coroutine 'Counter.wait_for' was never awaited"):
        del awaitable


async def test_another_loop_is_refused_and_told_what_to_do(loop, is_aioxide):
    if is_aioxide:
        pytest.skip("this one is right")
    counter = load(SHARED_COUNTER, "shared_counter").Counter()
    for refused in (lambda: counter.wait_for(0), lambda: counter.tick(1, last=1)):
        with pytest.raises(
            RuntimeError, match=r"need aioxide's event loop, and asyncio\.\S+ runs: .*aioxide.run"
        ):
            refused()


def test_without_a_running_loop_there_is_no_future():
    counter = load(SHARED_COUNTER, "shared_counter").Counter()
    for refused in (lambda: counter.wait_for(0), lambda: counter.tick(1, last=1)):
        with pytest.raises(RuntimeError, match=r"^no running event loop$"):
            refused()


def test_a_future_that_is_refused_is_dropped_once():
    dropped = []
    with pytest.raises(RuntimeError, match=r"^no running event loop$"):
        load(TRIAL, "aioxide_trial").trial_future("ready", dropped=lambda: dropped.append(True))
    assert dropped == [True]


def test_a_sleep_outside_of_a_loop_panics_and_says_why():
    finished = run_python("-c", "import aioxide_trial; aioxide_trial.sleep_outside()", project=TRIAL)
    assert finished.returncode == 1
    assert "`sleep` is awaited where aioxide's event loop does not run" in finished.stderr


FAKE = """
import asyncio, ctypes, sys, types

class Interface(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("size", ctypes.c_uint32), ("functions", ctypes.c_void_p * 3)]

def capsule(interface, name):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(ctypes.addressof(interface), name, None)

def real():
    from aioxide._rust import _awaitable_capsule
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return Interface.from_address(get(_awaitable_capsule, NAME))

NAME = b"aioxide._rust._awaitable_capsule"
import aioxide
interface = Interface.from_buffer_copy(real())
{change}
aioxide._rust._awaitable_capsule = capsule(interface, NAME)
import shared_counter

async def main():
    print(await shared_counter.Counter().wait_for(0))

try:
    aioxide.run(main())
except ImportError as error:
    print("ImportError:", error)
"""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "interface.version = 3",
            "has version 3 of the interface .* built for 2: the extension needs a newer",
        ),
        ("interface.version = 1", "has version 1 of the interface .* built for 2: upgrade aioxide"),
        ("interface.size -= 8", "lacks what this extension's Rust futures need: upgrade it"),
        # A later aioxide has more of the same version.
        ("interface.size += 64", "^0$"),
        ("pass", "^0$"),
    ],
)
def test_versions_of_the_interface(change, says):
    finished = run_python("-c", FAKE.format(change=change))
    assert finished.stderr == ""
    assert re.search(says, finished.stdout.strip()), finished.stdout


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("sys.modules['aioxide'] = None", "need aioxide, which is not installed: pip install aioxide"),
        (
            "import aioxide; del aioxide._rust._awaitable_capsule",
            "is too old for this extension's Rust futures",
        ),
        (
            "import aioxide; aioxide._rust._awaitable_capsule = 1",
            "is too old for this extension's Rust futures",
        ),
    ],
)
def test_an_aioxide_that_cannot_be_used_is_an_import_error(before, says):
    program = f"""
        import sys
        {before}
        import shared_counter
        try:
            shared_counter.Counter().wait_for(0)
        except ImportError as error:
            print(type(error.__cause__).__name__, error)
    """
    finished = run_python("-c", textwrap.dedent(program))
    assert finished.stderr == ""
    assert re.search(f"Error .*{says}", finished.stdout)


@pytest.mark.parametrize("project", [SHARED_COUNTER, TRIAL])
def test_it_is_locked_to_the_versions_of_the_workspace(project):
    """So that it builds without the network wherever aioxide was built."""

    def versions(folder):
        packages = tomllib.loads((folder / "Cargo.lock").read_text())["package"]
        return {(package["name"], package["version"]) for package in packages if "source" in package}

    assert versions(project)
    assert versions(project) <= versions(ROOT)
