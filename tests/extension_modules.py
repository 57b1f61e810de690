"""Extension modules that the tests use: Rust projects of their own, built by maturin as their users would."""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
TRIAL = ROOT / "tests/extension"
SHARED_COUNTER = ROOT / "examples/rust/extension"

# Compiling PyO3 on a busy machine takes longer than a test may; that happens once.
BUILD_SECONDS = 900

# Not beside the projects: what was compiled for one interpreter is of no use to another.
_target = Path(sys.prefix) / "target/extensions"
_folders: list[tempfile.TemporaryDirectory[str]] = []


@cache
def built(project: Path) -> Path:
    """Return a folder with the built module, and its wheel, in it."""
    temporary = tempfile.TemporaryDirectory(prefix=project.name)
    _folders.append(temporary)
    folder = Path(temporary.name)
    options = ["--profile", "dev", "--locked", "--offline", "--auditwheel", "skip"]
    places = ["--interpreter", sys.executable, "--target-dir", _target, "--out", folder]
    _target.mkdir(parents=True, exist_ok=True)
    # maturin moves what cargo made: two of them at once, of two test processes, take it from each other.
    with (_target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = subprocess.run(
            [sys.executable, "-m", "maturin", "build", *options, *places],
            cwd=project,
            env={**os.environ, "PYO3_PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@cache
def load(project: Path, name: str) -> ModuleType:
    """Build a module and import it."""
    sys.path.insert(0, str(built(project)))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)
