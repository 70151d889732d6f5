"""The native table: its rules in Python, and the C lookup against its twin."""

import os
import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import Constant, Counter, Drop, Eventfd, IoIn, Latch, NativeExits, NativeRange, Ring
from kvm_ioctls.testing import FakeRunPage, TwinNative

READS = st.sampled_from(["none", "constant", "latch", "counter"])
WRITES = st.sampled_from(["none", "drop", "latch", "counter", "ring"])


@st.composite
def tables(draw):
    """Draw two equal sets of disjoint ranges that share nothing; in each, one ring for all that keep."""
    ours, twins = [], []
    rings = {id(out): Ring(8) for out in (ours, twins)}
    for space, top in (("pio", 0x40), ("mmio", 2**64 - 1)):
        cuts = sorted(draw(st.sets(st.integers(0, 0x40) | st.integers(top - 0x40, top), max_size=8)))
        for base, end in zip(cuts[::2], cuts[1::2], strict=False):
            read, write, seed = draw(READS), draw(WRITES), draw(st.integers(0, 2**64 - 1))
            for out in (ours, twins):
                cell = {"latch": Latch(seed), "counter": Counter(seed)}
                actions = {"none": None, "drop": Drop(), "constant": Constant(seed), **cell}
                actions["ring"] = rings[id(out)]
                out.append(NativeRange(space, base, end - base, read=actions[read], write=actions[write]))
    return tuple(ours), tuple(twins), (rings[id(ours)], rings[id(twins)])


accesses = st.tuples(
    st.booleans(), st.integers(0, 0x44) | st.integers(2**64 - 0x48, 2**64 - 1), st.sampled_from([1, 2, 4, 8])
)


@given(tables=tables(), accesses=st.lists(accesses, max_size=20), data=st.data())
def test_c_table_agrees_with_its_twin(tables, accesses, data):
    """For any ranges and any accesses, C and the Python specification answer alike and keep alike state."""
    native, twin = NativeExits(tables[0]), TwinNative(tables[1])
    ring, twin_ring = tables[2]
    for write, addr, size in accesses:
        if data.draw(st.integers(0, 7)) == 0:
            assert ring.drain() == twin.drain(twin_ring)
        space = "pio" if addr <= 0xFFFF and size != 8 else "mmio"
        count = data.draw(st.integers(1, 5)) if space == "pio" else 1
        page = FakeRunPage()
        written = data.draw(st.binary(min_size=size * count, max_size=size * count))
        if space == "pio":
            page.put_io(write=write, port=addr, size=size, count=count, data=written)
            start = 4096
        else:
            page.put_mmio(write=write, addr=addr, size=size, data=written)
            start = 40
        answered = page.native(native)
        if write:
            assert answered == twin.write(space, addr, size, written)
        else:
            expected = twin.read(space, addr, size, count)
            assert answered == (expected is not None)
            assert not answered or page.page[start : start + size * count] == expected
    assert ring.drain() == twin.drain(twin_ring)
    for ours, twins in zip(tables[0], tables[1], strict=True):
        for name in ("read", "write"):
            assert getattr(getattr(ours, name), "value", 0) == getattr(getattr(twins, name), "value", 0)


def test_access_across_the_end_goes_to_python():
    """Only an access wholly inside is answered."""
    table = NativeExits([NativeRange("pio", 0x10, 4, read=Constant())])

    assert FakeRunPage().put_io(write=False, port=0x12, size=2).native(table)
    assert not FakeRunPage().put_io(write=False, port=0x13, size=2).native(table)
    assert not FakeRunPage().put_io(write=False, port=0x0F, size=2).native(table)


def test_direction_without_action_goes_to_python():
    """A range with only a write action leaves reads to Python."""
    table = NativeExits([NativeRange("mmio", 0xD000_0000, 8, write=Drop())])

    assert FakeRunPage().put_mmio(write=True, addr=0xD000_0000, size=8).native(table)
    assert not FakeRunPage().put_mmio(write=False, addr=0xD000_0000, size=8).native(table)


def test_eventfd_counts_elements_of_a_string(eventfd):
    """A string write of n elements adds n to the eventfd."""
    table = NativeExits([NativeRange("pio", 0x600, 2, write=Eventfd(eventfd))])

    FakeRunPage().put_io(write=True, port=0x600, size=2, count=5).native(table)

    assert os.eventfd_read(eventfd) == 5


def test_full_eventfd_is_not_an_error(eventfd):
    """A write to a full counter is dropped: its reader is awake already."""
    os.eventfd_write(eventfd, 2**64 - 2)
    table = NativeExits([NativeRange("pio", 0x600, 1, write=Eventfd(eventfd))])

    assert FakeRunPage().put_io(write=True, port=0x600, size=1).native(table)
    assert os.eventfd_read(eventfd) == 2**64 - 2


def test_table_keeps_the_eventfd_open():
    """The table has its own duplicate, so the owner may close the original first."""
    fd = os.eventfd(0)
    keeper = os.dup(fd)
    table = NativeExits([NativeRange("pio", 1, 1, write=Eventfd(fd))])
    os.close(fd)

    FakeRunPage().put_io(write=True, port=1, size=1).native(table)

    assert os.eventfd_read(keeper) == 1
    os.close(keeper)


def test_table_closes_its_duplicates():
    """With its last reference a table gives its descriptors back."""
    fd = os.eventfd(0)
    before = len(os.listdir("/proc/self/fd"))
    table = NativeExits([NativeRange("pio", i, 1, write=Eventfd(fd)) for i in range(10)])
    during = len(os.listdir("/proc/self/fd"))
    del table

    assert (during - before, len(os.listdir("/proc/self/fd"))) == (10, before)
    os.close(fd)


def test_eventfd_must_be_one():
    """Something else could block the vCPU thread and is refused, leaking nothing."""
    reader, writer = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    fd = os.eventfd(0)
    ranges = [NativeRange("pio", 1, 1, write=Eventfd(fd)), NativeRange("pio", 2, 1, write=Eventfd(writer))]

    with pytest.raises(ValueError, match=rf"^fd={writer} is pipe:.*, not an eventfd"):
        NativeExits(ranges)

    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(reader)
    os.close(writer)


def test_closed_eventfd_is_refused():
    """A number that is no open descriptor is refused by name."""
    with pytest.raises(ValueError, match=r"^fd=99999 is not an open file descriptor$"):
        NativeExits([NativeRange("pio", 1, 1, write=Eventfd(99999))])


def test_overlap_is_refused_with_both_ranges():
    """Two ranges of one space that share a port are refused, in hex."""
    with pytest.raises(ValueError, match=r"pio ranges overlap: 0x3f8\.\.0x3ff and 0x3ff\.\.0x402"):
        NativeExits([NativeRange("pio", 0x3FF, 4), NativeRange("pio", 0x3F8, 8)])


def test_same_numbers_in_two_spaces_are_fine():
    """Port 0x100 and address 0x100 are different things."""
    table = NativeExits([NativeRange("pio", 0x100, 4), NativeRange("mmio", 0x100, 4)])

    assert len(table) == 2


@pytest.mark.parametrize(
    ("space", "base", "size"), [("pio", 0xFFFF, 2), ("pio", 0, 0), ("mmio", 2**64 - 1, 2), ("mmio", -1, 1)]
)
def test_impossible_ranges_are_refused(space, base, size):
    """Empty ranges and ranges beyond the end of their space are refused."""
    with pytest.raises(ValueError, match=f"^{space} range base=.* size=.* is not inside"):
        NativeRange(space, base, size)


def test_unknown_space_is_refused():
    """There are ports and memory, nothing else."""
    with pytest.raises(ValueError, match=r"^space='msr' is neither 'pio' nor 'mmio'$"):
        NativeRange("msr", 0, 1)


def test_constant_must_fit():
    """A constant is at most 64 bits."""
    with pytest.raises(ValueError, match=r"^value=0x10000000000000000 is not in 0"):
        Constant(1 << 64)


def test_hits_follow_the_order_of_ranges():
    """hits() lines up with .ranges in both spaces."""
    table = NativeExits([NativeRange("pio", 8, 1, write=Drop()), NativeRange("mmio", 0, 4, write=Drop())])
    for _ in range(3):
        FakeRunPage().put_io(write=True, port=8, size=1).native(table)
    FakeRunPage().put_mmio(write=True, addr=0, size=4).native(table)

    assert {(r.space, n) for r, n in zip(table.ranges, table.hits(), strict=True)} == {
        ("pio", 3),
        ("mmio", 1),
    }


def test_ranges_are_immutable():
    """A table cannot change under a running vCPU."""
    table = NativeExits([NativeRange("pio", 8, 1)])

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        table.ranges[0].base = 1


def test_unanswered_read_leaves_the_page_alone():
    """The table writes only where it answers."""
    page = FakeRunPage().put_io(write=False, port=5, size=4, data=struct.pack("<I", 0xDEAD))

    assert not page.native(NativeExits())
    assert page.decode() == IoIn(5, 4, 1)
    assert page.page[4096:4100] == struct.pack("<I", 0xDEAD)
