"""Why KVM_RUN came back, as small classes made for ``match``.

Values are as the kernel reports them (Documentation/virt/kvm/api.rst section 5): ports and guest physical
addresses as ints, data as little-endian bytes. An exit is a snapshot; keeping one is safe.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from kvm_ioctls._exit_reason import ExitReason
from kvm_ioctls._exits_arch import (
    ApResetHold,
    Arm64Debug,
    ArmLdst64b,
    ArmNisv,
    ArmSea,
    BusLock,
    Debug,
    DirtyRingFull,
    HypervHcall,
    HypervSyndbg,
    HypervSynic,
    Riscv64Debug,
    RiscvCsr,
    RiscvSbi,
    SnpReqCerts,
    Tdx,
    XenHcall,
    debug_exit,
    hyperv_exit,
)
from kvm_ioctls._record import HEAD, WORDS_AT

__all__ = (
    "Exception_",
    "Exit",
    "FailEntry",
    "Hlt",
    "Hypercall",
    "InternalError",
    "Intr",
    "IoIn",
    "IoOut",
    "IoapicEoi",
    "IrqWindowOpen",
    "MemoryFault",
    "MmioRead",
    "MmioWrite",
    "Nmi",
    "Notify",
    "RdMsr",
    "SetTpr",
    "Shutdown",
    "SystemEvent",
    "TprAccess",
    "Unknown",
    "WrMsr",
    "exit_of",
)


@dataclass(frozen=True, slots=True)
class IoIn:
    """The guest reads a port: `count` elements of `size` (1, 2, 4) bytes; answer with set_io_result()."""

    port: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class IoOut:
    """The guest wrote `count` elements of `size` (1, 2, 4) bytes to a port: `data`, little-endian."""

    port: int
    size: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MmioRead:
    """The guest reads `size` (1..8) bytes at `addr`, where no memory is; answer with set_io_result()."""

    addr: int
    size: int


@dataclass(frozen=True, slots=True)
class MmioWrite:
    """The guest wrote `size` (1..8) bytes, `data`, at `addr`, where no memory is."""

    addr: int
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Hlt:
    """The guest halted and there is no in-kernel irqchip to wait for it."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Triple fault."""


@dataclass(frozen=True, slots=True)
class Intr:
    """A kick ended the run; no port or MMIO access is pending and state may be read."""


@dataclass(frozen=True, slots=True)
class Nmi:
    """An NMI of the host interrupted the guest."""


@dataclass(frozen=True, slots=True)
class IrqWindowOpen:
    """The guest can take an interrupt now (asked for with request_interrupt_window)."""


@dataclass(frozen=True, slots=True)
class SetTpr:
    """The guest changed its task priority, with a userspace local APIC."""


@dataclass(frozen=True, slots=True)
class FailEntry:
    """Processor `cpu` of the host refused to enter the guest; `reason` is the hardware's."""

    reason: int
    cpu: int


@dataclass(frozen=True, slots=True)
class InternalError:
    """KVM gave up, with words of `data`; suberror 1: it could not emulate an instruction, `insn` if known."""

    suberror: int
    data: tuple[int, ...]
    insn: bytes


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """The guest asked for `type` 1 shutdown, 2 reset, 3 crash, 4 wakeup, 5 suspend; `data` says more."""

    type: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exception_:  # noqa: N801 - the builtin has the plain name
    """An exception vector with its `error_code`, on processors that report it."""

    exception: int
    error_code: int


@dataclass(frozen=True, slots=True)
class Hypercall:
    """KVM_HC_* or SMCCC number `nr` with its `args`, passed to userspace; answer with set_exit_result().

    `flags`: on x86-64 bit 0 is long mode; on arm64 bit 0 an SMC, bit 1 a 16-bit instruction.
    """

    nr: int
    args: tuple[int, ...]
    flags: int

    @property
    def longmode(self) -> bool:
        """Whether an x86-64 guest was in 64-bit mode."""
        return bool(self.flags & 1)


@dataclass(frozen=True, slots=True)
class RdMsr:
    """The guest reads MSR `index`; `reason` (``MsrExits``) says why it exits; answer with set_msr_result."""

    index: int
    reason: int


@dataclass(frozen=True, slots=True)
class WrMsr:
    """The guest writes `data` to MSR `index`, else as ``RdMsr``; answer with set_msr_result().

    `reason` (``MsrExits``) says why it exits.
    """

    index: int
    reason: int
    data: int


@dataclass(frozen=True, slots=True)
class IoapicEoi:
    """The guest acknowledged level interrupt `vector` of a userspace I/O APIC (split irqchip)."""

    vector: int


@dataclass(frozen=True, slots=True)
class TprAccess:
    """The guest's instruction at `rip` touched its task priority register; `is_write`: wrote it."""

    rip: int
    is_write: bool


@dataclass(frozen=True, slots=True)
class Notify:
    """The guest had no event window for too long; bit 0 of `flags`: its context is not valid any more."""

    flags: int


@dataclass(frozen=True, slots=True)
class MemoryFault:
    """KVM could not resolve `size` bytes at `gpa` (Linux 6.8); bit 3 of `flags` means private memory."""

    flags: int
    gpa: int
    size: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A reason without a class of its own; `payload` is the 256 bytes that the run page holds for it.

    `hardware` is set when the kernel did not know it either (KVM_EXIT_UNKNOWN).
    """

    reason: int
    hardware: int = 0
    payload: bytes = field(default=b"", repr=False)


Exit: TypeAlias = (
    IoIn
    | IoOut
    | MmioRead
    | MmioWrite
    | Hlt
    | Shutdown
    | Intr
    | Nmi
    | IrqWindowOpen
    | SetTpr
    | FailEntry
    | InternalError
    | SystemEvent
    | Exception_
    | Debug
    | Hypercall
    | RdMsr
    | WrMsr
    | IoapicEoi
    | TprAccess
    | Notify
    | MemoryFault
    | ApResetHold
    | Arm64Debug
    | ArmLdst64b
    | ArmNisv
    | ArmSea
    | BusLock
    | DirtyRingFull
    | HypervHcall
    | HypervSynic
    | HypervSyndbg
    | Riscv64Debug
    | RiscvCsr
    | RiscvSbi
    | SnpReqCerts
    | Tdx
    | XenHcall
    | Unknown
)
"""Whatever `VcpuFd.run` returns."""

EMULATION_FAILURE = 1
INSN_BYTES_VALID = 1


def _internal_error(words: tuple[int, ...]) -> InternalError:
    suberror, count = words[0], words[1]
    data = words[2 : 2 + count]
    insn = b""
    # struct emulation_failure overlays data[]: flags, then one byte of length and 15 of instruction.
    if suberror == EMULATION_FAILURE and count >= 3 and data[0] & INSN_BYTES_VALID:
        overlay = data[1].to_bytes(8, "little") + data[2].to_bytes(8, "little")
        insn = overlay[1 : 1 + min(overlay[0], 15)]
    return InternalError(suberror, data, insn)


_BUILDERS: dict[int, Callable[[tuple[int, ...]], Exit]] = {
    ExitReason.UNKNOWN: lambda w: Unknown(0, w[0]),
    ExitReason.EXCEPTION: lambda w: Exception_(w[0], w[1]),
    ExitReason.HYPERCALL: lambda w: Hypercall(w[0], w[2:8], w[1]),
    ExitReason.DEBUG: debug_exit,
    ExitReason.HLT: lambda _: Hlt(),
    ExitReason.IRQ_WINDOW_OPEN: lambda _: IrqWindowOpen(),
    ExitReason.SHUTDOWN: lambda _: Shutdown(),
    ExitReason.FAIL_ENTRY: lambda w: FailEntry(w[0], w[1]),
    ExitReason.INTR: lambda _: Intr(),
    ExitReason.SET_TPR: lambda _: SetTpr(),
    ExitReason.TPR_ACCESS: lambda w: TprAccess(w[0], bool(w[1])),
    ExitReason.NMI: lambda _: Nmi(),
    ExitReason.INTERNAL_ERROR: _internal_error,
    ExitReason.SYSTEM_EVENT: lambda w: SystemEvent(w[0], w[2 : 2 + w[1]]),
    ExitReason.IOAPIC_EOI: lambda w: IoapicEoi(w[0]),
    ExitReason.X86_RDMSR: lambda w: RdMsr(w[0], w[1]),
    ExitReason.X86_WRMSR: lambda w: WrMsr(w[0], w[1], w[2]),
    ExitReason.NOTIFY: lambda w: Notify(w[0]),
    ExitReason.MEMORY_FAULT: lambda w: MemoryFault(w[0], w[1], w[2]),
    ExitReason.HYPERV: lambda w: hyperv_exit(w) or Unknown(ExitReason.HYPERV),
    ExitReason.ARM_NISV: lambda w: ArmNisv(w[0], w[1]),
    ExitReason.DIRTY_RING_FULL: lambda _: DirtyRingFull(),
    ExitReason.AP_RESET_HOLD: lambda _: ApResetHold(),
    ExitReason.X86_BUS_LOCK: lambda _: BusLock(),
    ExitReason.XEN: lambda w: XenHcall(bool(w[1]), w[2], w[3], w[4:10]),
    ExitReason.RISCV_SBI: lambda w: RiscvSbi(w[0], w[1], w[2:8]),
    ExitReason.RISCV_CSR: lambda w: RiscvCsr(w[0], w[1], w[2]),
    ExitReason.TDX: lambda w: Tdx(w[0], w[1], w[2:7]),
    ExitReason.ARM_SEA: lambda w: ArmSea(w[0], w[1], w[2], w[3]),
    ExitReason.ARM_LDST64B: lambda w: ArmLdst64b(w[0], w[1]),
    ExitReason.SNP_REQ_CERTS: lambda w: SnpReqCerts(w[0], w[1]),
}


def _build_exit(reason: int, words: tuple[int, ...]) -> Exit:
    """Build the object of any exit that is not port or MMIO; `words` as csrc/core.c orders them."""
    builder = _BUILDERS.get(reason)
    if builder is None:
        return Unknown(reason, payload=struct.pack(f"<{len(words)}Q", *words))
    return builder(words)


def exit_of(view: memoryview, data: Callable[[int], bytes]) -> Exit:
    """Build the typed exit of a filled record; `data(n)` fetches n bytes, for string output only."""
    reason, mmio, write, size, count, nwords, addr, value = HEAD.unpack_from(view)
    if not count:
        return _build_exit(reason, struct.unpack_from(f"<{nwords}Q", view, WORDS_AT))
    if not write:
        return MmioRead(addr, size) if mmio else IoIn(addr, size, count)
    if mmio:
        return MmioWrite(addr, size, value.to_bytes(size, "little"))
    if count == 1:
        return IoOut(addr, size, 1, value.to_bytes(size, "little"))
    return IoOut(addr, size, count, data(size * count))
