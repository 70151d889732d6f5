"""tools/boot.py refuses what it cannot use in one line, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def boot(tmp_path, *arguments):
    """Run `make boot`'s command; return its stderr. It must fail before any guest runs."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/boot.py"), *arguments],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert list(scratch.iterdir()) == []
    return done.stderr


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "garbage"])
def test_an_unfit_kernel_is_named(tmp_path, kind):
    """One line, with the path and what is wrong with it."""
    path = tmp_path / f"a kernel é {kind}"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"garbage " * 1000)
    stderr = boot(tmp_path, "--kernel", str(path))
    assert stderr.count("\n") == 1
    assert stderr.startswith(f"boot: KERNEL={path}: ")


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_an_unfit_initrd_is_named(tmp_path, kind):
    """The caller's initramfs is read before anything is made; the kernel here is a bare banner."""
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(b"\x7fELF" + b"Linux version 0.0-none (nobody)")
    path = tmp_path / "an initrd"
    if kind == "folder":
        path.mkdir()
    stderr = boot(tmp_path, "--kernel", str(kernel), "--initrd", str(path))
    assert stderr.splitlines()[-1].startswith(f"boot: INITRD={path}: ")
    assert "Traceback" not in stderr


def test_an_option_the_vmm_refuses_ends_in_its_words(tmp_path):
    """With an initramfs of the caller's too, whose own exit status counts for nothing."""
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(b"\x7fELF" + b"Linux version 0.0-none (nobody)")
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"")
    stderr = boot(tmp_path, "--kernel", str(kernel), "--initrd", str(initrd), "--memory", "8M")
    assert "vmm: --memory size: 8388608 bytes is not within" in stderr
    assert stderr.splitlines()[-1] == "boot: vmm ended with status 2"
    assert "Traceback" not in stderr
