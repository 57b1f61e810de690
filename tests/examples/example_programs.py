"""Reach the example programs: as command lines, and as modules for the tests of their parts.

Programs have everyday names (`loops`, `report`), which other folders of this repository use too. So their
modules are loaded together, once, and then taken out of `sys.modules` again.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

PROGRAMS = Path(__file__).resolve().parents[2] / "examples" / "python"


def command(program: str, environment: dict[str, str], *options: str) -> list[str]:
    """Write the command line of a program."""
    return [sys.executable, str(PROGRAMS / f"{program}.py"), "--loop", environment["PROGRAM_LOOP"], *options]


def load() -> SimpleNamespace:
    """Import every module of the programs and leave no trace of it."""
    names = [path.stem for path in PROGRAMS.glob("*.py")]
    others: dict[str, ModuleType] = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(PROGRAMS))
    try:
        return SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(PROGRAMS))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(others)


modules = load()
