"""The address allocator against a bitmap, and the known bugs of its Rust model."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vm_device import (
    AddressAllocator,
    Allocation,
    AllocationError,
    AllocatorState,
    AllocPolicy,
    ExhaustedError,
    NotAllocatedError,
    SavedStateError,
)
from vm_device.platform import AddressRange, AddressSpace

MMIO = AddressSpace.MMIO
BASE, SIZE = 5, 60

OPERATIONS = st.one_of(
    st.tuples(st.just("first"), st.integers(1, 20), st.sampled_from([1, 2, 4, 8, 16])),
    st.tuples(st.just("last"), st.integers(1, 20), st.sampled_from([1, 2, 4, 8, 16])),
    st.tuples(st.just("exact"), st.integers(1, 20), st.integers(0, BASE + SIZE + 3)),
    st.tuples(st.just("free"), st.integers(1, 20), st.integers(0, BASE + SIZE + 3)),
    st.tuples(st.just("free-live"), st.integers(0, 20), st.just(0)),
)


def fits(bitmap, base, size):
    """Whether the model has `size` free cells at `base`."""
    return base >= BASE and base + size <= BASE + SIZE and not any(bitmap[base : base + size])


@given(st.lists(OPERATIONS, max_size=40))
@example([("exact", 20, 5), ("exact", 4, 10)])
@example([("exact", 1, 64)])
def test_allocator_agrees_with_a_bitmap(operations):
    """Every answer (address or refusal) is what a search over a bitmap gives; holes are its zero runs."""
    allocator = AddressAllocator(BASE, SIZE)
    bitmap, live = [0] * (BASE + SIZE + 32), {}
    for kind, a, b in operations:
        if kind in ("first", "last"):
            fitting = [base for base in range(BASE + SIZE) if base % b == 0 and fits(bitmap, base, a)]
            if fitting:
                base = fitting[0 if kind == "first" else -1]
                got = allocator.allocate(a, b, AllocPolicy(kind))
                assert got == AddressRange(MMIO, base, a)
                live[base] = a
                bitmap[base : base + a] = [1] * a
            else:
                with pytest.raises(ExhaustedError):
                    allocator.allocate(a, b, AllocPolicy(kind))
        elif kind == "exact":
            if fits(bitmap, b, a):
                allocator.allocate(a, 1, AllocPolicy.EXACT, at=b)
                live[b] = a
                bitmap[b : b + a] = [1] * a
            else:
                with pytest.raises(AllocationError):
                    allocator.allocate(a, 1, AllocPolicy.EXACT, at=b)
        else:
            base, size = list(live.items())[a % len(live)] if kind == "free-live" and live else (b, max(a, 1))
            if live.get(base) == size:
                allocator.free(AddressRange(MMIO, base, size))
                del live[base]
                bitmap[base : base + size] = [0] * size
            else:
                with pytest.raises(NotAllocatedError):
                    allocator.free(AddressRange(MMIO, base, size))
        check_against(allocator, bitmap, live)


def check_against(allocator, bitmap, live):
    """The allocator's whole view equals the model's."""
    assert [(a.range.base, a.range.size) for a in allocator] == sorted(live.items())
    free = {cell for hole in allocator.holes() for cell in range(hole.base, hole.last + 1)}
    assert free == {cell for cell in range(BASE, BASE + SIZE) if not bitmap[cell]}
    assert allocator.free_size == len(free)
    assert all(a.last + 1 < b.base for a, b in zip(allocator.holes(), allocator.holes()[1:], strict=False))
    assert AddressAllocator.from_state(allocator.state()).state() == allocator.state()


def test_rust_bug_exact_inside_an_allocation_is_refused():
    """vm-allocator hands out part of a taken range again."""
    allocator = AddressAllocator(0, 0x1000)
    allocator.allocate(0x800, owner="disk0")
    with pytest.raises(ExhaustedError, match=r"0x10 bytes at 0x100: mmio 0x0\.\.0x7ff belongs to disk0"):
        allocator.allocate(0x10, policy=AllocPolicy.EXACT, at=0x100)


def test_rust_bug_exact_single_byte_at_the_end():
    """vm-allocator cannot allocate the last address exactly."""
    assert AddressAllocator(0, 16).allocate(1, policy=AllocPolicy.EXACT, at=15).base == 15


def test_rust_bug_free_at_the_edges_loses_nothing():
    """vm-allocator loses ranges that start at 1 or end just below the top; here even all 2^64 bytes work."""
    top = AddressAllocator(0, 1 << 64)
    for at in (1, 0, (1 << 64) - 1, (1 << 64) - 2):
        top.free(top.allocate(1, policy=AllocPolicy.EXACT, at=at))
    assert top.holes() == (AddressRange(MMIO, 0, 1 << 64),)
    allocator = AddressAllocator(0, 16)
    parts = [allocator.allocate(7), allocator.allocate(1), allocator.allocate(8)]
    for part in (parts[0], parts[2], parts[1]):
        allocator.free(part)
    assert allocator.allocate(16).size == 16


def test_rust_bug_double_free_is_refused():
    """vm-allocator lets a free range be freed."""
    allocator = AddressAllocator(0, 16)
    part = allocator.allocate(4, owner="a")
    for wrong in (AddressRange(MMIO, 0, 2), AddressRange(MMIO, 2, 2), AddressRange(AddressSpace.PIO, 0, 4)):
        with pytest.raises(NotAllocatedError):
            allocator.free(wrong)
    allocator.free(part)
    with pytest.raises(NotAllocatedError, match=r"mmio 0x0\.\.0x3 is not an allocation: it is free"):
        allocator.free(part)


def test_owners():
    """An address names its owner, and an owner's ranges go together."""
    allocator = AddressAllocator(0x1000, 0x1000)
    allocator.allocate(0x100, owner="a")
    allocator.allocate(0x100, owner="b")
    allocator.allocate(0x100, owner="a")
    assert allocator.find(0x1180).owner == "b"
    assert allocator.find(0x1300) is None
    assert allocator.release_owner("a") == 2
    assert len(allocator) == 1
    assert allocator.largest_hole == 0xE00


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size=0: must be at least 1"),
        ({"size": 1, "align": 3}, "align=0x3: must be a power of two"),
        ({"size": 1, "align": 0}, "align=0x0"),
        ({"size": 1, "policy": AllocPolicy.EXACT}, "EXACT needs an address"),
        ({"size": 1, "at": 4}, "only EXACT takes one"),
        (
            {"size": 1, "align": 4, "policy": AllocPolicy.EXACT, "at": 6},
            "at=0x6: not a multiple of align=0x4",
        ),
        ({"size": 2, "policy": AllocPolicy.EXACT, "at": 15}, "at=0xf size=0x2: outside mmio"),
        ({"size": 17}, r"no hole of 0x11 bytes aligned to 0x1 in mmio 0x0\.\.0xf; the largest is 0x10"),
    ],
)
def test_refusals_say_why(arguments, message):
    """Each refusal names field, value and limit, and changes nothing."""
    allocator = AddressAllocator(0, 16)
    with pytest.raises(AllocationError, match=message):
        allocator.allocate(**arguments)
    assert allocator.free_size == 16


def test_impossible_states_are_refused():
    """A saved state is input."""
    taken = Allocation(AddressRange(AddressSpace.PIO, 0, 1))
    with pytest.raises(SavedStateError, match="version=2"):
        AddressAllocator.from_state(AllocatorState(MMIO, 0, 16, (), version=2))
    with pytest.raises(SavedStateError, match="allocations="):
        AddressAllocator.from_state(AllocatorState(MMIO, 0, 16, (taken,)))
    twice = Allocation(AddressRange(MMIO, 0, 1))
    with pytest.raises(ExhaustedError):
        AddressAllocator.from_state(AllocatorState(MMIO, 0, 16, (twice, twice)))
