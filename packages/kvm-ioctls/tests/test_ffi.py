"""The fence around the C core: its stub, its errors, its layout table."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import kvm_ioctls
import pytest
from kvm_ioctls import KvmAbiError, KvmOSError
from kvm_ioctls._ffi import check, ioctl_name, layout, lib

ROOT = Path(__file__).parents[1]


def _declared(text, pattern):
    return set(re.findall(pattern, text, flags=re.M))


def test_stub_and_cdef_name_the_same_functions():
    """Every C function is typed, and nothing is typed that does not exist."""
    cdef = (ROOT / "csrc/core.cdef.h").read_text()
    stub = Path(kvm_ioctls.__file__).with_name("_core.pyi").read_text()

    functions = _declared(cdef, r"\b(kvmx_\w+)\(")

    assert functions == _declared(stub, r"def (kvmx_\w+)\(")
    assert len(functions) > 20


def test_stub_and_cdef_name_the_same_constants():
    """The ioctl numbers of the stub are those of the cdef."""
    cdef = (ROOT / "csrc/core.cdef.h").read_text()
    stub = Path(kvm_ioctls.__file__).with_name("_core.pyi").read_text()

    assert _declared(cdef, r"#define (KX_\w+) ") == _declared(stub, r"^    (KX_\w+): int")


def test_header_and_cdef_declare_the_same_functions():
    """core.h and core.cdef.h do not drift apart."""
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "csrc/core.h").read_text(), flags=re.S)
    cdef = (ROOT / "csrc/core.cdef.h").read_text()

    def prototypes(text):
        return {" ".join(p.split()) for p in re.findall(r"^[\w ]+[ *]kvmx_\w+\([^)]*\);", text, flags=re.M)}

    assert prototypes(header) == prototypes(cdef)


def test_ioctl_numbers_are_unique():
    """No two ioctls share a number, so an error always names the right one."""
    numbers = {name: getattr(lib, name) for name in dir(lib) if name.startswith("KX_")}

    assert len(set(numbers.values())) == len(numbers)


def test_ioctl_name_of_known_and_unknown():
    """Known numbers give their KVM name, others the number."""
    assert ioctl_name(lib.KX_SET_REGS) == "KVM_SET_REGS"
    assert ioctl_name(0x1234) == "ioctl 0x1234"


def test_check_passes_answers_and_raises_errno():
    """Answers pass through; -errno becomes an OSError that names call, subject and errno."""
    assert check(7, lib.KX_RUN, "vCPU 0") == 7
    with pytest.raises(KvmOSError, match=r"^KVM_RUN on vCPU 0: Invalid argument \(EINVAL\)$") as err:
        check(-errno.EINVAL, lib.KX_RUN, "vCPU 0")

    assert (err.value.errno, err.value.ioctl, err.value.subject) == (errno.EINVAL, "KVM_RUN", "vCPU 0")


def test_check_turns_protocol_errors_into_abi_errors():
    """A malformed run page is the kernel's fault, not an OSError."""
    with pytest.raises(KvmAbiError, match="KVM_RUN on vCPU 1: the run page contradicts the KVM ABI"):
        check(-errno.EPROTO, lib.KX_RUN, "vCPU 1")


def test_layout_holds_every_struct():
    """The layout table has the struct sizes the kernel documentation gives."""
    table = layout()

    assert table["run", ""] == (0, 2352)
    assert table["sregs", "efer"] == (264, 8)


def test_selftest_overrun_is_inert_or_reported():
    """A normal build does not overrun anything; a sanitized one is stopped at it."""
    script = "from kvm_ioctls._ffi import lib; print(lib.kvmx_selftest_overrun())"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert run.stdout.strip() == str(-errno.ENOSYS) or "heap-buffer-overflow" in run.stderr
