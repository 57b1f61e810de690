"""The load generator, a program in Rust, as a `Load` for the cells; and what else is built with Cargo."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aioxide.bench import machine
from aioxide.bench.cells import Effort, Server, announced, parsed, run
from aioxide.bench.loops import Candidate
from aioxide.bench.rows import MemoryRow, ServerRow

ROOT = Path(__file__).resolve().parent.parent
AUTHORITY = "authority.pem"
"""In the run's folder: what the servers' certificate is checked with."""


@dataclass(frozen=True)
class Generator:
    """Runs the load generator on the second core."""

    binary: Path
    directory: Path

    def load(self, row: ServerRow, server: Server, effort: Effort) -> dict[str, Any]:
        """Put a row's load on a server and charge the server's CPU time to the messages."""
        words = [*self.towards(row, server), "--pipelined", str(row.pipelined)]
        words += ["--seconds", str(effort.seconds), "--warm-up", str(effort.warm_up)]
        return parsed(run(words))

    def memory(self, row: MemoryRow, server: Server) -> dict[str, Any]:
        """Open a row's connections and see what the server's memory grew by."""
        return parsed(run([*self.towards(row, server), "--job", "memory"]))

    @contextmanager
    def peer(self) -> Iterator[int]:
        """Run the server of a measured client."""
        with announced([*self.command(), "--job", "peer"]) as (_, line):
            yield line["port"]

    def command(self) -> list[str]:
        """Begin a command line."""
        _, core = machine.cores()
        return [str(self.binary), *(["--core", str(core)] if core is not None else [])]

    def towards(self, row: ServerRow | MemoryRow, server: Server) -> list[str]:
        """Say which server, and what to send it."""
        words = [*self.command(), "--pid", str(server.pid), "--connections", str(row.connections)]
        words += ["--message-bytes", str(row.message_bytes), "--transport", row.transport]
        if row.transport == "tls":
            words += ["--authority", str(self.directory / AUTHORITY)]
        if isinstance(server.address, str):
            return [*words, "--path", server.address]
        return [*words, "--address", f"127.0.0.1:{server.address}"]


@dataclass(frozen=True)
class Program(Candidate):
    """No loop but a program that serves as a measuring process does: what there is to gain at most."""

    binary: Path = field(default_factory=Path)

    def command(self, job: str, *arguments: str) -> list[str]:
        """Spell out the command line: the jobs are those of `child.py`."""
        return [str(self.binary), job, *arguments]


def bare(driver: str, binary: Path) -> Program:
    """Describe the echo server without Python, on one of the drivers."""
    variables: Mapping[str, str] = MappingProxyType({"AIOXIDE_DRIVER": driver})
    return Program(f"bare[{driver}]", "bare", variables, driver, scopes=frozenset({"limit"}), binary=binary)


def build(package: str, profile: str = "release") -> Path:
    """Build a program with Cargo and return its binary; a second call costs nothing."""
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if cargo is None:
        raise SystemExit(f"cargo is needed to build {package}: see https://rustup.rs")
    command = [
        cargo,
        "build",
        "--release",
        "--package",
        package,
        "--message-format",
        "json-render-diagnostics",
    ]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        raise SystemExit(f"{package} does not build: see above")
    for message in map(json.loads, built.stdout.splitlines()):
        if message.get("executable") and message["target"]["name"] == package:
            return Path(message["executable"])
    print(built.stdout, file=sys.stderr)
    raise SystemExit(f"cargo built no {package}")
