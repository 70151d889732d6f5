"""Fixtures: synthetic kernels, and real ones where a folder is named."""

import os
from pathlib import Path

import pytest
from linux_loader.testing import LINUX_NOTE, SegmentSpec, build_elf, pvh_note

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
