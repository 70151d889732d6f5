"""The public face of the package cache."""

import pytest
from vmm_testhost import debian
from vmm_testhost._errors import KernelImageError


def make_tree(cache, monkeypatch, files):
    """Put a package tree into the cache and let the resolver find it."""
    tree = cache / "tree"
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    tree.mkdir(parents=True, exist_ok=True)
    record = {"Package": "linux-image-1", "Version": "1", "Tree": str(tree)}
    monkeypatch.setattr("vmm_testhost._kernel.resolve", lambda _name, *_, **__: record)
    return tree


def test_kernel_names_its_files(cache, monkeypatch):
    """Version and paths follow from the one vmlinuz in the package; modules come in order."""
    modules = "lib/modules/1-test/"
    files = {
        "boot/vmlinuz-1-test": b"",
        modules + "modules.dep": b"a.ko: b.ko\nb.ko:\n",
        modules + "modules.builtin": b"kernel/c.ko\n",
    }
    tree = make_tree(cache, monkeypatch, files)
    kernel = debian.kernel("linux-image-1")
    assert (kernel.version, kernel.bzimage) == ("1-test", tree / "boot/vmlinuz-1-test")
    assert kernel.module_files(["a", "c"]) == [tree / modules / "b.ko", tree / modules / "a.ko"]


def test_package_without_modules_is_refused(cache, monkeypatch):
    """An image without its module tree is named."""
    make_tree(cache, monkeypatch, {"boot/vmlinuz-1-test": b""})
    with pytest.raises(KernelImageError, match="package linux-image-1: no lib/modules/1-test in"):
        debian.kernel("linux-image-1")
