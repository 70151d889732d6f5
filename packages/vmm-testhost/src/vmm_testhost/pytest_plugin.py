"""pytest plugin: kinds of tests, counted skips, ``--require`` and ``--testhost``.

Loaded by its ``pytest11`` entry point wherever vmm-testhost is installed; it changes nothing for tests
that use none of the markers, except that they carry the marker ``pure``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ._kinds import CHECKS, KINDS, inside_testhost
from ._profiles import LONG

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

__all__ = (
    "LONG",
    "pytest_addoption",
    "pytest_cmdline_main",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_itemcollected",
)

PROPERTY = "vmm_skip"  # user property of a report: "kind (reason)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--require KIND`` and ``--testhost``."""
    group = parser.getgroup("vmm-testhost", "kinds of tests and the emulated host")
    group.addoption(
        "--require",
        action="append",
        default=[],
        choices=sorted(KINDS),
        metavar="KIND",
        help=f"fail the run when a test of this kind is skipped (repeatable): {', '.join(KINDS)}",
    )
    group.addoption(
        "--testhost",
        action="store_true",
        help="run the selected tests inside one emulated host, which has a complete KVM and root",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers and start the bookkeeping of skips."""
    for kind, meaning in KINDS.items():
        config.addinivalue_line("markers", f"{kind}: {meaning}")
    config.pluginmanager.register(SkipBook(config.getoption("require")), "vmm-testhost-skips")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the marker ``pure`` to a test that names no kind (before ``-m`` selects)."""
    if not any(item.get_closest_marker(kind) for kind in KINDS):
        item.add_marker("pure")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with reason and cure, what this machine cannot run; each check runs at most once."""
    verdict = functools.cache(lambda kind: CHECKS[kind]())
    for item in items:
        for kind in CHECKS:
            if item.get_closest_marker(kind) and (reason := verdict(kind)) is not None:
                item.add_marker(pytest.mark.skip(reason=f"{kind} ({reason})"))
                item.user_properties.append((PROPERTY, f"{kind} ({reason})"))
                break


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """With ``--testhost``, hand the whole run to an emulated host and return its exit code."""
    if not config.getoption("testhost") or inside_testhost():
        return None
    from ._run import run  # noqa: PLC0415 - most runs never launch a host

    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    color = ["--color=yes"] if os.isatty(1) else []
    report = config.getoption("xmlpath", None)
    kept = (Path(report).resolve().parent,) if report else ()
    argv = [sys.executable, "-m", "pytest", *color, *map(str, config.invocation_params.args)]
    result = run(argv, cwd=config.invocation_params.dir, writable=kept, forward_signals=True)
    return result.returncode


class SkipBook:
    """Counts skipped tests by kind, explains them at the end, and enforces ``--require``."""

    def __init__(self, required: list[str]) -> None:
        self.required = required
        self.reasons: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one skipped test (an expected failure is not a skip)."""
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        self.reasons.update(str(text) for name, text in report.user_properties if name == PROPERTY)
        self.violations.update(kind for kind in self.required if kind in report.keywords)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a green run with a skipped required test into a failed one."""
        if self.violations and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Print one line for each kind and reason of skip, and each broken ``--require``."""
        for text, count in sorted(self.reasons.items()):
            terminalreporter.write_line(f"skipped {count}: {text}", yellow=True)
        for kind, count in sorted(self.violations.items()):
            terminalreporter.write_line(f"--require {kind}: {count} skipped test(s) fail the run", red=True)
