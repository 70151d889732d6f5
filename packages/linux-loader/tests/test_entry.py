"""Entry states and the tables behind them, decoded by an independent reading of the manuals."""

import struct

import pytest
from linux_loader import Segment
from linux_loader._entry import gdt_bytes, linux64_entry, page_table_bytes, pvh_entry
from linux_loader.arch import x86_64


def walk(tables, address):
    """Translate through PML4, PDPT and PD as SDM 3A §4.5.4 does."""
    base = x86_64.PAGE_TABLE_ADDR
    table = base
    for shift in (39, 30, 21):
        (entry,) = struct.unpack_from("<Q", tables, table - base + 8 * (address >> shift & 511))
        if not entry & 1:
            return None
        assert entry & 2
        if entry & 0x80:
            assert shift == 21
            return (entry & 0x000F_FFFF_FFE0_0000) | address & 0x1F_FFFF
        table = entry & 0x000F_FFFF_FFFF_F000
    return None


@pytest.mark.parametrize(
    "address", [0, 0x7000, 0x100_0000, 0x3FFF_FFFF, 0x4000_0000, 0xBFFF_F123, 0xFFFF_FFFF]
)
def test_low_4_gib_are_mapped_to_themselves(address):
    """Each address below 4 GiB translates to itself, the next one to nothing."""
    tables = page_table_bytes()
    assert len(tables) == 6 * 4096
    assert walk(tables, address) == address
    assert walk(tables, 1 << 32) is None


@pytest.mark.parametrize("long_mode", [True, False])
def test_descriptors_match_the_segment_registers(long_mode):
    """The GDT entry at each selector encodes the same segment as the hidden part."""
    state = linux64_entry(0x100_0200) if long_mode else pvh_entry(0x100_0000)
    gdt = struct.unpack("<4Q", gdt_bytes(long_mode=long_mode))
    assert gdt[0] == 0
    assert (state.gdt.base, state.gdt.limit) == (x86_64.GDT_ADDR, 31)
    for segment in (state.cs, state.ds, state.es, state.fs, state.gs, state.ss, state.tr):
        d = gdt[segment.selector // 8]
        limit = d & 0xFFFF | d >> 32 & 0xF_0000
        assert (limit << 12 | 0xFFF if d >> 55 & 1 else limit) == segment.limit
        assert (d >> 16 & 0xFF_FFFF | d >> 32 & 0xFF00_0000) == segment.base == 0
        assert (d >> 40 & 15, d >> 44 & 1, d >> 45 & 3, d >> 47 & 1) == (segment.type, segment.s, 0, 1)
        assert (d >> 53 & 1, d >> 54 & 1, d >> 55 & 1) == (segment.l, segment.db, segment.g)


def test_descriptor_with_a_base():
    """Base and byte-granular limit go to their scattered bits."""
    assert Segment(base=0x1234_5678, limit=0xABCDE, g=0).descriptor() == 0x124A_9334_5678_BCDE


def test_linux64_state():
    """Long mode with paging, interrupts off, RSI at the zero page, selectors of boot.rst."""
    state = linux64_entry(0x100_0200)
    assert (state.rip, state.rsi, state.rflags) == (0x100_0200, 0x7000, 2)
    assert (state.cr0 & 0x8000_0001, state.cr3, state.cr4, state.efer) == (0x8000_0001, 0x9000, 0x20, 0x500)
    assert (state.cs.selector, state.ds.selector, state.cs.l, state.cs.db) == (0x10, 0x18, 1, 0)


def test_pvh_state():
    """Protected mode without paging, EBX at the start info, flat 32-bit segments."""
    state = pvh_entry(0x100_0000)
    assert (state.rip, state.rbx, state.rflags) == (0x100_0000, 0x6000, 2)
    assert (state.cr0, state.cr3, state.cr4, state.efer) == (0x11, 0, 0, 0)
    assert (state.cs.db, state.cs.l, state.cs.limit, state.tr.type, state.tr.limit) == (
        1,
        0,
        0xFFFF_FFFF,
        11,
        0x67,
    )
