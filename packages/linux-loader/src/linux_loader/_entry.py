"""The CPU state a kernel is entered with, and the tables that state needs in memory.

Values only: a hypervisor backend copies them into its own register layout. Sources: Linux
Documentation/arch/x86/boot.rst ("32-bit" and "64-bit Boot Protocol"), Xen docs/misc/pvh.pandoc,
Intel SDM volume 3A §3.4.5 (descriptors), §4.5 (4-level paging).
"""

from __future__ import annotations

import struct

from attrs import evolve, frozen
from vm_device import Value

from linux_loader.arch.x86_64 import (
    BOOT_STACK_ADDR,
    GDT_ADDR,
    IDT_ADDR,
    PAGE_TABLE_ADDR,
    PVH_START_INFO_ADDR,
    ZERO_PAGE_ADDR,
)

_CR0_PE = 1 << 0
_CR0_ET = 1 << 4
_CR0_PG = 1 << 31
_CR4_PAE = 1 << 5
_EFER_LME = 1 << 8
_EFER_LMA = 1 << 10
_RFLAGS_FIXED = 1 << 1

_PTE_PRESENT_WRITE = 0x3
_PTE_HUGE = 1 << 7
_PAGE = 4096
_DIRECTORIES = 4  # one per GiB: 4 GiB in 2 MiB pages, which every x86-64 has (1 GiB pages need a CPUID bit)


@frozen(eq=False, repr=False)
class Segment(Value):
    """A segment register with its hidden part, in the terms of Intel SDM 3A §3.4.5.

    Attributes:
        base: Base address.
        limit: Last offset in bytes, already scaled by the granularity.
        selector: What the visible register holds.
        type: The 4-bit type field.
        present: P.
        dpl: Descriptor privilege level, 0..3.
        db: D/B, 1 for 32-bit code.
        s: 1 for code and data, 0 for system segments.
        l: 1 for 64-bit code.
        g: 1 when the descriptor counts the limit in 4 KiB units.
    """

    base: int = 0
    limit: int = 0xFFFF_FFFF
    selector: int = 0
    type: int = 3
    present: int = 1
    dpl: int = 0
    db: int = 1
    s: int = 1
    l: int = 0  # noqa: E741 - the architecture's name
    g: int = 1

    def descriptor(self) -> int:
        """Encode the 8-byte descriptor for a GDT."""
        limit = self.limit >> 12 if self.g else self.limit
        access = self.type | self.s << 4 | self.dpl << 5 | self.present << 7
        flags = self.l << 1 | self.db << 2 | self.g << 3
        low = limit & 0xFFFF | (self.base & 0xFF_FFFF) << 16 | access << 40
        return low | (limit >> 16 & 0xF) << 48 | flags << 52 | (self.base >> 24 & 0xFF) << 56


@frozen(eq=False, repr=False)
class DescriptorTable(Value):
    """GDTR or IDTR.

    Attributes:
        base: Guest address of the table.
        limit: Its length in bytes minus 1.
    """

    base: int
    limit: int


@frozen(eq=False, repr=False)
class EntryState(Value):
    """Registers of the boot processor at the kernel's first instruction; every register not named here is 0.

    Attributes:
        rip: First instruction.
        rsp: Stack pointer; a kernel replaces it at once.
        rbp: Frame pointer.
        rsi: Zero page (64-bit and 32-bit protocol).
        rbx: Start info (PVH).
        rflags: Flags; interrupts are off.
        cs: Code segment.
        ds: Data segment; es, fs, gs and ss equal it.
        es: Extra segment.
        fs: Extra segment.
        gs: Extra segment.
        ss: Stack segment.
        tr: Task register, a busy TSS.
        gdt: Where the loader wrote the GDT.
        idt: Where it wrote one empty gate.
        cr0: Protection and paging.
        cr3: Page tables the loader wrote; 0 without paging.
        cr4: Paging extensions.
        efer: Long mode enable and active.
    """

    rip: int
    rsp: int
    rbp: int
    rsi: int
    rbx: int
    rflags: int
    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    gdt: DescriptorTable
    idt: DescriptorTable
    cr0: int
    cr3: int
    cr4: int
    efer: int


# __BOOT_CS and __BOOT_DS, which the 64-bit protocol prescribes, are entries 2 and 3.
_TSS = Segment(limit=0x67, selector=0x08, type=0xB, db=0, s=0, g=0)
_CODE = Segment(selector=0x10, type=0xB)
_CODE64 = evolve(_CODE, db=0, l=1)
_DATA = Segment(selector=0x18, type=3)


def gdt_bytes(*, long_mode: bool) -> bytes:
    """The four GDT entries: null, TSS, code, data."""
    code = _CODE64 if long_mode else _CODE
    return struct.pack("<4Q", 0, _TSS.descriptor(), code.descriptor(), _DATA.descriptor())


def page_table_bytes() -> bytes:
    """PML4, PDPT and page directories at PAGE_TABLE_ADDR: the first 4 GiB mapped to themselves, writable."""
    pdpt = PAGE_TABLE_ADDR + _PAGE
    directories = [pdpt + _PAGE * (i + 1) for i in range(_DIRECTORIES)]
    pages = [(i << 21) | _PTE_HUGE | _PTE_PRESENT_WRITE for i in range(512 * _DIRECTORIES)]
    return b"".join(
        (
            struct.pack("<Q", pdpt | _PTE_PRESENT_WRITE).ljust(_PAGE, b"\0"),
            struct.pack(f"<{_DIRECTORIES}Q", *(d | _PTE_PRESENT_WRITE for d in directories)).ljust(
                _PAGE, b"\0"
            ),
            struct.pack(f"<{len(pages)}Q", *pages),
        )
    )


def _state(*, rip: int, long_mode: bool) -> EntryState:
    return EntryState(
        rip=rip, rsp=0, rbp=0, rsi=0, rbx=0, rflags=_RFLAGS_FIXED,
        cs=_CODE64 if long_mode else _CODE, ds=_DATA, es=_DATA, fs=_DATA, gs=_DATA, ss=_DATA, tr=_TSS,
        gdt=DescriptorTable(GDT_ADDR, 31), idt=DescriptorTable(IDT_ADDR, 7),
        cr0=_CR0_PE | _CR0_ET, cr3=0, cr4=0, efer=0,
    )  # fmt: skip


def linux64_entry(rip: int) -> EntryState:
    """64-bit boot protocol: long mode, identity-mapped, RSI = zero page.

    Args:
        rip: Physical address of startup_64.

    Returns:
        The state.
    """
    return evolve(
        _state(rip=rip, long_mode=True),
        rsp=BOOT_STACK_ADDR,
        rbp=BOOT_STACK_ADDR,
        rsi=ZERO_PAGE_ADDR,
        cr0=_CR0_PE | _CR0_ET | _CR0_PG,
        cr3=PAGE_TABLE_ADDR,
        cr4=_CR4_PAE,
        efer=_EFER_LME | _EFER_LMA,
    )


def linux32_entry(rip: int) -> EntryState:
    """32-bit boot protocol: protected mode without paging, RSI = zero page, RBP, RDI and RBX zero.

    Args:
        rip: Physical address of startup_32.

    Returns:
        The state.
    """
    return evolve(_state(rip=rip, long_mode=False), rsi=ZERO_PAGE_ADDR)


def pvh_entry(rip: int) -> EntryState:
    """PVH: 32-bit protected mode without paging, EBX = start info.

    Args:
        rip: Physical address from the PVH note.

    Returns:
        The state.
    """
    return evolve(_state(rip=rip, long_mode=False), rbx=PVH_START_INFO_ADDR)
