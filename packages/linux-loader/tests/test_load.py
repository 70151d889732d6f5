"""Loading as a whole: what is written, where, and what is refused."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import (
    BootProtocol,
    Cmdline,
    CmdlineTooLongError,
    ConfigurationError,
    E820Entry,
    E820Type,
    GuestRange,
    ImageError,
    KernelImage,
    LoaderError,
    PlacementError,
    UnsupportedProtocolError,
    check,
    load,
)
from linux_loader.testing import LINUX_NOTE, RecordingMemory, SegmentSpec, build_bzimage, build_elf, pvh_note

MIB = 1 << 20
RAM = ((0, 256 * MIB),)
SEED = bytes(range(32))


def u(memory, layout, addr):
    """One little-endian number from guest memory."""
    return struct.unpack("<" + layout, memory.read(addr, struct.calcsize("<" + layout)))[0]


def e820(memory):
    """The zero page's memory map."""
    return [struct.unpack("<QQI", memory.read(0x72D0 + 20 * i, 20)) for i in range(memory.read(0x71E8, 1)[0])]


def merged(ranges):
    """Touching ranges joined."""
    result = []
    for r in sorted(ranges):
        if result and result[-1].end >= r.base:
            result[-1] = GuestRange(result[-1].base, max(result[-1].end, r.end) - result[-1].base)
        else:
            result.append(r)
    return result


def load_into(kernel, **options):
    """Load bytes into a recording memory that is exactly RAM, and check the declared ranges."""
    ram = options.setdefault("ram_ranges", RAM)
    memory = RecordingMemory(ram, fill=options.pop("fill", 0))
    loaded = load(memory, KernelImage.from_bytes(kernel), **options)
    if not {"rng_seed", "rsdp_addr", "fresh_memory"} & set(options):
        assert check(KernelImage.from_bytes(kernel), **options) == loaded
    assert merged(memory.written) == merged(loaded.writes)
    assert list(loaded.writes) == sorted(loaded.writes)
    assert sum(r.size for r in merged(loaded.writes)) == sum(r.size for r in loaded.writes)
    return memory, loaded


def test_bzimage(vmlinux):
    """The 64-bit protocol: zero page, command line, initrd, seed and kernel are where the registers say."""
    data = build_bzimage(vmlinux)
    initrd = b"070701" + bytes(9000)
    memory, loaded = load_into(
        data, cmdline="console=ttyS0", initrd=initrd, rsdp_addr=0xE_0000, rng_seed=SEED
    )
    assert loaded.protocol is BootProtocol.LINUX64
    assert loaded.kernel_range == GuestRange(16 * MIB, MIB)
    assert loaded.entry.rip == 16 * MIB + 0x200
    assert memory.read(16 * MIB, 0x400) == b"\xf4" * 0x400
    zero = loaded.entry.rsi
    assert zero == loaded.boot_info_addr
    assert memory.read(zero + 0x202, 4) == b"HdrS"
    assert (u(memory, "B", zero + 0x1EF), u(memory, "B", zero + 0x210)) == (0, 0xFF)
    assert u(memory, "Q", zero + 0x70) == 0xE_0000
    assert memory.read(u(memory, "I", zero + 0x228), 14) == b"console=ttyS0\0"
    ramdisk, size = u(memory, "I", zero + 0x218), u(memory, "I", zero + 0x21C)
    assert GuestRange(ramdisk, size) == loaded.initrd_range
    assert ramdisk == 256 * MIB - 3 * 4096
    assert memory.read(ramdisk, size) == initrd
    node = u(memory, "Q", zero + 0x250)
    assert struct.unpack("<QII", memory.read(node, 16)) == (0, 9, 32)
    assert memory.read(node + 16, 32) == SEED
    assert e820(memory) == [(0, 0x9_FC00, 1), (0x9_FC00, 0x6_0400, 2), (MIB, 255 * MIB, 1)]
    assert [(e.base, e.size, e.type) for e in loaded.memory_map] == e820(memory)


def test_elf_by_the_64bit_protocol(vmlinux):
    """AUTO enters a Linux vmlinux at e_entry and gives it a header of its own."""
    memory, loaded = load_into(vmlinux, rng_seed=SEED)
    assert loaded.seeded
    assert loaded.protocol is BootProtocol.LINUX64
    assert loaded.entry.rip == 16 * MIB + 0x53
    assert (u(memory, "H", 0x71FE), memory.read(0x7202, 4), u(memory, "I", 0x7238)) == (0xAA55, b"HdrS", 2047)
    assert loaded.kernel_range == GuestRange(16 * MIB, 2 * MIB + 2048)
    assert memory.read(16 * MIB, 5000) == b"\xf4" * 5000
    assert memory.read(18 * MIB, 2048) == bytes(range(256)) * 8


def test_elf_by_pvh(vmlinux):
    """EBX points to a version 1 start info with command line, module, RSDP and memory map."""
    acpi = E820Entry(0xE_0000, 0x1000, E820Type.ACPI)
    memory, loaded = load_into(
        vmlinux,
        protocol=BootProtocol.PVH,
        cmdline="quiet",
        initrd=b"x" * 10,
        rsdp_addr=0xE_0000,
        reserved=[acpi],
    )
    assert loaded.entry.rip == 16 * MIB + 0x30
    info = struct.unpack("<IIIIQQQQII", memory.read(loaded.entry.rbx, 56))
    assert info == (0x336E_C578, 1, 0, 1, 0x6040, 0x2_0000, 0xE_0000, 0x7000, len(loaded.memory_map), 0)
    assert memory.read(0x2_0000, 6) == b"quiet\0"
    assert struct.unpack("<QQQQ", memory.read(0x6040, 32)) == (loaded.initrd_range.base, 10, 0, 0)
    told = [struct.unpack("<QQII", memory.read(0x7000 + 24 * i, 24)) for i in range(info[8])]
    assert told == [(e.base, e.size, e.type, 0) for e in loaded.memory_map]
    assert (0xE_0000, 0x1000, 3, 0) in told
    assert not any(r.overlaps(GuestRange(0x9000, 0x6000)) for r in loaded.writes)


def test_files(tmp_path, vmlinux):
    """Kernel and initrd may be paths; both are closed afterwards, also when loading fails."""
    kernel, initrd = tmp_path / "vmlinuz", tmp_path / "initrd"
    kernel.write_bytes(build_bzimage(vmlinux))
    initrd.write_bytes(b"i" * 5000)
    memory = RecordingMemory(RAM)
    loaded = load(memory, kernel, ram_ranges=RAM, initrd=initrd)
    assert memory.read(loaded.initrd_range.base, 5000) == b"i" * 5000
    with pytest.raises(PlacementError):
        load(memory, kernel, ram_ranges=[(0, MIB)], initrd=initrd)
    initrd.write_bytes(b"")
    with pytest.raises(ImageError, match=r"initrd .* is empty"):
        load(memory, kernel, ram_ranges=RAM, initrd=initrd)
    with pytest.raises(ImageError, match="initrd is empty"):
        load(memory, kernel, ram_ranges=RAM, initrd=b"")


def test_used_memory_gets_its_bss_cleared(vmlinux):
    """BSS is written only when the caller says that memory may hold something."""
    fresh, _ = load_into(vmlinux, fill=0xCC)
    assert fresh.read(16 * MIB + 5000, 3192) == b"\xcc" * 3192
    used, loaded = load_into(vmlinux, fill=0xCC, fresh_memory=False)
    assert used.read(16 * MIB + 5000, 3192) == bytes(3192)
    assert GuestRange(16 * MIB + 5000, 3192) in loaded.writes


def test_a_large_bss_is_cleared_in_steps():
    """Three and a half MiB of BSS become zeros, and only they."""
    data = build_elf([SegmentSpec(16 * MIB, b"\xf4", 7 * MIB // 2)], entry=16 * MIB)
    memory, _ = load_into(data, fill=0xCC, fresh_memory=False)
    assert memory.read(16 * MIB, 7 * MIB // 2 + 1) == b"\xf4" + bytes(7 * MIB // 2 - 1) + b"\xcc"


@pytest.mark.parametrize(
    ("notes", "bits", "expected"),
    [
        ([LINUX_NOTE, pvh_note(16 * MIB)], 64, BootProtocol.LINUX64),
        ([pvh_note(16 * MIB)], 64, BootProtocol.PVH),
        ([], 64, BootProtocol.LINUX64),
        ([pvh_note(16 * MIB)], 32, BootProtocol.PVH),
    ],
)
def test_auto(notes, bits, expected):
    """AUTO prefers the 64-bit protocol for Linux and PVH for anything else with the note."""
    data = build_elf(
        [SegmentSpec(16 * MIB, b"\xf4")],
        entry=16 * MIB,
        notes=notes,
        bits=bits,
        machine=62 if bits == 64 else 3,
    )
    assert load_into(data)[1].protocol is expected


def test_auto_tells_when_a_seed_has_no_place():
    """Firmware with a PVH note gets no seed, and the result says so."""
    data = build_elf([SegmentSpec(16 * MIB, b"\xf4")], entry=16 * MIB, notes=[pvh_note(16 * MIB)])
    _, loaded = load_into(data, rng_seed=SEED)
    assert (loaded.protocol, loaded.seeded) == (BootProtocol.PVH, False)
    assert not any(r.overlaps(GuestRange(0x1_0000, 1)) for r in loaded.writes)


def test_impossible_protocols(vmlinux):
    """A missing entry is named with the cure."""
    plain = build_elf([SegmentSpec(16 * MIB, b"\xf4")], entry=16 * MIB)
    with pytest.raises(UnsupportedProtocolError, match=r"type 18\); use LINUX64"):
        load_into(plain, protocol=BootProtocol.PVH)
    with pytest.raises(UnsupportedProtocolError, match=r"vmlinux_from_bzimage"):
        load_into(build_bzimage(vmlinux), protocol=BootProtocol.PVH)
    with pytest.raises(UnsupportedProtocolError, match="32-bit"):
        load_into(build_elf([SegmentSpec(MIB, b"\xf4")], entry=MIB, bits=32, machine=3))
    with pytest.raises(ImageError, match="e_entry is 0xffffffff81000000, inside no loaded segment"):
        load_into(build_elf([SegmentSpec(MIB, b"\xf4")], entry=0xFFFF_FFFF_8100_0000))
    with pytest.raises(UnsupportedProtocolError, match="XLF_KERNEL_64"):
        load_into(build_bzimage(xloadflags=0), protocol=BootProtocol.LINUX64)
    with pytest.raises(UnsupportedProtocolError, match=r"32-bit boot protocol.*use LINUX64, or the bzImage"):
        load_into(plain, protocol=BootProtocol.LINUX32)


@pytest.mark.parametrize(
    ("kernel", "protocol", "entry"),
    [
        (build_bzimage(), BootProtocol.LINUX32, 16 * MIB),
        (build_bzimage(xloadflags=0), BootProtocol.AUTO, 16 * MIB),
        (
            build_elf([SegmentSpec(MIB, b"\xf4" * 9)], entry=MIB + 3, bits=32, machine=3, notes=[LINUX_NOTE]),
            BootProtocol.AUTO,
            MIB + 3,
        ),
    ],
)
def test_32_bit_entry(kernel, protocol, entry):
    """Protected mode without paging, ESI at the zero page, flat segments with the prescribed selectors."""
    memory, loaded = load_into(kernel, protocol=protocol, rng_seed=SEED, initrd=b"x")
    state = loaded.entry
    assert loaded.protocol is BootProtocol.LINUX32
    assert (state.rip, state.rsi, loaded.boot_info_addr) == (entry, 0x7000, 0x7000)
    assert (state.rbp, state.rbx, state.cr0, state.cr3, state.cr4, state.efer) == (0, 0, 0x11, 0, 0, 0)
    assert (state.cs.selector, state.cs.db, state.cs.l, state.ds.selector) == (0x10, 1, 0, 0x18)
    assert (state.cs.base, state.cs.limit, state.rflags) == (0, 0xFFFF_FFFF, 2)
    assert memory.read(state.gdt.base + 16, 8) == state.cs.descriptor().to_bytes(8, "little")
    assert memory.read(0x7202, 4) == b"HdrS"
    assert loaded.seeded
    assert GuestRange(u(memory, "I", 0x7218), 1) == loaded.initrd_range


def test_a_long_memory_map_goes_on_in_setup_data(vmlinux):
    """128 entries in the zero page, the others in a node before the seed; PVH has room for 128."""
    reserved = [E820Entry(64 * MIB + i * 8192, 4096) for i in range(100)]
    memory, loaded = load_into(build_bzimage(), reserved=reserved, rng_seed=SEED)
    assert len(loaded.memory_map) == 3 + 2 * 100
    node = u(memory, "Q", 0x7250)
    following, kind, size = struct.unpack("<QII", memory.read(node, 16))
    assert (kind, size) == (1, 20 * (len(loaded.memory_map) - 128))
    more = [struct.unpack("<QQI", memory.read(node + 16 + at, 20)) for at in range(0, size, 20)]
    assert e820(memory) + more == [(e.base, e.size, e.type) for e in loaded.memory_map]
    assert struct.unpack("<QII", memory.read(following, 16)) == (0, 9, 32)
    assert memory.read(following + 16, 32) == SEED
    with pytest.raises(ConfigurationError, match="203 entries, at most 128"):
        load_into(vmlinux, protocol=BootProtocol.PVH, reserved=reserved)
    with pytest.raises(ConfigurationError, match="65520 bytes beside a long memory map"):
        load_into(build_bzimage(), reserved=reserved, rng_seed=bytes(65520))
    with pytest.raises(ConfigurationError, match="at most 1152"):
        load_into(build_bzimage(), reserved=[E820Entry(64 * MIB + i * 8192, 4096) for i in range(600)])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"ram_ranges": []}, ConfigurationError, "ram_ranges: is empty"),
        ({"ram_ranges": [(0, 64 * MIB), (32 * MIB, MIB)]}, ConfigurationError, "overlaps 0x0..0x4000000"),
        ({"ram_ranges": [(0, 0)]}, ConfigurationError, "is empty or outside"),
        ({"ram_ranges": [(MIB, 256 * MIB)]}, PlacementError, "GDT of 0x20 bytes"),
        ({"ram_ranges": [(0, 16 * MIB)]}, PlacementError, "kernel segment .*at least 17 MiB"),
        ({"cmdline": "x" * 2048}, CmdlineTooLongError, "2049 bytes with the final NUL, but at most 2048"),
        ({"cmdline": Cmdline("x" * 3000, capacity=4000)}, CmdlineTooLongError, "3001 bytes"),
        ({"rsdp_addr": -1}, ConfigurationError, "rsdp_addr: -0x1 is outside"),
        ({"rng_seed": b""}, ConfigurationError, r"rng_seed: 0 bytes; must be 1..65520"),
        ({"rng_seed": bytes(65521)}, ConfigurationError, "65521 bytes"),
        ({"rng_seed": SEED, "protocol": BootProtocol.PVH}, ConfigurationError, "PVH has no field for a seed"),
        ({"initrd": bytes(239 * MIB)}, PlacementError, "initrd of 0xef00000 bytes .*smaller initrd"),
        (
            {"reserved": [E820Entry(0x7000, 16)]},
            PlacementError,
            "zero page .*overlaps reserved RESERVED range",
        ),
        ({"reserved": [E820Entry(17 * MIB, MIB + 1)]}, PlacementError, "kernel segment .*overlaps reserved"),
    ],
)
def test_refusals_leave_memory_alone(vmlinux, options, error, match):
    """Nothing is written when an argument is wrong or something does not fit."""
    memory = RecordingMemory()
    with pytest.raises(error, match=match):
        load(memory, KernelImage.from_bytes(vmlinux), **{"ram_ranges": RAM, **options})
    assert memory.written == []


def test_the_largest_seed_and_command_line(vmlinux):
    """Limits are reached, not approached."""
    memory, _ = load_into(build_bzimage(vmlinux), cmdline="x" * 2047, rng_seed=bytes(65520))
    assert memory.read(0x2_0000, 2048) == b"x" * 2047 + b"\0"


small = st.integers(0, 255)


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 3400), small), max_size=10),
    st.sampled_from(BootProtocol),
    st.sampled_from([(0, 8 * MIB), (0, 17 * MIB), (0, 64 * MIB), (0, 3 << 30)]),
    st.booleans(),
)
def test_mutated_kernels_write_only_what_they_declare(vmlinux, as_bzimage, changes, protocol, ram, fresh):
    """A damaged kernel loads into RAM and declared ranges only, or raises LoaderError and writes nothing."""
    data = bytearray(build_bzimage(vmlinux) if as_bzimage else vmlinux)
    for at, value in changes:
        data[(at if at >= 256 or not as_bzimage else 0x1F0 + at % 0x90) % len(data)] = value
    memory = RecordingMemory([ram])
    foreseen = None
    with contextlib.suppress(LoaderError):
        foreseen = check(
            KernelImage.from_bytes(bytes(data)), ram_ranges=[ram], protocol=protocol, initrd=b"i" * 100
        )
    try:
        image = KernelImage.from_bytes(bytes(data))
        loaded = load(
            memory,
            image,
            ram_ranges=[ram],
            protocol=protocol,
            initrd=b"i" * 100,
            fresh_memory=fresh or as_bzimage,
        )
    except LoaderError:
        assert memory.written == []
        assert foreseen is None
        return
    assert foreseen is not None
    assert (foreseen.entry, foreseen.kernel_range) == (loaded.entry, loaded.kernel_range)
    assert merged(memory.written) == merged(loaded.writes)
    assert not loaded.initrd_range.overlaps(loaded.kernel_range)
    assert GuestRange(*ram).contains(loaded.kernel_range)
    assert loaded.kernel_range.contains(GuestRange(loaded.entry.rip, 1))


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), max_size=6),
    st.integers(1, 60 * MIB),
    st.integers(1, 100 * MIB),
)
def test_placement_avoids_everything(vmlinux, holes, init_size, initrd_size):
    """Kernel and initrd never touch reserved ranges, each other, the low 1 MiB or the end of RAM."""
    reserved = [E820Entry(base * MIB, size * MIB) for base, size in holes]
    ram = [(0, 256 * MIB), (4096 * MIB, 64 * MIB)]
    image = KernelImage.from_bytes(build_bzimage(init_size=init_size))
    memory = RecordingMemory(ram)
    with contextlib.suppress(PlacementError):
        loaded = load(memory, image, ram_ranges=ram, reserved=reserved, initrd=bytes(initrd_size % 5000 + 1))
        for placed in (loaded.kernel_range, loaded.initrd_range):
            assert GuestRange(MIB, 255 * MIB).contains(placed)
            assert not any(placed.overlaps(r.range) for r in reserved)
        assert not loaded.kernel_range.overlaps(loaded.initrd_range)
        assert loaded.kernel_range.base % 0x20_0000 == 0
        assert loaded.initrd_range.base % 4096 == 0
