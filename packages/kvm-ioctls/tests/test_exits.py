"""Exits other than port and MMIO, each from the bytes the kernel puts into the union."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import (
    ApResetHold,
    Arm64Debug,
    ArmLdst64b,
    ArmNisv,
    ArmSea,
    BusLock,
    Debug,
    DirtyRingFull,
    Exception_,
    ExitReason,
    FailEntry,
    Hlt,
    Hypercall,
    HypervHcall,
    HypervSyndbg,
    HypervSynic,
    InternalError,
    Intr,
    IoapicEoi,
    IoOut,
    IrqWindowOpen,
    MemoryFault,
    Nmi,
    Notify,
    RdMsr,
    Riscv64Debug,
    RiscvCsr,
    RiscvSbi,
    SetTpr,
    Shutdown,
    SnpReqCerts,
    SystemEvent,
    Tdx,
    TprAccess,
    Unknown,
    WrMsr,
    XenHcall,
)
from kvm_ioctls._exits_arch import debug_exit
from kvm_ioctls._ffi import ffi, lib
from kvm_ioctls.testing import FakeRunPage

pack = struct.pack
CASES = [
    (ExitReason.UNKNOWN, pack("<Q", 77), Unknown(0, 77)),
    (ExitReason.EXCEPTION, pack("<II", 13, 5), Exception_(13, 5)),
    (
        ExitReason.HYPERCALL,
        pack("<8QII", 12, 1, 2, 3, 4, 5, 6, 0, 1, 0),
        Hypercall(12, (1, 2, 3, 4, 5, 6), 1),
    ),
    (ExitReason.DEBUG, pack("<IIQQQ", 1, 0, 0x1234, 0x4000, 0x400), Debug(1, 0x1234, 0x4000, 0x400)),
    (ExitReason.HLT, b"", Hlt()),
    (ExitReason.IRQ_WINDOW_OPEN, b"", IrqWindowOpen()),
    (ExitReason.SHUTDOWN, b"", Shutdown()),
    (ExitReason.FAIL_ENTRY, pack("<QI", 0x80000021, 3), FailEntry(0x80000021, 3)),
    (ExitReason.INTR, b"", Intr()),
    (ExitReason.SET_TPR, b"", SetTpr()),
    (ExitReason.TPR_ACCESS, pack("<QI", 0xFFF0, 1), TprAccess(0xFFF0, True)),
    (ExitReason.NMI, b"", Nmi()),
    (ExitReason.INTERNAL_ERROR, pack("<II2Q", 3, 2, 8, 9), InternalError(3, (8, 9), b"")),
    (ExitReason.SYSTEM_EVENT, pack("<IIQ", 2, 1, 42), SystemEvent(2, (42,))),
    (ExitReason.IOAPIC_EOI, b"\x31", IoapicEoi(0x31)),
    (ExitReason.X86_RDMSR, pack("<QIIQ", 0, 2, 0x4B564D00, 0), RdMsr(0x4B564D00, 2)),
    (ExitReason.X86_WRMSR, pack("<QIIQ", 0, 4, 0x10, 99), WrMsr(0x10, 4, 99)),
    (ExitReason.NOTIFY, pack("<I", 1), Notify(1)),
    (ExitReason.MEMORY_FAULT, pack("<QQQ", 8, 0x10_0000, 4096), MemoryFault(8, 0x10_0000, 4096)),
    (ExitReason.HYPERV, pack("<II II QQQ", 1, 0, 0x40000080, 0, 1, 2, 3), HypervSynic(0x40000080, 1, 2, 3)),
    (ExitReason.HYPERV, pack("<IIQQ2Q", 2, 0, 0x5C, 0, 7, 8), HypervHcall(0x5C, (7, 8))),
    (
        ExitReason.HYPERV,
        pack("<II II 5Q", 3, 0, 0x400000F1, 0, 1, 2, 3, 4, 5),
        HypervSyndbg(0x400000F1, 1, 2, 3, 4, 5),
    ),
    (ExitReason.HYPERV, pack("<II", 99, 0), Unknown(ExitReason.HYPERV)),
    (ExitReason.ARM_NISV, pack("<QQ", 0x12, 0x900_0000), ArmNisv(0x12, 0x900_0000)),
    (ExitReason.ARM_LDST64B, pack("<QQ", 0x13, 0x900_0040), ArmLdst64b(0x13, 0x900_0040)),
    (ExitReason.ARM_SEA, pack("<4Q", 1, 2, 3, 4), ArmSea(1, 2, 3, 4)),
    (ExitReason.DIRTY_RING_FULL, b"", DirtyRingFull()),
    (ExitReason.AP_RESET_HOLD, b"", ApResetHold()),
    (ExitReason.X86_BUS_LOCK, b"", BusLock()),
    (
        ExitReason.XEN,
        pack("<IIII8Q", 1, 0, 1, 3, 17, 0, 1, 2, 3, 4, 5, 6),
        XenHcall(True, 3, 17, (1, 2, 3, 4, 5, 6)),
    ),
    (
        ExitReason.RISCV_SBI,
        pack("<10Q", 0x10, 3, 1, 2, 3, 4, 5, 6, 0, 0),
        RiscvSbi(0x10, 3, (1, 2, 3, 4, 5, 6)),
    ),
    (ExitReason.RISCV_CSR, pack("<4Q", 0x15, 7, 0xFF, 0), RiscvCsr(0x15, 7, 0xFF)),
    (ExitReason.TDX, pack("<8Q", 0, 0x10002, 0, 1, 2, 3, 4, 5), Tdx(0, 0x10002, (1, 2, 3, 4, 5))),
    (ExitReason.SNP_REQ_CERTS, pack("<3Q", 0x5000, 4, 0), SnpReqCerts(0x5000, 4)),
    (13, b"\x08" + bytes(255), Unknown(13, payload=b"\x08" + bytes(255))),
    (1000, b"\xff" * 256, Unknown(1000, payload=b"\xff" * 256)),
]


@pytest.mark.parametrize(("reason", "body", "expected"), CASES, ids=lambda v: str(v)[:40])
def test_each_reason_has_its_class(reason, body, expected):
    """The union's bytes become the fields of the matching class."""
    assert FakeRunPage().put(reason, body).decode() == expected


def test_exits_match_structurally():
    """Exits work in match statements by position and by name."""
    match FakeRunPage().put_io(write=True, port=0x80, size=1, data=b"\x07").decode():
        case IoOut(0x80, size=1, data=data):
            matched = data
        case _:
            matched = None

    assert matched == b"\x07"


def test_emulation_failure_shows_the_instruction():
    """Suberror 1 with the flag set carries the bytes that KVM could not emulate."""
    body = pack("<IIQB15s", 1, 4, 1, 3, b"\x0f\x01\xd0")

    exit_ = FakeRunPage().put(ExitReason.INTERNAL_ERROR, body).decode()

    assert (exit_.suberror, exit_.insn) == (1, b"\x0f\x01\xd0")


def test_emulation_failure_without_the_flag_has_no_instruction():
    """Bytes behind a clear flag are not shown as an instruction."""
    body = pack("<IIQB15s", 1, 4, 0, 3, b"\x0f\x01\xd0")

    assert FakeRunPage().put(ExitReason.INTERNAL_ERROR, body).decode().insn == b""


@given(count=st.integers(0, 2**32 - 1))
def test_counts_beyond_the_array_are_cut(count):
    """A count larger than the 16 words of the ABI yields the 16 that exist."""
    for reason in (ExitReason.INTERNAL_ERROR, ExitReason.SYSTEM_EVENT):
        exit_ = FakeRunPage().put(reason, pack("<II", 9, count)).decode()

        assert len(exit_.data) == min(count, 16)


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("x86_64", Debug(0x92000047, 0x1234, 5, 6)),
        ("aarch64", Arm64Debug(0x1_9200_0047, 0x1234)),
        ("riscv64", Riscv64Debug()),
    ],
)
def test_debug_exits_are_the_hosts(arch, expected):
    """The same words are another struct on each architecture."""
    assert debug_exit((0x1_9200_0047, 0x1234, 5, 6), arch) == expected


def test_exits_cannot_be_changed():
    """An exit is a record of what was."""
    with pytest.raises(AttributeError):
        Notify(1).flags = 2


def test_long_mode_is_a_flag_of_a_hypercall():
    """Bit 0 on x86-64."""
    assert (Hypercall(1, (), 1).longmode, Hypercall(1, (), 2).longmode) == (True, False)


ANSWERS = [
    (ExitReason.HYPERCALL, b"", 56, 1),
    (ExitReason.XEN, pack("<I", 1), 24, 1),
    (ExitReason.HYPERV, pack("<II", 2, 0), 16, 1),
    (ExitReason.HYPERV, pack("<II", 3, 0), 24, 1),
    (ExitReason.RISCV_SBI, b"", 64, 2),
    (ExitReason.RISCV_CSR, b"", 24, 1),
    (ExitReason.TDX, b"", 16, 2),
    (ExitReason.SNP_REQ_CERTS, b"", 16, 1),
]


@pytest.mark.parametrize(("reason", "body", "offset", "count"), ANSWERS)
@given(value=st.integers(0, 2**64 - 1), second=st.integers(0, 2**64 - 1))
def test_answers_land_where_the_kernel_reads_them(reason, body, offset, count, value, second):
    """At the offset in the union that the kernel's header has, and nowhere else."""
    page = bytearray(4096)
    pack_into = struct.pack_into
    pack_into("<I", page, 8, reason)
    page[32 : 32 + len(body)] = body
    expected = bytearray(page)
    pack_into(f"<{count}Q", expected, 32 + offset, *(value, second)[:count])

    assert lib.kvmx_reply(ffi.from_buffer(page), value, second) == 0
    assert page == expected


@pytest.mark.parametrize(("reason", "body"), [(5, b""), (2, b""), (27, pack("<II", 1, 0)), (1000, b"")])
def test_other_exits_take_no_answer(reason, body):
    """A page whose exit waits for nothing is left alone."""
    page = bytearray(4096)
    struct.pack_into("<I", page, 8, reason)
    page[32 : 32 + len(body)] = body
    before = bytes(page)

    assert lib.kvmx_reply(ffi.from_buffer(page), 1, 2) == -errno.ENODATA
    assert page == before
