"""The event loops under comparison, and how to make each of them.

A candidate is a name and a recipe; nothing here imports a loop before a measuring process asks for
it, so that no candidate can disturb another.

Invariant: `BASELINE` is the loop every ratio refers to.
"""

import asyncio
import importlib
import importlib.metadata
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

BASELINE = "uvloop"
LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Candidate:
    """A loop that can be measured when its module is installed."""

    name: str
    module: str
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    wanted_driver: str | None = None
    addition: str | None = None
    """What changes the loop after it was made."""
    scopes: frozenset[str] | None = None
    """The kinds of rows it is measured in; `None`: in all."""

    def measures(self, scopes: frozenset[str]) -> bool:
        """Tell whether a row of these scopes is for this loop."""
        return self.scopes is None or bool(self.scopes & scopes)

    def command(self, job: str, *arguments: str) -> list[str]:
        """Spell out the command line of a measuring process."""
        return [sys.executable, str(LAUNCH), job, self.name, *arguments]

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a fresh loop of this kind."""
        if self.module == "asyncio":
            return asyncio.SelectorEventLoop()
        module = importlib.import_module(self.module)
        loop = cast(asyncio.AbstractEventLoop, module.new_event_loop())
        match self.addition:
            case "native":
                loop.set_task_factory(module.native_task_factory)
            case "aiofastnet":
                importlib.import_module("aiofastnet").patch_loop(loop)
        return loop

    def version(self) -> str:
        """Name the installed version, and that of an addition which is a package."""
        if self.module == "asyncio":
            return platform.python_version()
        if self.addition == "aiofastnet":
            return f"{installed(self.module)}+{installed(self.addition)}"
        return installed(self.module)

    def build(self) -> dict[str, Any]:
        """Return what the loop's module says about its own build: aioxide names its profile."""
        about = getattr(importlib.import_module(self.module), "build_info", dict)
        return dict(about())

    def driver(self, loop: asyncio.AbstractEventLoop) -> str:
        """Say what `loop` asks the kernel with, as far as it tells."""
        if self.module == "asyncio":
            selector = getattr(loop, "_selector", None)
            return type(selector).__name__.removesuffix("Selector").lower()
        if self.wanted_driver is None:
            return KNOWN_DRIVERS.get(self.module, "unknown")
        named = re.search(r"driver=(\w+)", repr(loop))
        return named.group(1) if named else "unknown"


def installed(module: str) -> str:
    """Name the version of a module's package."""
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(module), "__version__", "unknown"))


KNOWN_DRIVERS = MappingProxyType({"uvloop": "libuv", "rloop": "mio", "rsloop": "io_uring"})


def aioxide(driver: str, addition: str | None = None, scopes: frozenset[str] | None = None) -> Candidate:
    """Describe aioxide with one driver forced."""
    name = f"aioxide[{driver}]" + (f"+{addition}" if addition else "")
    variables = MappingProxyType({"AIOXIDE_DRIVER": driver})
    return Candidate(name, "aioxide", variables, driver, addition, scopes)


CANDIDATES: Sequence[Candidate] = (
    Candidate("asyncio", "asyncio"),
    Candidate("uvloop", "uvloop"),
    Candidate("uvloop+aiofastnet", "uvloop", addition="aiofastnet", scopes=frozenset({"echo", "tls"})),
    Candidate("rloop", "rloop"),
    Candidate("rsloop", "rsloop"),
    Candidate("zuvloop", "zuvloop"),
    aioxide("uring"),
    aioxide("epoll"),
    aioxide("uring", "native", frozenset({"tasks"})),
)


def candidate(name: str, known: Sequence[Candidate] = CANDIDATES) -> Candidate:
    """Find a candidate by its full name."""
    for one in known:
        if one.name == name:
            return one
    raise LookupError(f"unknown loop {name!r}; known are {', '.join(one.name for one in known)}")


def select(names: str, known: Sequence[Candidate] = CANDIDATES) -> list[Candidate]:
    """Turn "asyncio,aioxide" into candidates; a name without its driver means every driver."""
    chosen: list[Candidate] = []
    for name in (part.strip() for part in names.split(",")):
        matches = [one for one in known if one.name == name] or [one for one in known if one.module == name]
        chosen += [one for one in matches or [candidate(name, known)] if one not in chosen]
    return chosen
