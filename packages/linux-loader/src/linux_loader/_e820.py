"""The memory map the guest is told: who owns which physical addresses.

One list of entries serves both protocols: the e820 table of the zero page (ACPI 6.5 §15, "System Address Map
Interfaces") and the PVH memory map, whose types are the same numbers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from attrs import frozen
from vm_device import Value

from linux_loader._errors import ConfigurationError
from linux_loader._ranges import ADDRESS_SPACE, GuestRange
from linux_loader.arch.x86_64 import HIGH_RAM_START, LOW_RAM_END

E820_MAX_ENTRIES = 128


class E820Type(enum.IntEnum):
    """What a range is, in the numbers of ACPI §15 and of the PVH memory map."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5
    DISABLED = 6
    PMEM = 7


@frozen(order=True, repr=False)
class E820Entry(Value):
    """One range of the memory map.

    Attributes:
        base: First address.
        size: Length in bytes, above 0.
        type: What it is.
    """

    base: int
    size: int
    type: E820Type = E820Type.RESERVED

    @property
    def range(self) -> GuestRange:
        """The addresses without the type."""
        return GuestRange(self.base, self.size)


def _check_entry(entry: E820Entry) -> None:
    if entry.size < 1 or entry.base < 0 or entry.base + entry.size > ADDRESS_SPACE:
        raise ConfigurationError(
            "reserved", f"range {entry.base:#x} + {entry.size:#x} is empty or outside 0..2^64"
        )


def _paint(table: list[E820Entry], new: E820Entry) -> list[E820Entry]:
    """Give ``new``'s addresses its type, cutting whatever was there."""
    kept = []
    end = new.base + new.size
    for old in table:
        old_end = old.base + old.size
        if old.base < min(new.base, old_end):
            kept.append(E820Entry(old.base, min(old_end, new.base) - old.base, old.type))
        if old_end > max(end, old.base):
            start = max(end, old.base)
            kept.append(E820Entry(start, old_end - start, old.type))
    return [*kept, new]


def _merge(table: Iterable[E820Entry]) -> list[E820Entry]:
    merged: list[E820Entry] = []
    for entry in sorted(table):
        last = merged[-1] if merged else None
        if last is not None and last.type == entry.type and last.base + last.size == entry.base:
            merged[-1] = E820Entry(last.base, last.size + entry.size, last.type)
        else:
            merged.append(entry)
    return merged


def build_memory_map(
    ram_ranges: Sequence[tuple[int, int]],
    reserved: Iterable[E820Entry] = (),
    *,
    legacy_hole: bool = True,
    max_entries: int = E820_MAX_ENTRIES,
) -> tuple[E820Entry, ...]:
    """Build the memory map of an x86 guest.

    Args:
        ram_ranges: (base, size) of guest RAM.
        reserved: Ranges of another kind; where two overlap the later one wins, and all win over RAM.
        legacy_hole: Keep the RAM of 0x9fc00..0x100000 (EBDA, VGA, BIOS, ACPI tables) from the kernel.
        max_entries: Most entries the result may have; the zero page has room for 128.

    Returns:
        Sorted, disjoint entries; neighbours differ in type or do not touch.

    Raises:
        ConfigurationError: A range is empty, negative or wraps; or there are too many entries.
    """
    table: list[E820Entry] = []
    for base, size in ram_ranges:
        entry = E820Entry(base, size, E820Type.RAM)
        _check_entry(entry)
        table = _paint(table, entry)
    if legacy_hole:
        hole = GuestRange(LOW_RAM_END, HIGH_RAM_START - LOW_RAM_END)
        for part in [e.range for e in table if e.range.overlaps(hole)]:
            base = max(part.base, hole.base)
            table = _paint(table, E820Entry(base, min(part.end, hole.end) - base, E820Type.RESERVED))
    for entry in reserved:
        _check_entry(entry)
        table = _paint(table, entry)
    merged = _merge(table)
    if len(merged) > max_entries:
        raise ConfigurationError(
            "reserved", f"the memory map has {len(merged)} entries, at most {max_entries}; merge some"
        )
    return tuple(merged)
