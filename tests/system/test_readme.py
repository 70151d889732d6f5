"""README.md keeps its word: its example runs, its options are those of the command."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def first_block(language: str) -> str:
    """Return the first fenced block of that language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.mark.kvm
def test_the_example_runs():
    """The first Python block runs as it is, without a warning, and prints what its comment says."""
    example = first_block("python")
    promised = re.findall(r"print\(.*\)  # (.+)$", example, re.MULTILINE)
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert promised
    assert done.stdout.splitlines() == promised


def test_the_example_is_short():
    """Fifteen lines: more would be a program, not a first look."""
    assert sum(bool(line.strip()) for line in first_block("python").splitlines()) <= 15


def test_options_are_those_of_the_command():
    """Each option and key of `vmm run --help` is in the table, and the table has no other option."""
    command = [sys.executable, "-m", "vmm_reference", "run", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = shown.partition("\n\n")[0]
    table = README.partition("## `vmm run`")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(--[\w-]+)", table)) - {"--version"} == set(re.findall(r"(--[\w-]+)", usage))
    keys = set(re.findall(r"(?<=\s)([a-z]+)=(?=\s)", shown))
    assert keys
    assert {key for key in keys if f"`{key}=" not in table} == set()


def test_every_kind_of_test_is_explained():
    """The markers of the pytest plugin are the rows of the table."""
    command = [sys.executable, "-m", "pytest", "--markers", "-p", "no:cacheprovider"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = {"pure", "kvm", "kvm_full", "root_net", "arm64", "testhost"}
    assert kinds <= set(re.findall(r"^@pytest\.mark\.(\w+):", shown, re.MULTILINE))
    assert set(re.findall(r"^\| `(\w+)`", README.partition("| tests marked |")[2], re.MULTILINE)) == kinds


def test_prerequisites_are_those_of_ci():
    """The line to type, what CI installs, and what the Makefile asks for are one list."""
    line = re.search(r"^apt-get install (.+)$", README, re.MULTILINE)
    assert line
    root = Path(__file__).parents[2]
    assert f"for package in {line[1]}; do" in (root / ".ci/run").read_text()
    assert f"apt-get install {line[1]}" in (root / "Makefile").read_text()
