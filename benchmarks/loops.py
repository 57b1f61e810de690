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
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

BASELINE = "uvloop"


@dataclass(frozen=True)
class Candidate:
    """A loop that can be measured when its module is installed."""

    name: str
    module: str
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    wanted_driver: str | None = None

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a fresh loop of this kind."""
        if self.module == "asyncio":
            return asyncio.SelectorEventLoop()
        return cast(asyncio.AbstractEventLoop, importlib.import_module(self.module).new_event_loop())

    def version(self) -> str:
        """Name the installed version."""
        if self.module == "asyncio":
            return platform.python_version()
        try:
            return importlib.metadata.version(self.module)
        except importlib.metadata.PackageNotFoundError:
            return str(getattr(importlib.import_module(self.module), "__version__", "unknown"))

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


KNOWN_DRIVERS = MappingProxyType({"uvloop": "libuv", "rloop": "mio"})


def aioxide(driver: str) -> Candidate:
    """Describe aioxide with one driver forced."""
    return Candidate(f"aioxide[{driver}]", "aioxide", MappingProxyType({"AIOXIDE_DRIVER": driver}), driver)


CANDIDATES = (
    Candidate("asyncio", "asyncio"),
    Candidate("uvloop", "uvloop"),
    Candidate("rloop", "rloop"),
    Candidate("rsloop", "rsloop"),
    Candidate("zuvloop", "zuvloop"),
    aioxide("uring"),
    aioxide("epoll"),
)


def candidate(name: str) -> Candidate:
    """Find a candidate by its full name."""
    for known in CANDIDATES:
        if known.name == name:
            return known
    raise LookupError(f"unknown loop {name!r}; known are {', '.join(known.name for known in CANDIDATES)}")


def select(names: str) -> list[Candidate]:
    """Turn "asyncio,aioxide" into candidates; a name without its driver means every driver."""
    chosen: list[Candidate] = []
    for name in (part.strip() for part in names.split(",")):
        matches = [known for known in CANDIDATES if name in (known.name, known.module)]
        chosen += [known for known in matches or [candidate(name)] if known not in chosen]
    return chosen
