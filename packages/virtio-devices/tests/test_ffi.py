"""The C core: declarations, copies of shared headers, what it refuses, the sanitizer self-test."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
import virtio_devices
from virtio_devices import CoreError
from virtio_devices._blk_disk import BlkReport, DiskFlag, DiskView
from virtio_devices._ffi import NativeDataPath
from virtio_queue import ChainBatch
from vmm_memory import GuestMemoryMmap, get_include

PACKAGE = Path(__file__).parents[1]


def test_stub_and_declarations_agree():
    """Every C function is in _core.pyi and the reverse."""
    declared = set(
        re.findall(r"^\w[\w *]*?(\w+)\([^;]*;", (PACKAGE / "csrc/core.cdef.h").read_text(), re.MULTILINE)
    )
    stub = Path(virtio_devices.__file__).with_name("_core.pyi").read_text()
    typed = set(re.findall(r"def (\w+)\(", stub.split("class Lib(")[1].split("class FFI(")[0]))
    assert declared == typed
    assert declared == {"vblk_process_at", "vblk_selftest_overrun", "vnet_receive_at", "vnet_transmit_at"}


def test_the_access_header_is_vmm_memorys():
    """The committed copy is the one that the installed vmm-memory ships."""
    theirs = Path(get_include()) / "vmm_access.h"
    assert (PACKAGE / "csrc/vmm_access.h").read_text() == theirs.read_text()


def test_the_batch_header_is_virtio_queues():
    """The committed copy is the sibling's, where the sibling's sources are at hand."""
    theirs = PACKAGE.parent / "virtio-queue/csrc/virtio_batch.h"
    if not theirs.exists():
        pytest.skip("virtio-queue's sources are not beside this package")
    assert (PACKAGE / "csrc/virtio_batch.h").read_text() == theirs.read_text()


def test_the_generated_code_is_current(tmp_path):
    """_core_cffi.c is what cffi makes of the declarations today."""
    made = tmp_path / "_core_cffi.c"
    command = [sys.executable, "-m", "cffi.gen_src", "read-sources", "virtio_devices._core"]
    sources = [PACKAGE / "csrc/core.cdef.h", PACKAGE / "csrc/core.csrc.c", made]
    if subprocess.run([*command, *sources], capture_output=True, check=False).returncode:
        pytest.skip("this cffi has no gen_src (2.1 or newer needed)")
    assert made.read_text() == (PACKAGE / "csrc/_core_cffi.c").read_text()


def test_impossible_limits_are_refused():
    """More segments than the core has room for is our caller's mistake, found before anything is done."""
    view = DiskView("disk0", -1, 1, DiskFlag(0), max_ranges=33)
    with pytest.raises(CoreError, match="disk0: batch of 0 requests: core returned -22") as caught:
        NativeDataPath(view, BlkReport()).run(GuestMemoryMmap(), ChainBatch(1, 1))
    assert caught.value.code == -errno.EINVAL


def test_a_foreign_batch_is_refused():
    """A batch whose ABI word is another one is not touched."""
    batch = ChainBatch(1, 1)
    batch._arrays.batch.abi = 0
    with pytest.raises(CoreError, match="-71: vmm-memory or virtio-queue has another ABI"):
        NativeDataPath(DiskView("disk0", -1, 1, DiskFlag(0)), BlkReport()).run(GuestMemoryMmap(), batch)


def test_the_overrun_is_reported_by_sanitizer_builds():
    """In a child: a normal build has no deliberate overrun, a build with ASan stops at it and says so."""
    script = "import sys; from virtio_devices._ffi import lib; sys.exit(lib.vblk_selftest_overrun() + 38)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "heap-buffer-overflow" in done.stderr


def test_the_core_builds_as_a_plain_program(tmp_path):
    """No Python.h, no warnings: the core compiles alone with all warnings as errors."""
    done = subprocess.run(
        [
            "gcc",
            "-std=c11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-c",
            PACKAGE / "csrc/core.c",
            "-o",
            tmp_path / "o",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
