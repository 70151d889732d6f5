"""From an arm64 or riscv64 Image to a guest that only has to be started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from linux_loader import _plan
from linux_loader._cmdline import Cmdline
from linux_loader._errors import ConfigurationError, FdtBuildError, ForeignArchitectureError, PlacementError
from linux_loader._fdt_reader import MAX_BLOB
from linux_loader._fdt_tree import Fdt, FdtNode, strings, u64s
from linux_loader._flat import ImageHeader
from linux_loader._image import KernelImage
from linux_loader._load import Initrd, checked_cmdline, open_initrd, open_kernel
from linux_loader._placement import Ram, check_ram
from linux_loader._plan import Write
from linux_loader._ranges import GuestRange, align_down, align_up, highest_fit, lowest_fit
from linux_loader.arch import ImageArch, for_arch

if TYPE_CHECKING:
    from vmm_memory import GuestMemory

_PAGE = 4096
_SEED_MAX = 4096


@frozen
class LoadedImage:
    """What :func:`load_image` did.

    The boot processor starts at ``entry`` with the MMU off and interrupts masked: on arm64 with X0 =
    ``fdt_range.base`` and X1 to X3 zero, on riscv64 with A0 = its hart id and A1 = ``fdt_range.base``.

    Attributes:
        header: What the kernel says of itself.
        entry: Guest address of the first instruction: the Image's first byte.
        kernel_range: Guest addresses the kernel occupies, BSS included.
        initrd_range: Where the initrd lies, or None.
        fdt_range: Where the device tree blob lies.
        fdt: The tree that was written, ``/chosen`` filled in.
        cmdline: The command line as written.
        writes: Every range of guest memory that was written, sorted and disjoint; nothing else was touched.
    """

    header: ImageHeader
    entry: int
    kernel_range: GuestRange
    initrd_range: GuestRange | None
    fdt_range: GuestRange
    fdt: Fdt
    cmdline: str
    writes: tuple[GuestRange, ...]


def load_image(
    memory: GuestMemory | None,
    kernel: KernelImage | str | os.PathLike[str],
    *,
    ram_ranges: Sequence[tuple[int, int]],
    fdt: Fdt,
    cmdline: Cmdline | str = "",
    initrd: Initrd | None = None,
    rng_seed: bytes | None = None,
    fresh_memory: bool = True,
) -> LoadedImage:
    """Load an arm64 or riscv64 Image, its initrd and its device tree, on any host.

    Everything is checked before the first write: after any of the errors below guest memory is unchanged.

    Args:
        memory: Guest memory that maps all of ``ram_ranges``; None to find out what would be done.
        kernel: An open image, or the path of an Image, plain, compressed, or in an EFI zboot file.
        ram_ranges: (base, size) of guest RAM.
        fdt: The machine. ``/chosen`` gets the command line, the initrd and the seed; its memory
            reservations and what ``/reserved-memory`` names stay untouched.
        cmdline: The command line; at most 2047 bytes on arm64, 1023 on riscv64.
        initrd: Path or contents of an initramfs; it goes as high as the kernel allows.
        rng_seed: 1..4096 bytes of entropy for ``rng-seed``, or None.
        fresh_memory: RAM is known to be zero; give False for memory used before, and BSS is cleared.

    Returns:
        Placement, entry, and the list of ranges that were written.

    Raises:
        ImageError: The kernel or initrd file is unusable, or the kernel is one for x86 (see :func:`load`).
        PlacementError: Something does not fit into RAM.
        CmdlineError: The command line is illegal or too long.
        ConfigurationError: The other arguments are unusable.
        FdtBuildError: The tree cannot be written, or what it reserves not be read.
        OSError: A file cannot be opened.

    Source: Documentation/arch/arm64/booting.rst and Documentation/arch/riscv/boot.rst of Linux.
    """
    if rng_seed is not None and not 0 < len(rng_seed) <= _SEED_MAX:
        raise ConfigurationError("rng_seed", f"{len(rng_seed)} bytes; must be 1..{_SEED_MAX}")
    with open_kernel(kernel) as image, open_initrd(initrd, fetch=memory is not None) as view:
        if image.flat is None:
            raise ForeignArchitectureError("x86 (an ELF file or a bzImage)", wanted="AArch64 or RISC-V")
        return _load_open(memory, image, view, (ram_ranges, fdt, cmdline, rng_seed, fresh_memory))


_Request = tuple[Sequence[tuple[int, int]], Fdt, Cmdline | str, bytes | None, bool]


def _load_open(
    memory: GuestMemory | None, image: KernelImage, initrd: memoryview | None, request: _Request
) -> LoadedImage:
    """Plan, check, write. A frame of its own: its views of the files end with it."""
    ram_ranges, fdt, cmdline, seed, fresh = request
    header = image.flat
    assert header is not None
    arch = for_arch(header.arch)
    line = checked_cmdline(cmdline, arch.CMDLINE_MAX)
    taken = tuple(("memory reservation of the device tree", r) for r in _reserved(fdt))
    ram = Ram(check_ram(ram_ranges), taken)
    placed = _place(header, arch, image.size, ram)
    initrd_range = None if initrd is None else _place_initrd(len(initrd), arch, ram, placed)
    tree = _with_chosen(fdt, str(line), initrd_range, seed)
    blob = tree.encode()
    others = [placed] if initrd_range is None else [placed, initrd_range]
    fdt_range = _place_fdt(len(blob), arch.fdt_limit(placed), ram, others)
    contents = image.contents(0, image.size)
    writes = [Write.of("kernel", placed.base, contents), Write.of("device tree", fdt_range.base, blob)]
    if initrd is not None and initrd_range is not None:
        writes.append(Write("initrd", initrd_range, initrd))
    if not fresh:
        bss = GuestRange(placed.base + image.size, placed.size - image.size)
        writes.append(Write("kernel BSS", bss, None))
    plan = _plan.ordered(writes)
    if memory is not None:
        _plan.apply(memory, plan)
    return LoadedImage(
        header, placed.base, placed, initrd_range, fdt_range, tree, str(line), tuple(w.range for w in plan)
    )


def _reserved(fdt: Fdt) -> Iterator[GuestRange]:
    """Where the tree lets nobody in; ranges may overlap."""
    yield from fdt.reservations
    for parent in fdt.root.children:
        if parent.name == "reserved-memory":
            for node in parent.children:
                yield from _registers(parent, node)


def _registers(parent: FdtNode, node: FdtNode) -> Iterator[GuestRange]:
    """What a node has as ``reg``, in cells of its parent's (Devicetree Specification 0.4, section 2.3.6)."""
    if "reg" not in node.properties:  # the guest finds a place for it
        return
    value = node.properties["reg"]
    base, size = (
        4 * (parent.u32s(name)[0] if name in parent.properties else otherwise)
        for name, otherwise in (("#address-cells", 2), ("#size-cells", 1))
    )
    if not base + size or len(value) % (base + size):
        raise FdtBuildError(f"reg of {node.name}", f"{len(value)} bytes", f"its entries have {base + size}")
    for at in range(0, len(value), base + size):
        entry = value[at : at + base + size]
        yield GuestRange(int.from_bytes(entry[:base], "big"), int.from_bytes(entry[base:], "big"))


def _place(header: ImageHeader, arch: ImageArch, file_size: int, ram: Ram) -> GuestRange:
    """The lowest place: kernels that cannot use RAM below themselves lose least there."""
    size = max(header.image_size, file_size)
    base = lowest_fit(ram.free(), header.text_offset + size, arch.IMAGE_ALIGNMENT, 0)
    if base is None or base + header.text_offset + size > arch.IMAGE_END_MAX:
        reason = (
            f"no free RAM of that size {header.text_offset:#x} above a multiple of {arch.IMAGE_ALIGNMENT:#x} "
            f"that ends at or below {arch.IMAGE_END_MAX:#x}; RAM is {', '.join(map(str, ram.blocks))}"
        )
        raise PlacementError("kernel", size=size, reason=reason)
    return GuestRange(base + header.text_offset, size)


def _whole_pages(used: GuestRange) -> GuestRange:
    base = align_down(used.base, _PAGE)
    return GuestRange(base, align_up(used.end, _PAGE) - base)


def _place_initrd(size: int, arch: ImageArch, ram: Ram, kernel: GuestRange) -> GuestRange:
    window = arch.initrd_window(kernel)
    free = [gap for gap in ram.free(_whole_pages(kernel)) if gap.end > window.base]
    # Whole pages: the kernel frees an initrd by the page.
    base = highest_fit(free, align_up(size, _PAGE), _PAGE, window.end)
    if base is None or base < window.base:
        where = f"free RAM in {window} beside the kernel ({kernel}) is too small"
        reason = f"{where}; give the guest more memory or a smaller initrd"
        raise PlacementError("initrd", size=size, reason=reason)
    return GuestRange(base, size)


def _place_fdt(size: int, limit: int, ram: Ram, others: Sequence[GuestRange]) -> GuestRange:
    if size > MAX_BLOB:
        raise FdtBuildError("blob", f"{size} bytes", f"Linux maps at most {MAX_BLOB}")
    free = ram.free(*(_whole_pages(used) for used in others))
    base = highest_fit(free, align_up(size, _PAGE), _PAGE, limit)
    if base is None:
        raise PlacementError("device tree", size=size, reason=f"no free RAM of whole pages below {limit:#x}")
    return GuestRange(base, size)


def _with_chosen(fdt: Fdt, cmdline: str, initrd: GuestRange | None, seed: bytes | None) -> Fdt:
    properties = {"bootargs": strings(cmdline)}
    if initrd is not None:
        properties |= {"linux,initrd-start": u64s(initrd.base), "linux,initrd-end": u64s(initrd.end)}
    if seed is not None:
        properties["rng-seed"] = seed
    known = [node for node in fdt.root.children if node.name == "chosen"]
    chosen = (known[0] if known else FdtNode("chosen")).updated(properties)
    return evolve(fdt, root=fdt.root.with_child(chosen))
