"""Commands of the tools end, whatever they are, and take along what they started."""

import os
import sys
import time
from pathlib import Path

import bounded
import pytest

pytestmark = pytest.mark.pure

HANG = """
import faulthandler, time
faulthandler.enable()
def stands_here():
    print("began", flush=True)
    time.sleep(600)
stands_here()
"""
# Its child outlives it, holds its output, and ends itself if nobody else does.
LEAVES = """
import subprocess, sys
print(subprocess.Popen(["sleep", "600"]).pid)
sys.exit(3)
"""


def python(script, **options):
    """Run a script within 60 s."""
    return bounded.run(
        [sys.executable, "-c", script],
        **{"limit": 60, "cwd": Path("/"), "env": {"PATH": os.environ["PATH"]}} | options,
    )


def test_output_and_errors(capfd):
    """Both are kept apart, the status is the command's, and there is nothing to read."""
    ended = python("import sys; print(sys.stdin.read() + 'out'); print('err', file=sys.stderr); sys.exit(4)")
    assert (ended.status, ended.output, ended.errors) == (4, "out\n", "err\n")
    assert ended.text == "out\nerr\n"
    assert capfd.readouterr().out == ""


def test_echo(capfd):
    """It can be watched."""
    assert python("import sys; print('out'); print('err', file=sys.stderr)", echo=True).status == 0
    assert sorted(capfd.readouterr().out.split()) == ["err", "out"]


def test_a_hang_says_where():
    """The stacks are in the errors, and what the limit was is their last line."""
    ended = python(HANG, limit=10)
    assert (ended.status, ended.output) == (-6, "began\n")
    assert "in stands_here" in ended.errors
    assert ended.errors.splitlines()[-1] == "ended at its limit of 10 s"


def alive(state):
    """Whether the process of a /proc/PID/stat is more than a zombie."""
    try:
        return state.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_nothing_is_left_behind():
    """A child that holds the output is not waited for, and is gone."""
    ended = python(LEAVES)
    assert ended.status == 3
    state = Path(f"/proc/{int(ended.output)}/stat")
    deadline = time.monotonic() + 60
    while alive(state) and time.monotonic() < deadline:  # killed it is, but on a busy machine not yet dead
        time.sleep(0.05)
    assert not alive(state)
