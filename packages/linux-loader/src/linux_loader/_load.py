"""From a kernel file to a guest that only has to be started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from attrs import frozen
from vm_device import Value

from linux_loader import _plan, _tables
from linux_loader._bootparams import BootInfo, setup_data
from linux_loader._cmdline import Cmdline
from linux_loader._e820 import E820_MAX_ENTRIES, E820Entry, build_memory_map
from linux_loader._entry import EntryState, linux32_entry, linux64_entry, pvh_entry
from linux_loader._errors import CmdlineTooLongError, ConfigurationError, ImageError
from linux_loader._image import KernelImage
from linux_loader._placement import PlacedKernel, Ram, make_ram, place_bzimage, place_elf, place_initrd
from linux_loader._plan import Write
from linux_loader._protocol import BootProtocol, choose_protocol
from linux_loader._ranges import ADDRESS_SPACE, GuestRange
from linux_loader._source import Source
from linux_loader.arch.x86_64 import (
    CMDLINE_ADDR,
    CMDLINE_MAX_SIZE,
    FOUR_GIB,
    PVH_START_INFO_ADDR,
    SETUP_DATA_ADDR,
    ZERO_PAGE_ADDR,
)

if TYPE_CHECKING:
    from vmm_memory import GuestMemory

# COMMAND_LINE_SIZE of Linux on x86 is 2048; a bzImage says so itself.
_LINUX_CMDLINE_MAX = 2047
_SEED_MAX = CMDLINE_ADDR - SETUP_DATA_ADDR - 16
# Entries of the memory map beyond the zero page's 128; 20 KiB of the 64 that setup_data has.
_E820_MORE = 1024

_ENTRIES = {
    BootProtocol.LINUX64: linux64_entry,
    BootProtocol.LINUX32: linux32_entry,
    BootProtocol.PVH: pvh_entry,
}

Initrd = str | os.PathLike[str] | bytes | bytearray | memoryview


@frozen(eq=False, repr=False)
class LoadedKernel(Value):
    """What :func:`load` did.

    Attributes:
        protocol: The protocol it chose; never AUTO.
        entry: Registers for the boot processor.
        kernel_range: Guest addresses the kernel occupies, BSS and unpacking room included.
        initrd_range: Where the initrd lies, or None.
        cmdline: The command line as written.
        cmdline_addr: Where it lies.
        boot_info_addr: The zero page, or the PVH start info.
        memory_map: The memory map the guest was told.
        seeded: The guest got the RNG seed; False without one, or when AUTO chose PVH, which cannot pass it.
        writes: Every range of guest memory that was written, sorted and disjoint; nothing else was touched.
    """

    protocol: BootProtocol
    entry: EntryState
    kernel_range: GuestRange
    initrd_range: GuestRange | None
    cmdline: str
    cmdline_addr: int
    boot_info_addr: int
    memory_map: tuple[E820Entry, ...]
    seeded: bool
    writes: tuple[GuestRange, ...]


def _cmdline_max(image: KernelImage) -> int:
    """Longest command line in bytes without the NUL: what the kernel reads, bounded by the room there is."""
    if image.bzimage is not None:
        limit = image.bzimage.cmdline_max
    else:
        limit = _LINUX_CMDLINE_MAX if image.elf is not None and image.elf.is_linux else CMDLINE_MAX_SIZE
    return min(limit, CMDLINE_MAX_SIZE - 1)


def checked_cmdline(cmdline: Cmdline | str, longest: int) -> Cmdline:
    """Return the command line, refused when it is longer than ``longest`` bytes without its NUL."""
    if isinstance(cmdline, str):
        return Cmdline(cmdline, capacity=longest + 1)
    length = len(cmdline.encode())
    if length > longest + 1:
        raise CmdlineTooLongError(length=length, capacity=longest + 1, text=str(cmdline))
    return cmdline


def _check_arguments(rsdp_addr: int, seed: bytes | None, protocol: BootProtocol) -> None:
    if not 0 <= rsdp_addr < ADDRESS_SPACE:
        raise ConfigurationError("rsdp_addr", f"{rsdp_addr:#x} is outside 0..2^64")
    if seed is None:
        return
    if protocol is BootProtocol.PVH:  # asked for, not chosen: see LoadedKernel.seeded
        raise ConfigurationError("rng_seed", "PVH has no field for a seed; enter by LINUX64 or leave it out")
    if not 0 < len(seed) <= _SEED_MAX:
        raise ConfigurationError(
            "rng_seed", f"{len(seed)} bytes; must be 1..{_SEED_MAX} (32 is what Linux uses)"
        )


def _check_setup_data(data: bytes, seed: bytes | None) -> None:
    room = CMDLINE_ADDR - SETUP_DATA_ADDR
    if len(data) > room:
        problem = f"{len(seed or b'')} bytes beside a long memory map: setup_data has room for {room}"
        raise ConfigurationError("rng_seed", problem)


@contextlib.contextmanager
def open_kernel(kernel: KernelImage | str | os.PathLike[str]) -> Iterator[KernelImage]:
    """Give an open image; one that was given by its path is closed at the end."""
    if isinstance(kernel, KernelImage):
        yield kernel
        return
    with KernelImage.open(kernel) as image:
        yield image


@contextlib.contextmanager
def open_initrd(initrd: Initrd | None, *, fetch: bool) -> Iterator[memoryview | None]:
    """Give the bytes of an initrd, mapped when it is a file, paged in when they are to be copied."""
    if initrd is None:
        yield None
        return
    if isinstance(initrd, (bytes, bytearray, memoryview)):
        if len(initrd) == 0:
            raise ImageError(f"initrd is empty (0 bytes of {type(initrd).__name__})", what="initrd")
        yield memoryview(initrd).cast("B")
        return
    source = Source.map_file(initrd, what="initrd")
    if fetch:
        source.prefetch(0, source.size)
    try:
        yield source.view
    finally:
        with contextlib.suppress(BufferError):
            source.close()


def _place_kernel(image: KernelImage, protocol: BootProtocol, ram: Ram) -> PlacedKernel:
    if image.bzimage is not None:
        return place_bzimage(image.bzimage, ram, entry64=protocol is BootProtocol.LINUX64)
    assert image.elf is not None
    if protocol is BootProtocol.PVH:
        assert image.elf.pvh_entry is not None
        return place_elf(image.elf, ram, image.elf.pvh_entry)
    from linux_loader._elf import check_elf_entry  # noqa: PLC0415 - a bzImage needs none of it

    check_elf_entry(image.elf)
    return place_elf(image.elf, ram, image.elf.entry)


def _place_initrd(
    view: memoryview | None, image: KernelImage, ram: Ram, placed: PlacedKernel
) -> GuestRange | None:
    if view is None:
        return None
    addr_max = image.bzimage.initrd_addr_max if image.bzimage is not None else FOUR_GIB - 1
    return place_initrd(len(view), ram, placed, addr_max=addr_max)


class _Request(NamedTuple):
    """The arguments of :func:`load` that are neither memory nor file."""

    protocol: BootProtocol
    cmdline: Cmdline | str
    ram_ranges: tuple[tuple[int, int], ...]
    reserved: tuple[E820Entry, ...]
    rsdp_addr: int
    rng_seed: bytes | None
    fresh: bool


def _load_open(
    memory: GuestMemory | None, image: KernelImage, initrd: memoryview | None, request: _Request
) -> LoadedKernel:
    """Plan, check, write (no memory: do not). A frame of its own: its views of the files end with it."""
    chosen = choose_protocol(image, request.protocol)
    _check_arguments(request.rsdp_addr, request.rng_seed, request.protocol)
    pvh = chosen is BootProtocol.PVH
    seed = None if pvh else request.rng_seed
    most = E820_MAX_ENTRIES if pvh else E820_MAX_ENTRIES + _E820_MORE
    memory_map = build_memory_map(request.ram_ranges, request.reserved, max_entries=most)
    more = b"" if pvh else setup_data(SETUP_DATA_ADDR, memory_map, seed)
    _check_setup_data(more, seed)
    longest = _cmdline_max(image)
    line = checked_cmdline(request.cmdline, longest)
    writes = _tables.table_writes(chosen, line.encode(), more)
    fixed = [(w.what, w.range) for w in writes] + _tables.info_ranges(chosen, len(memory_map))
    ram = make_ram(request.ram_ranges, request.reserved, fixed)
    placed = _place_kernel(image, chosen, ram)
    initrd_range = _place_initrd(initrd, image, ram, placed)
    more_addr = SETUP_DATA_ADDR if more else 0
    info = BootInfo(CMDLINE_ADDR, memory_map, initrd_range, request.rsdp_addr, more_addr)
    writes += _tables.info_writes(chosen, image, placed, info, longest)
    writes += _tables.kernel_writes(image, placed, fresh=request.fresh)
    if initrd_range is not None:
        writes.append(Write("initrd", initrd_range, initrd))
    plan = _plan.ordered(writes)
    if memory is not None:
        _plan.apply(memory, plan)
    return LoadedKernel(
        protocol=chosen,
        entry=_ENTRIES[chosen](placed.entry),
        kernel_range=placed.memory,
        initrd_range=initrd_range,
        cmdline=str(line),
        cmdline_addr=CMDLINE_ADDR,
        boot_info_addr=PVH_START_INFO_ADDR if pvh else ZERO_PAGE_ADDR,
        memory_map=memory_map,
        seeded=seed is not None,
        writes=tuple(w.range for w in plan),
    )


def load(
    memory: GuestMemory,
    kernel: KernelImage | str | os.PathLike[str],
    *,
    ram_ranges: Sequence[tuple[int, int]],
    protocol: BootProtocol = BootProtocol.AUTO,
    cmdline: Cmdline | str = "",
    initrd: Initrd | None = None,
    reserved: Iterable[E820Entry] = (),
    rsdp_addr: int = 0,
    rng_seed: bytes | None = None,
    fresh_memory: bool = True,
) -> LoadedKernel:
    """Load an x86-64 kernel and everything it needs at its first instruction.

    Writes the kernel, initrd, command line, GDT, IDT, page tables, and zero page or PVH start info, to the
    addresses of ``linux_loader.arch.x86_64``. Everything is checked before the first write: after any of the
    errors below guest memory is unchanged.

    Args:
        memory: Guest memory; must map all of ``ram_ranges``.
        kernel: An open image, or the path of a vmlinux or bzImage.
        ram_ranges: (base, size) of guest RAM; must hold the low tables and the kernel.
        protocol: How to enter it.
        cmdline: The command line; at most what the kernel reads (2047 bytes on Linux x86).
        initrd: Path or contents of an initramfs; it goes as high as the kernel allows, below 4 GiB.
        reserved: Ranges that are not free RAM (ACPI tables, …); they stay untouched, and the guest is told.
            The memory map they make with RAM has at most 1152 entries, 128 by PVH.
        rsdp_addr: Guest address of the ACPI RSDP, which the caller writes; 0 for none.
        rng_seed: 1..65520 bytes of entropy, or None; PVH cannot pass it, so it refuses it and AUTO tells in
            ``seeded``.
        fresh_memory: RAM is known to be zero; give False for memory used before, and BSS is cleared.

    Returns:
        Entry state, placement and the list of ranges that were written.

    Raises:
        ImageError: The kernel or initrd file is unusable.
        PlacementError: Something does not fit into RAM.
        CmdlineError: The command line is illegal or too long.
        ConfigurationError: The other arguments contradict each other.
        OSError: A file cannot be opened.
    """
    request = _Request(
        protocol, cmdline, tuple(ram_ranges), tuple(reserved), rsdp_addr, rng_seed, fresh_memory
    )
    with open_kernel(kernel) as image, open_initrd(initrd, fetch=True) as view:
        return _load_open(memory, image, view, request)


def check(
    kernel: KernelImage | str | os.PathLike[str],
    *,
    ram_ranges: Sequence[tuple[int, int]],
    protocol: BootProtocol = BootProtocol.AUTO,
    cmdline: Cmdline | str = "",
    initrd: Initrd | None = None,
    reserved: Iterable[E820Entry] = (),
) -> LoadedKernel:
    """Find out what :func:`load` would do with the same arguments, without any guest memory.

    Args:
        kernel: An open image, or the path of a vmlinux or bzImage.
        ram_ranges: (base, size) of guest RAM.
        protocol: How to enter it.
        cmdline: The command line.
        initrd: Path or contents of an initramfs.
        reserved: Ranges that are not free RAM.

    Returns:
        What ``load`` would return; ``writes`` are those that it would make.

    Raises:
        ImageError, PlacementError, CmdlineError, ConfigurationError, OSError: As ``load`` would.
    """
    request = _Request(protocol, cmdline, tuple(ram_ranges), tuple(reserved), 0, None, fresh=True)
    with open_kernel(kernel) as image, open_initrd(initrd, fetch=False) as view:
        return _load_open(None, image, view, request)
