"""Run a library's own test suite on stock asyncio and on aioxide, and print where they differ.

    python tools/upstream.py LIBRARY [--loops asyncio,uring,epoll] [--folder FOLDER] [-- PYTEST OPTIONS]

LIBRARY is one of the table below. The suite comes from the library's source distribution, or from its
repository where the distribution has none; it and what it needs go into a folder and a virtual environment of
their own, outside of this repository. The Python that runs this file runs the suite, and the aioxide that it
can import is the one that is tested. Tests on which the loops disagree are run again, alone: one that then
passes is called unsteady. "redis-native" is redis-py's suite, the part about commands, which runs through
aioxide.redis on aioxide's loops and through redis-py on asyncio.

Exits with 1 if a test fails on aioxide that passes on asyncio.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PINS = REPOSITORY / "tests/ecosystem/requirements.txt"
LOOPS = ("asyncio", "uring", "epoll")
AGAIN = 2
RUNNER = ("pytest>=8.4", "pytest-timeout", "pytest-xdist")


@dataclass(frozen=True)
class Library:
    """How to get and run one suite."""

    # What the suite imports beside the library. Never another event loop: those are not under test.
    requires: tuple[str, ...]
    # What to keep of the sources. The library's own code is not: the installed one is tested.
    keep: tuple[str, ...] = ("tests",)
    # Where pytest looks for tests.
    tests: tuple[str, ...] = ("tests",)
    # Options of pytest, after the library's own `addopts` were taken away.
    options: tuple[str, ...] = ()
    # For a library whose source distribution has no tests: where git has them, under the version's tag.
    repository: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    # The name it is distributed under, where the table has another.
    distribution: str | None = None
    # Runs what the suite talks to, and yields the options that say where it is.
    server: Callable[[], AbstractContextManager[tuple[str, ...]]] = lambda: nullcontext(())


@contextmanager
def redis_for_its_suite() -> Iterator[tuple[str, ...]]:
    """Run a redis-server that lets the suite debug it, as the library's own set-up does."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from services import redis_server

    with redis_server("--enable-debug-command", "yes", "--enable-module-command", "yes") as service:
        yield (f"--redis-url=redis://{service.host}:{service.port}/0",)


REDIS = Library(
    requires=(
        *("aiohttp", "hiredis", "numpy", "pybreaker", "pytest-asyncio>=0.24", "redis-entraid", "ujson"),
        *("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "xxhash"),
    ),
    keep=("tests", "pyproject.toml"),
    tests=("tests/test_asyncio",),
    # In one process, because its tests empty the one database. What is left out needs other servers:
    # clusters, modules, TLS, sentinels' or an enterprise's.
    options=(
        *("--ignore=tests/test_asyncio/test_scenario", "--numprocesses=0", "-m"),
        "not onlycluster and not redismod and not ssl and not cp_integration and not multidb_integration",
    ),
    server=redis_for_its_suite,
)

LIBRARIES = {
    "aiohttp": Library(
        requires=(
            *(
                "blockbuster",
                "freezegun",
                "gunicorn",
                "isal;python_version<'3.14'",
                "pkgconfig",
                "proxy.py>=2.4.4rc5",
            ),
            *("aiodns", "brotli", "pytest-cov", "pytest-mock", "trustme", "zlib-ng"),
        ),
        keep=("README.rst", "pytest.ini", "tests"),
        options=("-m", "not dev_mode and not autobahn and not internal"),
    ),
    "anyio": Library(
        requires=("blockbuster>=1.5.29", "hypothesis", "psutil", "pytest-mock", "trustme", "truststore"),
        keep=("tests", "pyproject.toml"),
        # In one process: in a worker of pytest-xdist the main module has no file, and two tests ask for it.
        options=("-p", "no:asyncio", "-m", "not network", "--numprocesses=0"),
    ),
    "redis": REDIS,
    "redis-native": replace(
        REDIS,
        distribution="redis",
        environment={"UPSTREAM_NATIVE_REDIS": "1"},
        tests=tuple(
            f"tests/test_asyncio/test_{part}.py"
            for part in ("commands", "pipeline", "pubsub", "lock", "scripting", "encoding", "connection_pool")
        ),
    ),
    "websockets": Library(
        requires=("python-socks[asyncio]",),
        tests=("tests/asyncio", "tests/legacy"),
        repository="https://github.com/python-websockets/websockets",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("library", choices=sorted(LIBRARIES))
    parser.add_argument("--loops", default=",".join(LOOPS), help="separated by commas (default: %(default)s)")
    parser.add_argument("--version", help="default: the one that tests/ecosystem runs")
    parser.add_argument("--repository", help="in place of the one in the table")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/aioxide-upstream")
    parser.add_argument("--tests", nargs="+", help="files or single tests, in place of all")
    parser.add_argument("--workers", default="2", help="processes of pytest-xdist (default: %(default)s)")
    parser.add_argument("pytest", nargs="*", metavar="-- PYTEST OPTIONS")
    options = parser.parse_args()

    library = LIBRARIES[options.library]
    distribution = library.distribution or options.library
    version = options.version or pinned_version(distribution)
    folder = options.folder / f"{distribution}-{version}-{sys.implementation.cache_tag}"
    folder.mkdir(parents=True, exist_ok=True)
    suite = Suite(distribution, version, library, folder, options.repository or library.repository)
    suite.prepare()
    results = {}
    for loop in options.loops.split(","):
        tests = options.tests or library.tests
        results[loop] = suite.run(loop, *tests, f"--numprocesses={options.workers}", *options.pytest)
        print(f"{options.library} {version} on {loop}: {results[loop]}", flush=True)
    return compare(results, suite)


def pinned_version(distribution: str) -> str:
    pin = re.search(rf"^{re.escape(distribution)}(?:\[.*\])?==(\S+)", PINS.read_text(), re.MULTILINE)
    if pin is None:
        raise SystemExit(f"{PINS} does not name {distribution}: give --version")
    return pin[1]


@dataclass
class Outcomes:
    """What each test did on one loop."""

    by_test: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    loops: int = 0

    def failed(self) -> set[str]:
        return {test for test, outcome in self.by_test.items() if outcome == "failed"}

    def __str__(self) -> str:
        counts = Counter(self.by_test.values())
        text = ", ".join(f"{counts[outcome]} {outcome}" for outcome in sorted(counts))
        return f"{text} ({self.loops} aioxide loops)" if self.loops else text


@dataclass(frozen=True)
class Suite:
    """One version of a library's tests, and the virtual environment they run in."""

    name: str
    version: str
    library: Library
    folder: Path
    repository: str | None

    @property
    def python(self) -> Path:
        return self.folder / "venv/bin/python"

    def prepare(self) -> None:
        """Get the tests and install what they need, once."""
        if not (self.folder / "sources/.complete").exists():
            shutil.rmtree(self.folder / "sources", ignore_errors=True)
            self.from_repository() if self.repository else self.from_distribution()
            (self.folder / "sources/.complete").touch()
        if not (self.folder / "venv/.complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", self.folder / "venv"], check=True)
            requirements = (f"{self.name}=={self.version}", *self.library.requires, *RUNNER)
            subprocess.run([self.python, "-m", "pip", "install", "--quiet", *requirements], check=True)
            (self.folder / "venv/.complete").touch()

    def from_distribution(self) -> None:
        """Unpack from the source distribution what is to be kept."""
        command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps")
        subprocess.run([*command, "--dest", self.folder, f"{self.name}=={self.version}"], check=True)
        (archive,) = self.folder.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            top = tar.next().name.partition("/")[0]
            tar.extractall(self.folder / "unpacked", filter="data")
        for kept in self.library.keep:
            self.keep(self.folder / "unpacked" / top / kept, kept)
        shutil.rmtree(self.folder / "unpacked")

    def from_repository(self) -> None:
        """Clone the version's tag and keep what is to be kept."""
        clone = self.folder / "clone"
        shutil.rmtree(clone, ignore_errors=True)
        git = ("git", "-c", "advice.detachedHead=false", "clone", "--quiet")
        subprocess.run([*git, "--branch", self.version, self.repository, clone], check=True)
        for kept in self.library.keep:
            self.keep(clone / kept, kept)
        shutil.rmtree(clone)

    def keep(self, source: Path, name: str) -> None:
        target = self.folder / "sources" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)

    def run(self, loop: str, *arguments: str) -> Outcomes:
        """Run pytest on one loop and return what it reported."""
        report = self.folder / "report"
        shutil.rmtree(report, ignore_errors=True)
        report.mkdir()
        aioxide = importlib.util.find_spec("aioxide")
        if aioxide is None or aioxide.origin is None:
            raise SystemExit("aioxide is not installed for this Python (make run, or maturin develop)")
        paths = (Path(__file__).parent, Path(aioxide.origin).parent.parent)
        driver = {} if loop == "asyncio" else {"AIOXIDE_DRIVER": loop}
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PYTEST_", "AIOXIDE_"))
            },
            **self.library.environment,
            **driver,
            "UPSTREAM_LOOP": loop,
            "UPSTREAM_REPORT": str(report),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        options = ("-p", "upstream_plugin", "-p", "no:cacheprovider", "-o", "addopts=", "-q", "--tb=short")
        options += ("--timeout=120", *arguments, *self.library.options)
        with (self.folder / f"output-{loop}.txt").open("a") as output, self.library.server() as where:
            subprocess.run(
                [self.python, "-m", "pytest", *options, *where],
                cwd=self.folder / "sources",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return read(report)


def read(report: Path) -> Outcomes:
    """Put together what the processes of one run have written."""
    outcomes = Outcomes()
    for path in report.glob("tests-*.jsonl"):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if outcomes.by_test.get(entry["test"]) != "failed":
                outcomes.by_test[entry["test"]] = entry["outcome"]
                outcomes.details[entry["test"]] = entry["detail"]
    for path in report.glob("loops-*.jsonl"):
        outcomes.loops += json.loads(path.read_text())["loops"]
    return outcomes


def compare(results: dict[str, Outcomes], suite: Suite) -> int:
    """Print the differences to asyncio and what fails everywhere; return the exit status."""
    reference = results.get("asyncio")
    if reference is None:
        for loop, outcomes in results.items():
            show(f"failed on {loop}", outcomes.failed(), outcomes)
        return 0
    status = 0
    for loop, outcomes in results.items():
        if loop == "asyncio":
            continue
        only_here = outcomes.failed() - reference.failed()
        only_there = reference.failed() - outcomes.failed()
        unsteady = {test for test in only_here if steadies(suite, loop, test)}
        unsteady |= {test for test in only_there if steadies(suite, "asyncio", test)}
        show(f"failed only on {loop}", only_here - unsteady, outcomes)
        show("failed only on asyncio", only_there - unsteady, reference)
        show(f"failed on asyncio and on {loop}", outcomes.failed() & reference.failed(), reference)
        show("unsteady: failed, but not again", unsteady, None)
        skipped = {test for test, outcome in outcomes.by_test.items() if outcome == "skipped"}
        skipped -= {test for test, outcome in reference.by_test.items() if outcome == "skipped"}
        show(f"skipped only on {loop}", skipped, outcomes)
        show(f"ran only on asyncio, not on {loop}", reference.by_test.keys() - outcomes.by_test.keys(), None)
        status |= bool(only_here - unsteady)
    return status


def steadies(suite: Suite, loop: str, test: str) -> bool:
    """Tell whether a test that failed passes when it is run alone, each time."""
    return all(not suite.run(loop, test, "--numprocesses=0").failed() for _ in range(AGAIN))


def show(title: str, tests: set[str], outcomes: Outcomes | None) -> None:
    print(f"\n{title}: {len(tests)}")
    for test in sorted(tests):
        detail = outcomes.details[test].strip().splitlines() if outcomes else []
        print(f"  {test}" + (f"\n      {detail[-1][:200]}" if detail else ""))


if __name__ == "__main__":
    sys.exit(main())
