"""Passes or fails a run of the tests by its skips: each must be expected.

Knows `skips.toml` and nothing of single tests.
"""

import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SKIPS = Path(__file__).with_name("skips.toml")
ALLOWED = ("always", "outside CI", "without kernels")


@dataclass(frozen=True, slots=True)
class Rule:
    """Skips whose reason begins with `reason`, and where they are expected: one of `ALLOWED`."""

    reason: str
    allowed: str


def read_rules(path: Path = SKIPS) -> list[Rule]:
    """The list of expected skips. Raises `ValueError` for a rule that is incomplete."""
    rules = []
    for entry in tomllib.loads(path.read_text())["skip"]:
        if entry.keys() != {"reason", "allowed", "why"} or entry["allowed"] not in ALLOWED:
            raise ValueError(f"{path}: each skip has a reason, a why and allowed = one of {ALLOWED}: {entry}")
        rules.append(Rule(entry["reason"], entry["allowed"]))
    return rules


class SkipGate:
    """Collects the skips of a run, prints them by reason, and fails the run for one that is not expected.

    With pytest-xdist the controlling process decides. Workers report skipped tests by themselves, but not
    modules that are skipped while they are collected: these travel in `workeroutput`.
    """

    def __init__(self, config: pytest.Config, rules: list[Rule], *, ci: bool, kernels: bool) -> None:
        """`ci`: whether this is the run that decides; `kernels`: whether native kernels are asked for."""
        self._config = config
        self._expected_in = {"always": True, "outside CI": not ci, "without kernels": not kernels}
        self._rules = rules
        self.skipped: dict[str, list[str]] = defaultdict(list)
        """Test ids by reason."""

    @property
    def unexpected(self) -> dict[str, list[str]]:
        """Those that no rule allows here."""
        return {reason: tests for reason, tests in self.skipped.items() if not self._is_expected(reason)}

    def add(self, test: str, reason: str) -> None:
        """Note a skip."""
        self.skipped[reason.removeprefix("Skipped: ")].append(test)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.add(report.nodeid, _reason(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.add(report.nodeid, _reason(report))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for test, reason in getattr(node, "workeroutput", {}).get("skipped_modules", ()):
            if test not in self.skipped[reason]:  # each worker collects all modules
                self.add(test, reason)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            modules = {
                reason: [test for test in tests if "::" not in test] for reason, tests in self.skipped.items()
            }
            output["skipped_modules"] = [
                (test, reason) for reason, tests in modules.items() for test in tests
            ]
        elif self.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.skipped:
            return
        terminalreporter.section("skipped tests")
        unexpected = self.unexpected
        for reason, tests in sorted(self.skipped.items()):
            if tests:
                mark = "NOT EXPECTED" if reason in unexpected else "expected"
                terminalreporter.line(f"{mark}: {reason} ({len(tests)}, first {sorted(tests)[0]})")
        if unexpected:
            terminalreporter.line(f"A skip that is not listed in tests/{SKIPS.name} fails the run.", red=True)

    def _is_expected(self, reason: str) -> bool:
        return any(reason.startswith(rule.reason) and self._expected_in[rule.allowed] for rule in self._rules)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """A skipped report's `longrepr` is (file, line, reason)."""
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
