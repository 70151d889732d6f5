"""AArch64: where a machine's GIC lies, the registers a boot protocol sets, a vCPU's state by register id.

Source: Arm GIC architecture specification (IHI 0069), Documentation/virt/kvm/devices/arm-vgic-v3.rst and
arm-vgic-its.rst, Documentation/arch/arm64/booting.rst of the kernel.
"""

from collections.abc import Iterable
from typing import Final, Protocol

import attrs

__all__ = (
    "DISTRIBUTOR_SIZE",
    "FIRST_SPI",
    "ITS_SIZE",
    "REDISTRIBUTOR_SIZE",
    "Arm64Vcpu",
    "Arm64Vm",
    "EntryState",
    "Gic",
)

DISTRIBUTOR_SIZE: Final = 0x1_0000
"""Bytes of a GICv3's distributor."""
REDISTRIBUTOR_SIZE: Final = 0x2_0000
"""Bytes of each processor's redistributor: two frames of 64 KiB."""
ITS_SIZE: Final = 0x2_0000
"""Bytes of an interrupt translation service: control frame and translation frame."""
FIRST_SPI: Final = 32
"""Interrupt id of the first shared interrupt, which is line 0."""
_FRAME = 0x1_0000
_MASKED_EL1H = 0x3C5  # D, A, I and F set, EL1 with its own stack pointer
_PAGE_BITS = 40  # what every KVM on AArch64 gives a guest


@attrs.frozen(kw_only=True)
class Gic:
    """Where a machine's GICv3 lies, and how many lines it has.

    Args:
        lines: shared interrupts, a multiple of 32 from 32 to 960; `irq_line(n)` is interrupt id 32 + n.
        distributor: guest-physical address, aligned to 64 KiB, as the next two.
        redistributors: of the first vCPU; those of the others follow without a gap.
        its: of the interrupt translation service; None for a machine without messages.

    Raises:
        ValueError: a number is out of range.
    """

    lines: int = 224
    distributor: int = 0x0800_0000
    redistributors: int = 0x080A_0000
    its: int | None = 0x0808_0000

    def __attrs_post_init__(self) -> None:
        if self.lines % 32 or not 32 <= self.lines <= 960:
            raise ValueError(f"lines {self.lines} is not a multiple of 32 within 32 … 960")
        for name in ("distributor", "redistributors", "its"):
            address = getattr(self, name)
            if address is not None and (address % _FRAME or not 0 <= address < 1 << _PAGE_BITS):
                raise ValueError(
                    f"{name} {address:#x} is not aligned to {_FRAME:#x} within {_PAGE_BITS} bits"
                )


@attrs.frozen(kw_only=True)
class EntryState:
    """The registers a kernel starts with: `pc`, the device tree's address in `x0`, all else zero.

    Interrupts are masked and the MMU is off, as booting.rst wants it; `pstate` is that by default.
    """

    pc: int
    x0: int = 0
    pstate: int = _MASKED_EL1H


class Arm64Vm(Protocol):
    """What an AArch64 VM has beyond `Vm`."""

    def create_gic(self, gic: Gic) -> None:
        """Give the VM its interrupt controller: after the last vCPU, before the first line and the first run.

        Raises:
            ValueError: there is one, or the redistributors reach into another part of it.
            UnsupportedFeatureError: the hypervisor has no GICv3, or no ITS.
        """
        ...


class Arm64Vcpu(Protocol):
    """What an AArch64 vCPU has beyond `Vcpu`. All but the first wait until the guest starts them by PSCI."""

    @property
    def affinity(self) -> int:
        """The affinity fields of MPIDR_EL1: what a device tree's `reg` and PSCI's CPU_ON say."""
        ...

    def set_entry_state(self, entry: EntryState) -> None:
        """Set the registers for the first instruction."""
        ...

    def registers(self) -> tuple[tuple[int, int], ...]:
        """Return (id, value) of every register, to be given to `set_registers` of a fresh vCPU."""
        ...

    def set_registers(self, values: Iterable[tuple[int, int]]) -> None:
        """Write registers, (id, value) each; those that the hypervisor computes itself are left out."""
        ...
