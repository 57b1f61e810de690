"""CPython's own asyncio tests, from the running interpreter, on aioxide: one class, one driver, one process.

"native" stands for the best driver with aioxide's own tasks and futures.

The reference run of each class on asyncio is kept in pytest's cache, so it is paid once per interpreter. To
run one class by hand: `pytest tests/conformance -k "test_locks and uring"`.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import sys
from pathlib import Path

import expectations
import pytest
import scope
import supervisor

HERE = Path(__file__).parent
EXPECTATIONS = expectations.read()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every class in scope."""
    if "test_class" not in metafunc.fixturenames:
        return
    classes = [entry for entry in supervisor.list_classes() if scope.reason_excluded(*entry) is None]
    if metafunc.function is test_own_streams_behave_as_asyncios:
        classes = [entry for entry in classes if entry[0] == "test_streams"]
    if metafunc.function is test_class_behaves_as_on_asyncio_with_the_other_engine_of_tls:
        classes = [entry for entry in classes if entry[0] in ("test_ssl", "test_sslproto")]
    metafunc.parametrize("test_class", classes, ids=[".".join(entry) for entry in classes])


@pytest.fixture
def reference(test_class: tuple[str, str], pytestconfig: pytest.Config) -> dict[str, str]:
    """Outcomes of the class on asyncio, from the cache when this interpreter ran it before."""
    cache = pytestconfig.cache
    assert cache is not None
    sources = b"".join(
        HERE.joinpath(name).read_bytes() for name in ("runner.py", "substitute.py", "supervisor.py")
    )
    modes = f"{os.environ.get('PYTHONASYNCIODEBUG')} {os.environ.get('PYTHONDEVMODE')}"
    identity = sources + sys.version.encode() + sys.prefix.encode() + modes.encode()
    key = hashlib.sha256(identity).hexdigest()[:16]
    path = cache.mkdir("conformance") / f"{key}-{'.'.join(test_class)}.json"
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two drivers may ask at once, from two workers
        file.seek(0)
        if text := file.read():
            return dict(json.loads(text))
        report = supervisor.run_class("asyncio", *test_class, [])
        file.write(json.dumps(report.outcomes))
        return report.outcomes


@pytest.mark.timeout(2 * supervisor.CLASS_LIMIT + 30)
@pytest.mark.parametrize("driver", ["uring", "epoll", "native"])
def test_class_behaves_as_on_asyncio(
    test_class: tuple[str, str], driver: str, reference: dict[str, str], require_driver: None
) -> None:
    if driver == "native" and sys.version_info >= (3, 14):
        reason = scope.EXCLUDED_OF_NATIVE_TASKS.get(".".join(test_class))
        if reason is not None:
            pytest.skip(f"not asked of native tasks: {reason}")
    check_class(test_class, driver, reference)


@pytest.mark.timeout(2 * supervisor.CLASS_LIMIT + 30)
@pytest.mark.parametrize("driver", ["uring", "epoll"])
def test_class_behaves_as_on_asyncio_with_the_other_engine_of_tls(
    test_class: tuple[str, str],
    driver: str,
    reference: dict[str, str],
    require_driver: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIOXIDE_TLS", "python")
    check_class(test_class, driver, reference)


def check_class(test_class: tuple[str, str], driver: str, reference: dict[str, str]) -> None:
    """Run the tests of a class that asyncio passes, and compare with what is expected of them."""
    class_name = ".".join(test_class)
    passed = [test for test, outcome in reference.items() if outcome == "passed"]
    if not passed:
        pytest.skip("asyncio itself passes no test of this class here")
    # What a failing test leaves behind must not be held against its neighbours, so those expected to
    # fail run in a process of their own. Where a whole class is, one failure is all there is to know.
    failing = [test for test in passed if expectations.expected(EXPECTATIONS, driver, f"{class_name}.{test}")]
    report = supervisor.ClassReport()
    for tests in ([test for test in passed if test not in failing], failing):
        if tests:
            stop = tests == passed == failing
            report.merge(supervisor.run_class(driver, *test_class, tests, stop_at_failure=stop))
    # Excluded tests are run, because CPython's tests may depend on those before them, but not counted.
    excluded = {test for test in passed if f"{class_name}.{test}" in scope.EXCLUDED_TESTS}
    counted = [test for test in passed if test not in excluded]
    outcomes = {test: outcome for test, outcome in report.outcomes.items() if test not in excluded}
    assert report.loops > 0, (
        f"{class_name} made no aioxide loop, so it proves nothing: exclude it in scope.py"
    )
    failures, passes = expectations.verdict(EXPECTATIONS, driver, class_name, counted, outcomes)
    problems = [f"--- {name}: {report.details.get(name, 'no result')}" for name in failures]
    problems += [f"--- {name}: passes; remove it from {expectations.FILE.name}" for name in passes]
    assert not problems, "\n".join([f"{class_name} on {driver}", *problems])


@pytest.mark.timeout(2 * supervisor.CLASS_LIMIT + 30)
@pytest.mark.parametrize("driver", ["uring", "epoll"])
def test_own_streams_behave_as_asyncios(
    test_class: tuple[str, str], driver: str, reference: dict[str, str], require_driver: None
) -> None:
    tests = [test for test, outcome in reference.items() if outcome == "passed"]
    tests = [test for test in tests if test not in scope.EXCLUDED_OF_OWN_STREAMS]
    report = supervisor.run_class(f"{driver}+streams", *test_class, tests)
    assert report.loops > 0
    failed = [
        f"--- {test}: {report.details[test]}" for test in tests if report.outcomes.get(test) != "passed"
    ]
    assert not failed, "\n".join(failed)


def test_cpythons_tests_are_installed() -> None:
    if not supervisor.list_classes():
        pytest.skip("this interpreter comes without CPython's tests (on Debian: libpython3-testsuite)")


def test_every_expected_failure_names_a_class_in_scope() -> None:
    known = supervisor.list_classes()
    if not known:
        pytest.skip("this interpreter comes without CPython's tests")
    names = {f"{module}.{name}" for module, name in known if scope.reason_excluded(module, name) is None}
    stale = [
        line.test for line in EXPECTATIONS if line.test.rpartition(".")[0] not in names and line.python == "*"
    ]
    assert not stale


@dataclasses.dataclass
class Case:
    """One question to the verdict and its answer."""

    line: str | None
    outcome: str | None
    failures: list[str]
    passes: list[str]


@pytest.mark.parametrize(
    "case",
    [
        Case(None, "passed", [], []),
        Case(None, "failed", ["test_a"], []),
        Case(None, "skipped", ["test_a"], []),
        Case(None, None, ["test_a"], []),
        Case("m.C.test_a", "failed", [], []),
        Case("m.C.test_a", "passed", [], ["test_a"]),
        Case("m.C.*", "failed", [], []),
        Case("m.C.*", "passed", [], ["m.C.*"]),
    ],
    ids=str,
)
def test_verdict_knows_unexpected_failures_and_passes(case: Case) -> None:
    lines = [expectations.Expectation("*", "*", case.line, "reason")] if case.line else []
    outcomes = {"test_a": case.outcome} if case.outcome else {}
    assert expectations.verdict(lines, "epoll", "m.C", ["test_a"], outcomes) == (
        case.failures,
        case.passes,
    )
