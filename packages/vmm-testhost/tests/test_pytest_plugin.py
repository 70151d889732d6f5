"""The plugin, seen from a test run of somebody else's project."""

import pytest
from vmm_testhost import _kinds

TESTS = """
import pytest
def test_plain(): pass
@pytest.mark.kvm_full
def test_full(): pass
"""


@pytest.fixture
def project(pytester, monkeypatch):
    """A project with one pure test and one that this machine is told it cannot run."""
    pytester.makepyfile(TESTS)
    monkeypatch.setitem(
        _kinds.CHECKS, "kvm_full", lambda: "this KVM interprets ring 0: run under vmm-testhost"
    )
    return pytester


def test_skips_are_counted_and_explained(project):
    """The end of the run says how many tests of a kind were skipped, why, and the cure."""
    result = project.runpytest_inprocess("--strict-markers")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["skipped 1: kvm_full (this KVM interprets ring 0: run under vmm-testhost)"])


def test_required_kind_fails_the_run(project):
    """--require turns a skip of that kind into a failed run."""
    result = project.runpytest_inprocess("--require", "kvm_full")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["--require kvm_full: 1 skipped test(s) fail the run"])


def test_other_required_kind_passes(project):
    """--require of a kind that was not skipped changes nothing."""
    assert project.runpytest_inprocess("--require", "kvm").ret == pytest.ExitCode.OK


def test_unmarked_tests_are_pure(project):
    """-m pure selects exactly the tests that name no kind."""
    result = project.runpytest_inprocess("-m", "pure", "-v")
    result.assert_outcomes(passed=1, deselected=1)


def test_skip_inside_a_required_test_counts(pytester, monkeypatch):
    """A test of a required kind that skips itself fails the run too."""
    pytester.makepyfile("import pytest\n@pytest.mark.kvm_full\ndef test_x(): pytest.skip('no')")
    monkeypatch.setitem(_kinds.CHECKS, "kvm_full", lambda: None)
    assert pytester.runpytest_inprocess("--require", "kvm_full").ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(("profile", "count"), [("", 100), ("dev", 100), ("ci", 50), ("long", 1000)])
def test_hypothesis_profile_is_loaded(pytester, monkeypatch, profile, count):
    """The variable chooses the profile before any test module is imported."""
    monkeypatch.setenv("VMM_HYPOTHESIS_PROFILE", profile)
    pytester.makepyfile(
        "from hypothesis import settings\n"
        f"def test_p(): assert settings().max_examples == {count} and settings().deadline is None"
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


@pytest.mark.testhost
def test_whole_run_moves_into_the_host(pytester):
    """With --testhost a kvm_full test runs, and failures and reports come back out."""
    pytester.makepyfile(
        "import os, pytest\n"
        "@pytest.mark.kvm_full\n"
        "def test_in(): assert os.environ['VMM_TESTHOST'] == '1'\n"
        "def test_bad(): assert 0"
    )
    result = pytester.runpytest_subprocess("--testhost", "--require", "kvm_full", "--junitxml=report.xml")
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert 'tests="2"' in (pytester.path / "report.xml").read_text()
