"""Fixtures: synthetic kernels, and real ones where a folder is named."""

import ctypes
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from linux_loader.testing import LINUX_NOTE, SegmentSpec, build_elf, pvh_note
from vmm_testhost import SetupError
from vmm_testhost.debian import fetch_package

MIB = 1 << 20


@pytest.fixture(scope="session")
def vmlinux():
    """A 64-bit ELF kernel with a Linux and a PVH note, two segments and a BSS."""
    return build_elf(
        [SegmentSpec(16 * MIB, b"\xf4" * 5000, 8192), SegmentSpec(18 * MIB, bytes(range(256)) * 8)],
        entry=16 * MIB + 0x53,
        notes=[LINUX_NOTE + pvh_note(16 * MIB + 0x30)],
    )


@pytest.fixture(scope="session")
def real_kernels():
    """Every vmlinuz* below $VMM_TEST_KERNELS."""
    folder = os.environ.get("VMM_TEST_KERNELS")
    if not folder:
        pytest.skip("VMM_TEST_KERNELS names no folder with vmlinuz* files")
    found = sorted(Path(folder).rglob("vmlinuz*"))
    if not found:
        pytest.skip(f"no vmlinuz* below VMM_TEST_KERNELS={folder}")
    return found


@pytest.fixture(scope="session")
def dtc():
    """Runs the reference device tree compiler; skips where it is not installed."""
    if shutil.which("dtc") is None:
        pytest.skip("dtc (device-tree-compiler) is not installed")

    def run(data, source, target):
        """Return what dtc makes of one format in another."""
        words = ["dtc", "-q", "-I", source, "-O", target, "-o", "-", "-"]
        done = subprocess.run(words, input=data, capture_output=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def dtc_complaints():
    """What the device tree compiler's checks say of a blob; skips where it is not installed."""
    if shutil.which("dtc") is None:
        pytest.skip("dtc (device-tree-compiler) is not installed")

    def run(blob):
        words = ["dtc", "-I", "dtb", "-O", "dtb", "-o", "/dev/null", "-"]
        done = subprocess.run(words, input=blob, capture_output=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stderr.decode()

    return run


@pytest.fixture(scope="session")
def libfdt_tree():
    """Walks a blob with libfdt, from Debian's packages, unpacked and never installed."""
    try:
        library = fetch_package("libfdt1") / "usr/lib/x86_64-linux-gnu/libfdt.so.1"
        folder = fetch_package("python3-libfdt") / "usr/lib/python3/dist-packages"
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        sys.path.insert(0, str(folder))
        libfdt = importlib.import_module("libfdt")
    except (SetupError, OSError, ImportError) as error:
        pytest.skip(f"python3-libfdt cannot be had or used: {error}")

    quiet = (libfdt.NOTFOUND,)

    def node(fdt, at):
        properties, children = [], []
        offset = fdt.first_property_offset(at, quiet)
        while offset >= 0:
            found = fdt.get_property_by_offset(offset)
            properties.append((found.name, bytes(found)))
            offset = fdt.next_property_offset(offset, quiet)
        offset = fdt.first_subnode(at, quiet)
        while offset >= 0:
            children.append(node(fdt, offset))
            offset = fdt.next_subnode(offset, quiet)
        return fdt.get_name(at), properties, children

    return lambda blob: node(libfdt.FdtRo(blob), 0)
