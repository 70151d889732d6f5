"""Where kernels and initrds go."""

import pytest
from linux_loader import ConfigurationError, E820Entry, E820Type, GuestRange, KernelImage, PlacementError
from linux_loader._placement import check_ram, make_ram, place_bzimage, place_elf, place_initrd
from linux_loader.testing import SegmentSpec, build_bzimage, build_elf

MIB = 1 << 20


def ram(*ranges, reserved=(), tables=()):
    """RAM with nothing of the loader's own in it."""
    return make_ram(ranges, reserved, tables)


def header(**options):
    """The setup header of a synthetic bzImage."""
    return KernelImage.from_bytes(build_bzimage(**options)).bzimage


def test_ram_is_sorted_and_merged():
    """Touching ranges become one block."""
    assert check_ram([(4 * MIB, MIB), (0, MIB), (MIB, MIB)]) == (
        GuestRange(0, 2 * MIB),
        GuestRange(4 * MIB, MIB),
    )
    with pytest.raises(ConfigurationError, match=r"0x0 \+ 0x0 is empty"):
        check_ram([(0, 0)])


def test_bzimage_prefers_pref_address():
    """Free RAM at pref_address is taken; the entry is 0x200 further."""
    placed = place_bzimage(header(), ram((0, 64 * MIB)))
    assert (placed.load_addr, placed.memory.size, placed.entry) == (16 * MIB, MIB, 16 * MIB + 0x200)


def test_bzimage_moves_up_past_a_reserved_range():
    """A relocatable kernel goes to the next multiple of its alignment."""
    taken = E820Entry(16 * MIB, 5 * MIB)
    assert place_bzimage(header(), ram((0, 64 * MIB), reserved=[taken])).load_addr == 22 * MIB


def test_min_alignment_is_the_second_try():
    """Where kernel_alignment finds nothing, min_alignment does."""
    tight = header(alignment=64 * MIB, min_alignment=12, pref_address=MIB)
    assert place_bzimage(tight, ram((0, 40 * MIB))).load_addr == MIB
    assert place_bzimage(tight, ram((0, 80 * MIB))).load_addr == 64 * MIB


def test_fixed_bzimage():
    """A kernel that is not relocatable loads at 1 MiB and needs its pref_address too."""
    placed = place_bzimage(header(relocatable=0), ram((0, 64 * MIB)))
    assert (placed.load_addr, placed.memory) == (MIB, GuestRange(MIB, 16 * MIB))
    with pytest.raises(PlacementError, match="needs RAM up to at least 17 MiB"):
        place_bzimage(header(relocatable=0), ram((0, 16 * MIB)))
    with pytest.raises(PlacementError, match="past 4 GiB"):
        place_bzimage(header(relocatable=0, pref_address=1 << 32), ram((0, 1 << 33)))


def test_bzimage_too_large():
    """The message says how much memory would do."""
    with pytest.raises(PlacementError, match=r"init_size.*at least 80 MiB") as caught:
        place_bzimage(header(init_size=64 * MIB), ram((0, 64 * MIB)))
    assert (caught.value.what, caught.value.size) == ("kernel", 64 * MIB)
    with pytest.raises(PlacementError, match="below 4 GiB"):
        place_bzimage(header(), ram((0, MIB), (1 << 32, 1 << 32)))


def test_elf_stays_at_its_addresses():
    """Segments are never moved; above 4 GiB nothing is mapped at entry."""
    high = KernelImage.from_bytes(build_elf([SegmentSpec(1 << 32, b"\xf4")], entry=1 << 32)).elf
    with pytest.raises(PlacementError, match="past 4 GiB"):
        place_elf(high, ram((0, MIB), (1 << 32, MIB)), 1 << 32)
    low = KernelImage.from_bytes(build_elf([SegmentSpec(MIB, b"\xf4", 100)], entry=MIB)).elf
    assert place_elf(low, ram((0, 2 * MIB)), MIB).memory == GuestRange(MIB, 100)
    with pytest.raises(PlacementError, match="overlaps page tables at"):
        place_elf(low, ram((0, 2 * MIB), tables=[("page tables", GuestRange(MIB + 99, 1))]), MIB)


@pytest.mark.parametrize(
    ("addr_max", "expected"),
    [(0xFFFF_FFFF, 63 * MIB + 0xFF000), (40 * MIB - 1, 40 * MIB - 0x1000), (40 * MIB - 2, 40 * MIB - 0x2000)],
)
def test_initrd_goes_high(addr_max, expected):
    """Its last byte's page ends at or below the limit, page aligned."""
    free = ram((0, 64 * MIB))
    placed = place_bzimage(header(), free)
    assert place_initrd(1, free, placed, addr_max=addr_max) == GuestRange(expected, 1)


def test_initrd_below_the_kernel_when_nothing_else_is_left():
    """Any gap above 1 MiB will do."""
    free = ram((0, 17 * MIB))
    placed = place_bzimage(header(), free)
    assert place_initrd(MIB, free, placed, addr_max=0x7FFF_FFFF).base == 15 * MIB
    with pytest.raises(PlacementError, match="has 0xf00000 bytes"):
        place_initrd(15 * MIB + 1, free, placed, addr_max=0x7FFF_FFFF)


def test_a_reserved_entry_of_type_ram_reserves_nothing():
    """RAM entries may repeat RAM."""
    assert ram((0, MIB), reserved=[E820Entry(0, MIB, E820Type.RAM)]).taken == ()
