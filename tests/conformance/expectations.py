"""Read expected_failures.txt: what aioxide does not do yet, test by test.

A line is `PYTHON DRIVER MODULE.CLASS.TEST REASON`; the first three are globs (`3.1[12]`, `*`,
`test_ssl.TestSSL.*`). Two verdicts depend on it. A test that the reference passes must pass, unless a line
expects it to fail; a test that a line expects to fail must fail. The second is asked of lines that name one
test: a line that covers a whole class is wrong when every test of that class passes. So the list can only
shrink.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import sys
from pathlib import Path

FILE = Path(__file__).with_name("expected_failures.txt")


@dataclasses.dataclass(frozen=True)
class Expectation:
    """One line of the list."""

    python: str
    driver: str
    test: str
    reason: str

    def covers(self, driver: str, test: str) -> bool:
        """Tell whether this line speaks of `test` (module.Class.test) on `driver` and this interpreter."""
        return (
            fnmatch.fnmatchcase("{}.{}".format(*sys.version_info), self.python)
            and fnmatch.fnmatchcase(driver, self.driver)
            and fnmatch.fnmatchcase(test, self.test)
        )

    @property
    def names_one_test(self) -> bool:
        return "*" not in self.test.rpartition(".")[2]


def read() -> list[Expectation]:
    """Return the lines of the list; a line that cannot be understood is an error."""
    expectations = []
    for number, line in enumerate(FILE.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(None, 3)
        if len(fields) != 4:
            raise ValueError(f"{FILE.name}:{number}: four fields are needed: PYTHON DRIVER TEST REASON")
        expectations.append(Expectation(*fields))
    return expectations


def expected(expectations: list[Expectation], driver: str, test: str) -> Expectation | None:
    """Return the line that expects `test` (module.Class.test) to fail."""
    return next((line for line in expectations if line.covers(driver, test)), None)


def verdict(
    expectations: list[Expectation],
    driver: str,
    class_name: str,
    counted: list[str],
    outcomes: dict[str, str],
) -> tuple[list[str], list[str]]:
    """Return the tests that failed unexpectedly, and the tests or lines that passed unexpectedly.

    `counted` are the tests that the reference passes; outcomes of anything else (the set-up of the class, the
    end of its process) count too.
    """
    failures, passes = [], []
    by_line: dict[Expectation, list[bool]] = {}
    for test in dict.fromkeys([*counted, *outcomes]):
        passed = outcomes.get(test) == "passed"
        line = expected(expectations, driver, f"{class_name}.{test}")
        if line is None:
            if not passed:
                failures.append(test)
        elif line.names_one_test and passed:
            passes.append(test)
        else:
            by_line.setdefault(line, []).append(passed)
    passes += [line.test for line, results in by_line.items() if all(results)]
    return failures, passes
