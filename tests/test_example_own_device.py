"""examples/own_device.py keeps its promises: small, and it passes and fails as it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_device.py"


FEWER = """
from hypothesis import Phase, settings
TestMirror.settings = settings(max_examples=60, deadline=None, phases=[Phase.generate])
"""


def run(source, folder):
    """Run pytest on a program alone, without this repository's options."""
    file = folder / "own_device.py"
    file.write_text(source + FEWER)
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", f"--rootdir={folder}", str(file)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250)


def test_it_fits_thirty_lines():
    """The example has at most 30 non-blank lines."""
    assert sum(bool(line.strip()) for line in EXAMPLE.read_text().splitlines()) <= 30


def test_it_passes(tmp_path):
    """As it stands."""
    done = run(EXAMPLE.read_text(), tmp_path)
    assert done.returncode == 0, done.stdout


def test_it_finds_what_is_broken(tmp_path):
    """A device that forgets the room for its answer fails, with a program that shows it."""
    done = run(EXAMPLE.read_text().replace("[: writer.available]", ""), tmp_path)
    assert done.returncode == 1, done.stdout
    assert "trial = DeviceTrial(Mirror," in done.stdout
