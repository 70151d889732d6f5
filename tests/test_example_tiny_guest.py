"""examples/tiny_guest.py keeps its promises: small, self-contained, right, quick."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "tiny_guest.py"


def test_it_fits_sixty_lines():
    """The example has at most 60 non-blank lines."""
    assert sum(bool(line.strip()) for line in EXAMPLE.read_text().splitlines()) <= 60


def test_it_needs_no_upper_floor():
    """It imports the KVM and memory packages and the standard library, nothing else."""
    tree = ast.parse(EXAMPLE.read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}

    assert modules - set(sys.stdlib_module_names) == {"kvm_ioctls", "vmm_memory"}


@pytest.mark.kvm
def test_guest_and_host_agree():
    """Two runs with random input agree with the host, on different input, without a warning."""
    command = [sys.executable, "-W", "error", str(EXAMPLE)]
    began = time.monotonic()
    runs = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2)]

    assert [(run.returncode, run.stderr) for run in runs] == [(0, "")] * 2
    assert runs[0].stdout != runs[1].stdout
    assert all("random bytes: guest 0x" in run.stdout for run in runs)
    assert time.monotonic() - began < 20  # a second outside; CPython is many times slower in an emulated host
