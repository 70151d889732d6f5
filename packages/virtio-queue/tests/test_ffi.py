"""The boundary to C: declarations, stubs and shared headers agree."""

import ast
import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
import virtio_queue
from virtio_queue import AbiMismatchError, ChainBatch, Queue
from virtio_queue._batch import CHAIN
from virtio_queue._core import ffi, lib
from vmm_memory import GuestMemoryMmap

HERE = Path(__file__).parent.parent
SIBLINGS = HERE.parent


def test_stub_and_declarations_name_the_same_functions():
    """Each function of the cdef is typed, and no other."""
    declared = set(
        re.findall(r"^int(?:64_t)? (\w+)\(", (HERE / "csrc/core.cdef.h").read_text(), re.MULTILINE)
    )
    tree = ast.parse(Path(virtio_queue.__file__).with_name("_core.pyi").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Lib"]
    assert declared == {node.name for node in typed.body if isinstance(node, ast.FunctionDef)}
    assert all(hasattr(lib, name) for name in declared)


@pytest.mark.parametrize("header", ["vmm-memory/csrc/vmm_access.h", "virtio-devices/csrc/virtio_batch.h"])
def test_shared_headers_have_not_drifted(header):
    """The copies beside us are identical, when the sibling is there."""
    path = SIBLINGS / header
    if not path.exists():
        pytest.skip(f"{path} is not checked out")
    assert path.read_bytes() == (HERE / "csrc" / path.name).read_bytes()


def test_generated_code_is_current(tmp_path):
    """The committed cffi code is what its sources give."""
    pytest.importorskip("cffi.gen_src")
    out = tmp_path / "_core_cffi.c"
    sources = [str(HERE / "csrc" / name) for name in ("core.cdef.h", "core.csrc.c")]
    command = [sys.executable, "-m", "cffi.gen_src", "read-sources", "virtio_queue._core", *sources, str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert out.read_bytes() == (HERE / "csrc/_core_cffi.c").read_bytes()


def test_layouts_are_those_of_the_header():
    """Python reads the arrays of a batch with the sizes that C has."""
    assert ffi.sizeof("struct virtio_chain") == CHAIN.size == 32
    assert ffi.sizeof("struct virtio_seg") == 16


def test_foreign_abi_is_refused():
    """A batch of another layout is refused before it is looked into."""
    mem = GuestMemoryMmap.from_ranges([(0, 0x1000)])
    queue = Queue(2)
    queue.desc_table, queue.avail_ring, queue.used_ring, queue.ready = 0, 0x100, 0x200, True
    batch = ChainBatch(2, 2)
    batch._arrays.batch.abi += 1
    with pytest.raises(AbiMismatchError, match="built for another ABI"):
        queue.pop_batch(mem, batch)
    with pytest.raises(AbiMismatchError, match="built for another ABI"):
        queue.complete_batch(mem, batch)


def test_selftest_exists_only_under_sanitizers():
    """An ordinary build does no deliberate overrun."""
    import os

    if os.environ.get("VMM_SANITIZE"):
        pytest.skip("the root tests run the overrun in a process of its own")
    assert lib.virtq_selftest_overrun() == -errno.ENOSYS
