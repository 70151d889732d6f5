"""Exits of one architecture, or of one guest interface: see `_exits`, which builds them."""

from __future__ import annotations

from dataclasses import dataclass

from kvm_ioctls._arch import HOST_ARCH

__all__ = (
    "ApResetHold",
    "Arm64Debug",
    "ArmLdst64b",
    "ArmNisv",
    "ArmSea",
    "BusLock",
    "Debug",
    "DirtyRingFull",
    "HypervHcall",
    "HypervSyndbg",
    "HypervSynic",
    "Riscv64Debug",
    "RiscvCsr",
    "RiscvSbi",
    "SnpReqCerts",
    "Tdx",
    "XenHcall",
    "debug_exit",
    "hyperv_exit",
)


@dataclass(frozen=True, slots=True)
class Debug:
    """x86-64: a breakpoint or single step: vector `exception`, the guest's `pc`, `dr6` and `dr7`."""

    exception: int
    pc: int
    dr6: int
    dr7: int


@dataclass(frozen=True, slots=True)
class Arm64Debug:
    """arm64: a debug exception with its syndrome `hsr` (ESR_EL2); of a watchpoint also the address `far`."""

    hsr: int
    far: int


@dataclass(frozen=True, slots=True)
class Riscv64Debug:
    """riscv64: the guest executed EBREAK."""


@dataclass(frozen=True, slots=True)
class BusLock:
    """The guest split a lock over cache lines (Cap.X86_BUS_LOCK_EXIT)."""


@dataclass(frozen=True, slots=True)
class DirtyRingFull:
    """The vCPU's dirty ring must be harvested and reset before it can go on."""


@dataclass(frozen=True, slots=True)
class ApResetHold:
    """An SEV-ES application processor waits for its reset (GHCB protocol)."""


@dataclass(frozen=True, slots=True)
class HypervSynic:
    """A write to the synthetic interrupt controller: the `msr`, and `control`, `evt_page`, `msg_page` now."""

    msr: int
    control: int
    evt_page: int
    msg_page: int


@dataclass(frozen=True, slots=True)
class HypervHcall:
    """A hypercall of Hyper-V's interface: its `input` value, two `params`; answer with set_exit_result()."""

    input: int
    params: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HypervSyndbg:
    """The synthetic debugger's `msr` was written; answer with set_exit_result(status).

    What the guest has set: `control`, `status`, and the addresses `send_page`, `recv_page`, `pending_page`.
    """

    msr: int
    control: int
    status: int
    send_page: int
    recv_page: int
    pending_page: int


@dataclass(frozen=True, slots=True)
class XenHcall:
    """A hypercall of Xen's interface: number `input` and six `params`; answer with set_exit_result().

    `longmode` and `cpl` are the mode and privilege level of the caller.
    """

    longmode: bool
    cpl: int
    input: int
    params: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tdx:
    """A TDVMCALL of a trust domain: number `nr`, `flags`, operands `data`; answer with set_exit_result()."""

    flags: int
    nr: int
    data: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SnpReqCerts:
    """An SNP guest asks for certificates in `npages` pages at `gpa`; answer with set_exit_result()."""

    gpa: int
    npages: int


@dataclass(frozen=True, slots=True)
class ArmNisv:
    """arm64: an access outside memory, not decoded: syndrome `esr_iss`, address `fault_ipa`."""

    esr_iss: int
    fault_ipa: int


@dataclass(frozen=True, slots=True)
class ArmLdst64b:
    """arm64: a 64-byte load or store outside memory: syndrome `esr_iss`, address `fault_ipa`."""

    esr_iss: int
    fault_ipa: int


@dataclass(frozen=True, slots=True)
class ArmSea:
    """arm64: a synchronous external abort of the host's memory, with the syndrome `esr`.

    The guest's addresses are `gva` and, if bit 0 of `flags` is set, `gpa`.
    """

    flags: int
    esr: int
    gva: int
    gpa: int


@dataclass(frozen=True, slots=True)
class RiscvSbi:
    """riscv64: `function` of SBI `extension`, six `args`; answer with set_exit_result(error, value)."""

    extension: int
    function: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RiscvCsr:
    """riscv64: an access to number `csr`: new `value`, bits to write `mask`; answer with the old value."""

    csr: int
    value: int
    mask: int


def debug_exit(words: tuple[int, ...], arch: str = HOST_ARCH) -> Debug | Arm64Debug | Riscv64Debug:
    """Build the debug exit of an architecture."""
    if arch == "aarch64":
        return Arm64Debug(words[0], words[1])
    if arch == "riscv64":
        return Riscv64Debug()
    return Debug(words[0] & 0xFFFF_FFFF, words[1], words[2], words[3])


def hyperv_exit(words: tuple[int, ...]) -> HypervSynic | HypervHcall | HypervSyndbg | None:
    """Build an exit of Hyper-V's interface by its type; None for a type of newer kernels."""
    match words[0]:
        case 1:  # KVM_EXIT_HYPERV_SYNIC
            return HypervSynic(*words[1:5])
        case 2:  # KVM_EXIT_HYPERV_HCALL
            return HypervHcall(words[1], words[2:4])
        case 3:  # KVM_EXIT_HYPERV_SYNDBG
            return HypervSyndbg(*words[1:7])
    return None
