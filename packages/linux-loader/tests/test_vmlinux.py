"""Unpacking to a file."""

import os

import pytest
from linux_loader import DecompressionError, ImageError, vmlinux_from_bzimage
from linux_loader.testing import build_bzimage


def test_unpack(tmp_path, vmlinux):
    """The file holds the ELF kernel, progress ends at the total, nothing else is left behind."""
    (tmp_path / "vmlinuz").write_bytes(build_bzimage(vmlinux))
    seen = []
    size = vmlinux_from_bzimage(
        tmp_path / "vmlinuz", tmp_path / "vmlinux", progress=lambda *p: seen.append(p)
    )
    assert size == len(vmlinux)
    assert (tmp_path / "vmlinux").read_bytes() == vmlinux
    assert seen[-1] == (size, size)
    assert sorted(os.listdir(tmp_path)) == ["vmlinux", "vmlinuz"]
    assert (tmp_path / "vmlinux").stat().st_mode & 0o400


def test_failure_keeps_the_old_file(tmp_path, vmlinux):
    """A damaged source leaves the target and the folder as they were."""
    (tmp_path / "vmlinuz").write_bytes(build_bzimage(vmlinux, announced=7))
    (tmp_path / "vmlinux").write_bytes(b"old")
    with pytest.raises(DecompressionError):
        vmlinux_from_bzimage(tmp_path / "vmlinuz", tmp_path / "vmlinux")
    (tmp_path / "vmlinuz").write_bytes(build_bzimage(b"no kernel" * 9))
    with pytest.raises(ImageError, match="not a kernel this loader knows"):
        vmlinux_from_bzimage(tmp_path / "vmlinuz", tmp_path / "vmlinux")
    assert (tmp_path / "vmlinux").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["vmlinux", "vmlinuz"]
