"""Run one class of CPython's asyncio tests on one loop and report every test as a line of JSON.

    python runner.py --loop uring REPORT test_events EPollEventLoopTests [TEST...]
    python runner.py --list REPORT

The report is a file, because the tests write to the standard streams. A test's line is written when it starts
and again when it ends, so that whoever waits can tell which test hangs or crashes. The last line holds the
number of loops made: the proof that the loop under test was in use.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import pkgutil
import signal
import sys
import traceback
import unittest
from typing import Any, TextIO

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import substitute

PACKAGE = "test.test_asyncio"


class Reporter(unittest.TestResult):
    """Write the outcome of each test as it becomes known."""

    def __init__(self, report: TextIO, stop_at_failure: bool) -> None:
        super().__init__()
        self._report = report
        self._stop_at_failure = stop_at_failure
        self._outcome = "passed"
        self._detail = ""

    def write(self, **entry: Any) -> None:
        self._report.write(json.dumps(entry) + "\n")
        self._report.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome, self._detail = "passed", ""
        self.write(started=test.id().rpartition(".")[2])

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        name, loops = test.id().rpartition(".")[2], substitute.loops_made()
        self.write(test=name, outcome=self._outcome, detail=self._detail, loops=loops)
        if self._outcome == "failed" and self._stop_at_failure:
            self.stop()

    def _worse(self, test: object, outcome: str, detail: str) -> None:
        if isinstance(test, unittest.TestCase):
            if self._outcome != "failed":
                self._outcome, self._detail = outcome, detail
        else:  # the set-up or tear-down of a class or module
            self.write(test=str(test), outcome=outcome, detail=detail, loops=substitute.loops_made())

    def addError(self, test: Any, err: Any) -> None:
        self._worse(test, "failed", "".join(traceback.format_exception(*err)))

    def addFailure(self, test: Any, err: Any) -> None:
        self._worse(test, "failed", "".join(traceback.format_exception(*err)))

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._worse(test, "failed", f"{subtest}\n" + "".join(traceback.format_exception(*err)))

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._worse(test, "failed", "unexpected success")

    def addSkip(self, test: Any, reason: str) -> None:
        self._worse(test, "skipped", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        """An expected failure of CPython's own is a pass."""


def list_classes(report: TextIO) -> None:
    """Write `[module, class]` for every test class of the running interpreter."""
    package = importlib.import_module(PACKAGE)
    classes = []
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("test_"):
            continue
        try:
            module = importlib.import_module(f"{PACKAGE}.{info.name}")
        except unittest.SkipTest:
            continue
        for name, member in inspect.getmembers(module, inspect.isclass):
            its_own = issubclass(member, unittest.TestCase) and member.__module__ == module.__name__
            if its_own and unittest.defaultTestLoader.getTestCaseNames(member):
                classes.append([info.name, name])
    json.dump(classes, report)


def run_class(
    loop: str, stop_at_failure: bool, report: TextIO, module_name: str, class_name: str, tests: list[str]
) -> None:
    """Run `tests` of a class, or all of them, on the loop called `loop`."""
    from test import support

    # No outside network: a test that needs it is skipped on the reference too.
    support.use_resources = ["cpu", "walltime", "subprocess"]
    loop_class = substitute.open_doors(loop)
    module = importlib.import_module(f"{PACKAGE}.{module_name}")
    substitute.open_doors_of_module(module, loop_class)
    if loop == "native":
        substitute.use_native_classes(module)
    test_class = getattr(module, class_name)
    names = tests or unittest.defaultTestLoader.getTestCaseNames(test_class)
    reporter = Reporter(report, stop_at_failure)
    unittest.TestSuite(test_class(name) for name in names).run(reporter)
    reporter.write(finished=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--stop-at-failure", action="store_true")
    parser.add_argument("report")
    parser.add_argument("names", nargs="*", help="MODULE CLASS [TEST...]")
    arguments = parser.parse_args()
    # Tests send these to themselves and to their children; who starts us in the background ignores them.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(arguments.report, "w", encoding="utf-8") as report:
        if arguments.list:
            list_classes(report)
        else:
            module_name, class_name, *tests = arguments.names
            run_class(arguments.loop, arguments.stop_at_failure, report, module_name, class_name, tests)


if __name__ == "__main__":
    main()
