"""Loading arm64 and riscv64 Images: placement, the device tree, refusals."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import (
    CmdlineTooLongError,
    ConfigurationError,
    FdtBuildError,
    ForeignArchitectureError,
    GuestRange,
    KernelImage,
    LoaderError,
    PlacementError,
    load,
    load_image,
)
from linux_loader.fdt import Fdt, FdtNode, parse_fdt, u32s, u64s
from linux_loader.testing import RecordingMemory, build_bzimage, build_image

MIB = 1 << 20
GIB = 1 << 30
BASE = 0x4000_0000
RAM = ((BASE, 256 * MIB),)
TREE = Fdt(
    FdtNode("", {"compatible": b"linux,dummy-virt\0"}, [FdtNode("chosen", {"stdout-path": b"/uart\0"})])
)


def merged(ranges):
    """Touching ranges joined."""
    result = []
    for r in sorted(ranges):
        if result and result[-1].end >= r.base:
            result[-1] = GuestRange(result[-1].base, max(result[-1].end, r.end) - result[-1].base)
        else:
            result.append(r)
    return result


def load_into(data, *, ram=RAM, fdt=TREE, fill=0, **options):
    """Load bytes into a recording memory that is exactly RAM; nothing but what is declared is written."""
    memory = RecordingMemory(ram, fill=fill)
    foreseen = load_image(None, KernelImage.from_bytes(data), ram_ranges=ram, fdt=fdt, **options)
    loaded = load_image(memory, KernelImage.from_bytes(data), ram_ranges=ram, fdt=fdt, **options)
    assert foreseen == loaded
    assert merged(memory.written) == merged(loaded.writes)
    return memory, loaded


@pytest.mark.parametrize("arch", ["aarch64", "riscv64"])
def test_everything_is_where_the_kernel_looks(arch):
    """Image, initrd and tree in memory; the tree says where the initrd is."""
    data = build_image(arch, b"code" * 100, text_offset=0x20_0000, image_size=8 * MIB)
    initrd, seed = b"070701" + bytes(5000), bytes(range(32))
    memory, loaded = load_into(data, cmdline="console=ttyAMA0", initrd=initrd, rng_seed=seed)
    assert loaded.entry == BASE + 0x20_0000
    assert loaded.kernel_range == GuestRange(BASE + 0x20_0000, 8 * MIB)
    assert memory.read(loaded.entry, len(data)) == data
    tree = parse_fdt(memory.read(loaded.fdt_range.base, loaded.fdt_range.size))
    assert tree == loaded.fdt
    assert loaded.fdt_range.base % 4096 == 0
    chosen = tree.node("/chosen")
    assert chosen.strings("stdout-path") == ("/uart",)
    assert chosen.strings("bootargs") == ("console=ttyAMA0",) == (loaded.cmdline,)
    assert chosen.properties["rng-seed"] == seed
    (start,), (end,) = chosen.u64s("linux,initrd-start"), chosen.u64s("linux,initrd-end")
    assert GuestRange(start, end - start) == loaded.initrd_range
    assert memory.read(start, end - start) == initrd
    assert loaded.initrd_range.base == BASE + 256 * MIB - 8192


def test_a_tree_without_chosen_gets_one():
    """No initrd, no seed: no property of theirs."""
    _, loaded = load_into(build_image("aarch64"), fdt=Fdt(FdtNode("")))
    assert dict(loaded.fdt.node("/chosen").properties) == {"bootargs": b"\0"}
    assert loaded.initrd_range is None


def test_bss_is_cleared_in_used_memory():
    """image_size counts it; a fresh memory is not touched there."""
    data = build_image("aarch64", b"x" * 100, image_size=64 * 1024)
    memory, loaded = load_into(data, fill=0xFF, fresh_memory=False)
    assert memory.read(loaded.entry + len(data), 64 * 1024 - len(data)) == bytes(64 * 1024 - len(data))
    memory, loaded = load_into(data, fill=0xFF)
    assert memory.read(loaded.entry + len(data), 16) == b"\xff" * 16


def test_windows_of_arm64():
    """The initrd stays within 32 GiB of the kernel's GiB, the tree within 512 MiB."""
    ram = ((BASE, 64 * GIB),)
    _, loaded = load_into(build_image("aarch64", image_size=MIB), ram=ram, initrd=b"x")
    assert loaded.initrd_range.base == BASE + 32 * GIB - 4096
    assert loaded.fdt_range.end <= BASE + 512 * MIB
    _, riscv = load_into(build_image("riscv64", image_size=MIB), ram=ram, initrd=b"x")
    assert riscv.initrd_range.base == BASE + 64 * GIB - 4096


def test_an_old_kernel_keeps_the_memory_behind_it_free():
    """No image_size (before 3.17): 0x80000 above the start of RAM, the tree far away."""
    _, loaded = load_into(build_image("aarch64", image_size=0))
    assert loaded.entry == BASE + 0x8_0000
    assert loaded.fdt_range.base > BASE + 200 * MIB


def test_reservations_of_the_tree_stay_untouched():
    """The kernel goes above what the tree reserves at the start of RAM."""
    tree = Fdt(TREE.root, (GuestRange(BASE, 4096),))
    _, loaded = load_into(build_image("aarch64", image_size=MIB), fdt=tree)
    assert loaded.entry == BASE + 2 * MIB
    assert loaded.fdt.reservations == tree.reservations


def reserved_memory(reg, **cells):
    """A tree that reserves memory in a node."""
    cells = {f"#{name}-cells": u32s(count) for name, count in cells.items()}
    kept = [FdtNode("kept@0", {"reg": reg, "no-map": b""}), FdtNode("anywhere", {"size": u32s(0, 4096)})]
    return Fdt(FdtNode("", children=[FdtNode("reserved-memory", cells, kept)]))


@pytest.mark.parametrize(
    ("reg", "cells"),
    [
        (u64s(BASE + 256 * MIB - 16, 16, BASE, 4096), {"address": 2, "size": 2}),
        (u32s(0, BASE + 256 * MIB - 16, 16, 0, BASE, 4096), {}),
    ],
    ids=["64-bit sizes", "as without cells"],
)
def test_reserved_memory_stays_untouched(reg, cells):
    """Neither the initrd, which goes to the end of RAM, nor the kernel, which goes to its begin, is there."""
    kernel = build_image("aarch64", image_size=MIB)
    _, loaded = load_into(kernel, fdt=reserved_memory(reg, **cells), initrd=b"x")
    assert loaded.initrd_range.base == BASE + 256 * MIB - 8192
    assert loaded.entry == BASE + 2 * MIB


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"ram_ranges": ()}, ConfigurationError, "ram_ranges: is empty"),
        (
            {"ram_ranges": ((BASE, MIB),)},
            PlacementError,
            "kernel of 0x200000 bytes .*RAM is 0x40000000..0x40100000",
        ),
        ({"ram_ranges": ((1 << 48, GIB),)}, PlacementError, "ends at or below 0x1000000000000"),
        ({"initrd": bytes(300 * MIB)}, PlacementError, "initrd of .* too small"),
        ({"ram_ranges": ((BASE, 2 * MIB),)}, PlacementError, "device tree of .* whole pages"),
        ({"cmdline": "x" * 2048}, CmdlineTooLongError, "at most 2048"),
        ({"rng_seed": b""}, ConfigurationError, r"0 bytes; must be 1..4096"),
        ({"rng_seed": bytes(4097)}, ConfigurationError, "4097 bytes"),
        ({"fdt": Fdt(FdtNode("", {"big": bytes(2 * MIB)}))}, FdtBuildError, "Linux maps at most"),
        ({"fdt": Fdt(FdtNode("root"))}, FdtBuildError, "its name is empty"),
        ({"fdt": reserved_memory(bytes(15))}, FdtBuildError, "reg of kept@0 cannot be 15 .* entries have 12"),
        ({"fdt": reserved_memory(b"", address=0, size=0)}, FdtBuildError, "its entries have 0"),
        (
            {"kernel": build_bzimage()},
            ForeignArchitectureError,
            "x86 .*; give one built for AArch64 or RISC-V",
        ),
    ],
)
def test_refusals_leave_memory_alone(options, error, match):
    """Nothing is written when something does not fit."""
    memory = RecordingMemory()
    kernel = KernelImage.from_bytes(options.pop("kernel", build_image("aarch64", image_size=2 * MIB)))
    with pytest.raises(error, match=match):
        load_image(memory, kernel, **{"ram_ranges": RAM, "fdt": TREE, **options})
    assert memory.written == []


@pytest.mark.parametrize(("arch", "name"), [("aarch64", "AArch64"), ("riscv64", "RISC-V")])
def test_load_points_to_load_image(arch, name):
    """The x86 loader says who loads it."""
    with pytest.raises(ForeignArchitectureError, match=rf"{name} .*load_image.*give one built for x86-64"):
        load(RecordingMemory(), KernelImage.from_bytes(build_image(arch)), ram_ranges=RAM)


SIZES = st.integers(1, 300 * MIB)


@given(
    st.sampled_from(["aarch64", "riscv64"]),
    st.sampled_from([0, 0x8_0000, 0x20_0000, 0x1000]),
    SIZES,
    st.lists(st.tuples(st.integers(0, 511), st.integers(1, 40)), max_size=5),
    st.sampled_from([((BASE, 512 * MIB),), ((0, 64 * MIB), (BASE, 300 * MIB)), ((0x8020_0000, 100 * MIB),)]),
    st.integers(0, 9000),
)
def test_placement_avoids_everything(arch, text_offset, image_size, holes, ram, initrd_size):
    """Kernel, initrd and tree lie in RAM, off reservations and each other, aligned as booting.rst says."""
    reserved = []
    for at, size in holes:
        new = GuestRange(BASE + at * MIB, size * MIB)
        reserved += [] if any(new.overlaps(old) for old in reserved) else [new]
    data = build_image(arch, text_offset=text_offset, image_size=image_size)
    tree = Fdt(TREE.root, tuple(reserved))
    with contextlib.suppress(PlacementError):
        _, loaded = load_into(data, ram=ram, fdt=tree, initrd=bytes(initrd_size) or None)
        assert (loaded.entry - text_offset) % (2 * MIB) == 0
        parts = [loaded.kernel_range, loaded.fdt_range]
        parts += [] if loaded.initrd_range is None else [loaded.initrd_range]
        for i, part in enumerate(parts):
            assert any(GuestRange(*block).contains(part) for block in ram)
            assert not any(part.overlaps(other) for other in [*reserved, *parts[i + 1 :]])
        assert loaded.kernel_range.size == max(image_size, len(data))


@given(
    st.sampled_from(["aarch64", "riscv64"]),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=8),
)
def test_a_mutated_header_loads_inside_ram_or_is_refused(arch, changes):
    """Whatever the 64 bytes say: a LoaderError and no write, or a kernel inside RAM."""
    data = bytearray(build_image(arch, bytes(500), image_size=4 * MIB))
    for at, value in changes:
        data[at] = value
    memory = RecordingMemory(RAM)
    try:
        loaded = load_image(memory, KernelImage.from_bytes(bytes(data)), ram_ranges=RAM, fdt=TREE)
    except LoaderError:
        assert memory.written == []
        return
    assert GuestRange(*RAM[0]).contains(loaded.kernel_range)
    assert memory.read(loaded.entry, len(data)) == bytes(data)
