"""The examples that boot Linux: small, composed as they say, and right."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import guest
import pytest
from vmm_testhost.cpio import Archive

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    """Run an example with warnings as errors, and return what it printed."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def non_blank_lines(name: str) -> int:
    """Return how much there is to read."""
    return sum(bool(line.strip()) for line in (EXAMPLES / name).read_text().splitlines())


def imported(name: str) -> set[str]:
    """Return the top-level modules that an example imports anywhere."""
    nodes = list(ast.walk(ast.parse((EXAMPLES / name).read_text())))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(("name", "limit"), [("mmio_device.py", 80), ("own_vmm.py", 120)])
def test_it_stays_small(name, limit):
    """An example that no longer fits its size has become something else."""
    assert non_blank_lines(name) <= limit


def test_own_vmm_needs_no_upper_floor():
    """It is composed from five packages, without the reference VMM and without virtio."""
    parts = {"acpi_tables", "linux_loader", "vm_device", "vm_hypervisor", "vmm_memory"}
    assert imported("own_vmm.py") - set(sys.stdlib_module_names) == {*parts, "guest"}


def test_every_example_is_in_the_index():
    """examples/README.md names each of them."""
    index = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f"({path.name})" not in index] == []


@pytest.mark.kvm_full
def test_the_guest_uses_the_python_device():
    """Linux reads what the example chose, and the device ends with what Linux wrote: one more."""
    output = run("mmio_device.py")
    found = re.search(r"register: (\d+) before, (\d+) after\n\Z", output)
    assert found, output
    before, after = int(found[1]), int(found[2])
    assert after == before + 1
    assert f"guest read {before} (4 bytes at offset 0)\nguest wrote {after} (4 bytes" in output


@pytest.mark.kvm_full
def test_own_vmm_boots_debian():
    """Without arguments it brings Debian's kernel to userspace and to its power-off."""
    output = run("own_vmm.py")
    assert "guest: userspace reached" in output
    assert output.endswith("own_vmm: the guest ended with sleep S5\n")


@pytest.mark.kvm_full
def test_own_vmm_boots_what_it_is_given(tmp_path):
    """A bzImage of another kernel and an initramfs of the caller's do as well."""
    archive = Archive()
    archive.file("init", guest.init_program(), 0o755)
    archive.device("/dev/console", "c", 5, 1)
    (tmp_path / "initramfs").write_bytes(archive.build())
    kernel = guest.known_guest("6.1-cloud", elf=False).image
    output = run("own_vmm.py", str(kernel), str(tmp_path / "initramfs"))
    assert "guest: userspace reached" in output
    assert output.endswith("own_vmm: the guest ended with sleep S5\n")
