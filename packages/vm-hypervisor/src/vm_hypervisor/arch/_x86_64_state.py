"""The CPU state that a boot protocol prescribes, as a backend reads it.

Structural: any object with these attributes will do (`linux_loader.EntryState` does), so the loader
and the hypervisor need not know each other.
"""

from typing import Protocol


class Segment(Protocol):
    """One segment register with its hidden part, in the SDM's terms (3A 3.4.3)."""

    @property
    def base(self) -> int:
        """Linear address."""
        ...

    @property
    def limit(self) -> int:
        """Last offset, in bytes."""
        ...

    @property
    def selector(self) -> int:
        """What the guest reads."""
        ...

    @property
    def type(self) -> int:
        """Type field, 0 … 15."""
        ...

    @property
    def present(self) -> int:
        """P bit."""
        ...

    @property
    def dpl(self) -> int:
        """Privilege level, 0 … 3."""
        ...

    @property
    def db(self) -> int:
        """D/B bit: 32-bit code or stack."""
        ...

    @property
    def s(self) -> int:
        """1 for code and data, 0 for system segments."""
        ...

    @property
    def l(self) -> int:  # noqa: E743
        """1 for 64-bit code."""
        ...

    @property
    def g(self) -> int:
        """Granularity bit."""
        ...


class DescriptorTable(Protocol):
    """GDTR or IDTR."""

    @property
    def base(self) -> int:
        """Linear address."""
        ...

    @property
    def limit(self) -> int:
        """Last offset, in bytes."""
        ...


class EntryState(Protocol):
    """Registers at the first instruction; those not named keep zero, or their reset value."""

    @property
    def rip(self) -> int:
        """First instruction."""
        ...

    @property
    def rsp(self) -> int:
        """Stack pointer."""
        ...

    @property
    def rbp(self) -> int:
        """Frame pointer."""
        ...

    @property
    def rsi(self) -> int:
        """Zero page (64-bit protocol)."""
        ...

    @property
    def rbx(self) -> int:
        """Start info (PVH)."""
        ...

    @property
    def rflags(self) -> int:
        """Flags."""
        ...

    @property
    def cr0(self) -> int:
        """Protection, paging."""
        ...

    @property
    def cr3(self) -> int:
        """Page tables."""
        ...

    @property
    def cr4(self) -> int:
        """Paging extensions."""
        ...

    @property
    def efer(self) -> int:
        """Long mode."""
        ...

    @property
    def cs(self) -> Segment:
        """Code."""
        ...

    @property
    def ds(self) -> Segment:
        """Data."""
        ...

    @property
    def es(self) -> Segment:
        """Data."""
        ...

    @property
    def fs(self) -> Segment:
        """Data."""
        ...

    @property
    def gs(self) -> Segment:
        """Data."""
        ...

    @property
    def ss(self) -> Segment:
        """Stack."""
        ...

    @property
    def tr(self) -> Segment:
        """Task register."""
        ...

    @property
    def gdt(self) -> DescriptorTable:
        """GDTR."""
        ...

    @property
    def idt(self) -> DescriptorTable:
        """IDTR."""
        ...
