"""A user without rights but for /dev/kvm, with a home that cannot be written, passes the packages' tests.

A part that is quick; `.venv/bin/python tools/unprivileged.py -- make test` runs everything so.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

ROOT = Path(__file__).resolve().parents[2]
TOOL = [sys.executable, ROOT / "tools/unprivileged.py", "--here", "--read-only-home", "--"]
QUICK = [
    "packages/vmm-reference/tests/test_cli.py",
    "packages/vmm-reference/tests/test_host.py",
    "packages/vmm-reference/tests/test_session.py",
    "packages/vmm-reference/tests/test_vmm.py",
    "packages/vmm-testhost/tests/test_apt.py",
    "packages/vmm-testhost/tests/test_kinds.py",
    "packages/vm-hypervisor/tests",
    "tests/test_example_tiny_guest.py",
]
KINDS = "not (kvm_full or root_net or testhost or arm64)"


@pytest.fixture
def unprivileged():
    """Return a function that runs a command as such a user and returns what it printed."""
    if os.geteuid() != 0:
        pytest.skip("the whole run is unprivileged already")
    tried = subprocess.run([*TOOL, "true"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace or no change of user here: {tried.stderr.strip()[-200:]}")

    def run(*command):
        return subprocess.run(
            [*TOOL, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
        )

    return run


def test_it_takes_the_rights_away(unprivileged):
    """No name, group, capability, or file of others; a home that is there and cannot be written."""
    script = """
import os, pathlib, pwd
assert os.getresuid() == os.getresgid() == (61234,) * 3 and os.getgroups() == [], os.getgroups()
assert "CapEff:\\t0000000000000000" in pathlib.Path("/proc/self/status").read_text()
for path in (pathlib.Path.home() / "x", pathlib.Path("pyproject.toml"), pathlib.Path("/etc/x")):
    try:
        path.open("a")
    except PermissionError:
        continue
    raise AssertionError(path)
"""
    done = unprivileged(sys.executable, "-c", script)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_quick_part_passes(unprivileged):
    """The tests that look at rights, homes and caches most, and all that need any KVM of two packages."""
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", KINDS]
    done = unprivileged(*pytest_, *QUICK)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 200


def test_what_is_missing_is_one_command(unprivileged, tmp_path):
    """Who cannot install anything is told what to have installed: by the tests, and by a run."""
    python = [sys.executable, "-m"]
    nothing = ["env", f"PATH={tmp_path}"]
    tests = unprivileged(*nothing, sys.executable, "tools/run_tests.py")
    line = r"test: missing tools; run as root: (apt-get update && )?apt-get install -y .*qemu-system-x86.*\n"
    assert (tests.returncode, tests.stdout) == (1, "")
    assert re.fullmatch(line, tests.stderr)
    host = unprivileged(*nothing, *python, "vmm_testhost", "--", "true")
    assert (host.returncode, host.stdout) == (125, "")
    assert re.fullmatch(r"vmm-testhost: .*; run: sudo apt-get install .*qemu-system-x86.*\n", host.stderr)
