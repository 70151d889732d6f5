"""Exits other than port and MMIO, each from the bytes the kernel puts into the union."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import (
    Debug,
    Exception_,
    ExitReason,
    FailEntry,
    Hlt,
    Hypercall,
    InternalError,
    Intr,
    IoapicEoi,
    IoOut,
    IrqWindowOpen,
    MemoryFault,
    Nmi,
    Notify,
    RdMsr,
    SetTpr,
    Shutdown,
    SystemEvent,
    TprAccess,
    Unknown,
    WrMsr,
)
from kvm_ioctls.testing import FakeRunPage

pack = struct.pack
CASES = [
    (ExitReason.UNKNOWN, pack("<Q", 77), Unknown(0, 77)),
    (ExitReason.EXCEPTION, pack("<II", 13, 5), Exception_(13, 5)),
    (
        ExitReason.HYPERCALL,
        pack("<8QII", 12, 1, 2, 3, 4, 5, 6, 0, 1, 0),
        Hypercall(12, (1, 2, 3, 4, 5, 6), True),
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
    (31, b"", Unknown(31)),
    (1000, b"\xff" * 256, Unknown(1000)),
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
