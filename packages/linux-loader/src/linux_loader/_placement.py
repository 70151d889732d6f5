"""Where the kernel and the initrd go in guest RAM. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from linux_loader._e820 import E820Entry, E820Type
from linux_loader._errors import ConfigurationError, PlacementError
from linux_loader._ranges import ADDRESS_SPACE, GuestRange, gaps, highest_fit, lowest_fit
from linux_loader.arch.x86_64 import FOUR_GIB, HIGH_RAM_START

if TYPE_CHECKING:
    from linux_loader._bzimage import SetupHeader
    from linux_loader._elf import ElfInfo

_PAGE = 4096
_MIB = 1 << 20


class PlacedKernel(NamedTuple):
    """Where the kernel goes.

    Attributes:
        load_addr: Where its first byte goes.
        memory: All it occupies until it reads the memory map, BSS and unpacking room included.
        entry: Physical address of the first instruction.
    """

    load_addr: int
    memory: GuestRange
    entry: int


class Ram(NamedTuple):
    """Guest RAM and what in it is taken.

    Attributes:
        blocks: RAM, sorted, touching ranges merged.
        taken: Ranges the loader must not use, with the name of each owner.
    """

    blocks: tuple[GuestRange, ...]
    taken: tuple[tuple[str, GuestRange], ...]

    def free(self, *more: GuestRange) -> list[GuestRange]:
        """What is left of RAM, lowest first."""
        return gaps(self.blocks, [*(r for _, r in self.taken), *more])

    def require(self, what: str, wanted: GuestRange) -> None:
        """Refuse a fixed range that is not RAM or is taken."""
        if wanted.size and not any(b.contains(wanted) for b in self.blocks):
            shown = ", ".join(map(str, self.blocks))
            need = -(-wanted.end // _MIB)
            reason = f"{wanted} is not all guest RAM ({shown}); it needs RAM up to at least {need} MiB"
            raise PlacementError(what, size=wanted.size, reason=reason)
        for owner, used in self.taken:
            if wanted.overlaps(used):
                raise PlacementError(what, size=wanted.size, reason=f"{wanted} overlaps {owner} at {used}")


def check_ram(ram_ranges: Sequence[tuple[int, int]]) -> tuple[GuestRange, ...]:
    """Check the caller's RAM list; sorts it and merges ranges that touch."""
    merged: list[GuestRange] = []
    for base, size in sorted(ram_ranges):
        if size < 1 or base < 0 or base + size > ADDRESS_SPACE:
            raise ConfigurationError("ram_ranges", f"range {base:#x} + {size:#x} is empty or outside 0..2^64")
        if merged and base < merged[-1].end:
            raise ConfigurationError("ram_ranges", f"range {base:#x} + {size:#x} overlaps {merged[-1]}")
        if merged and base == merged[-1].end:
            merged[-1] = GuestRange(merged[-1].base, merged[-1].size + size)
        else:
            merged.append(GuestRange(base, size))
    if not merged:
        raise ConfigurationError("ram_ranges", "is empty; give (base, size) of each range of guest RAM")
    return tuple(merged)


def make_ram(
    ram_ranges: Sequence[tuple[int, int]],
    reserved: Iterable[E820Entry],
    tables: Iterable[tuple[str, GuestRange]],
) -> Ram:
    """Combine RAM, the caller's reserved ranges and the loader's own tables; check that they can coexist."""
    caller = tuple((f"reserved {e.type.name} range", e.range) for e in reserved if e.type is not E820Type.RAM)
    ram = Ram(check_ram(ram_ranges), caller)
    mine = tuple(tables)
    for what, wanted in mine:
        ram.require(what, wanted)
    return Ram(ram.blocks, caller + mine)


def place_elf(info: ElfInfo, ram: Ram, entry: int) -> PlacedKernel:
    """Check that every segment of an ELF kernel lands in free RAM below 4 GiB, at its own addresses."""
    for segment in info.segments:
        ram.require("kernel segment", segment.memory)
    memory = info.memory
    if memory.end > FOUR_GIB:
        reason = f"{memory} reaches past 4 GiB, all that is mapped at its entry"
        raise PlacementError("kernel", size=memory.size, reason=reason)
    return PlacedKernel(memory.base, memory, entry)


def _relocate(header: SetupHeader, size: int, ram: Ram) -> int:
    """The preferred address, or the lowest one above it: below, the kernel would move itself up again."""
    floor = max(header.pref_address, HIGH_RAM_START)
    free = ram.free()
    for alignment in (header.alignment, header.min_alignment):
        base = lowest_fit(free, size, alignment, floor)
        if base is not None and base + size <= FOUR_GIB:
            return base
    need = -(-(floor + size) // _MIB)
    reason = (
        f"no free RAM of that size (init_size) at or above pref_address {floor:#x}, below 4 GiB, "
        f"aligned to {header.min_alignment:#x}; the guest needs at least {need} MiB"
    )
    raise PlacementError("kernel", size=size, reason=reason)


def place_bzimage(header: SetupHeader, ram: Ram, *, entry64: bool = True) -> PlacedKernel:
    """Choose a load address with init_size bytes of free RAM from where the kernel will run (boot.rst)."""
    from linux_loader._bzimage import ENTRY64_OFFSET, check_entry64  # noqa: PLC0415 - an ELF kernel needs none of it

    if entry64:
        check_entry64(header)
    size = max(header.init_size, header.code_size)
    if header.relocatable:
        load = _relocate(header, size, ram)
        memory = GuestRange(load, size)
    else:
        load = HIGH_RAM_START
        end = max(load + header.code_size, header.pref_address + size)
        memory = GuestRange(load, end - load)
        ram.require("kernel", memory)
        if end > FOUR_GIB:
            raise PlacementError("kernel", size=size, reason=f"{memory} reaches past 4 GiB (pref_address)")
    return PlacedKernel(load, memory, load + ENTRY64_OFFSET if entry64 else load)


def place_initrd(size: int, ram: Ram, kernel: PlacedKernel, *, addr_max: int) -> GuestRange:
    """Highest free, page-aligned room below 4 GiB whose last byte is at most ``addr_max``."""
    limit = min(addr_max + 1, FOUR_GIB)
    low = GuestRange(0, HIGH_RAM_START)
    free = ram.free(kernel.memory, low)
    # Whole pages: the kernel frees an initrd by the page.
    base = highest_fit(free, -(-size // _PAGE) * _PAGE, _PAGE, limit)
    if base is None:
        room = max((min(g.end, limit) - g.base for g in free), default=0)
        reason = (
            f"free RAM below {limit:#x} beside the kernel ({kernel.memory}) has {max(room, 0):#x} bytes; "
            "give the guest more memory or a smaller initrd"
        )
        raise PlacementError("initrd", size=size, reason=reason)
    return GuestRange(base, size)
