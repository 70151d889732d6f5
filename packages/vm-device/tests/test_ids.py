"""The id allocator against a set."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vm_device import (
    AddressAllocator,
    AllocationError,
    ExhaustedError,
    IdAllocator,
    IdAllocatorState,
    NotAllocatedError,
    SavedStateError,
    SystemAllocator,
)
from vm_device.platform import AddressSpace

OPERATIONS = st.tuples(st.sampled_from(["take", "exact", "free"]), st.integers(0, 14))


@given(st.lists(OPERATIONS, max_size=60))
@example([("take", 0), ("free", 3), ("exact", 3), ("take", 0)])
def test_always_the_smallest_free_id(operations):
    """Agreement with a set for every mixture of smallest, exact and free."""
    ids, taken = IdAllocator(3, 12), set()
    for kind, number in operations:
        if kind == "take":
            smallest = next((n for n in range(3, 13) if n not in taken), None)
            if smallest is None:
                with pytest.raises(ExhaustedError, match=r"all 10 ids of 3\.\.12 are in use"):
                    ids.allocate()
            else:
                assert ids.allocate("x") == smallest
                taken.add(smallest)
        elif kind == "exact" and 3 <= number <= 12 and number not in taken:
            assert ids.allocate(at=number) == number
            taken.add(number)
        elif kind == "exact":
            with pytest.raises(AllocationError, match=f"id {number}"):
                ids.allocate(at=number)
        elif number in taken:
            ids.free(number)
            taken.remove(number)
        else:
            with pytest.raises(NotAllocatedError, match=f"id {number} is not allocated"):
                ids.free(number)
        assert {n for n in range(20) if ids.owner(n) is not None} == taken
        assert ids.free_count == 10 - len(taken)
        assert IdAllocator.from_state(ids.state()).state() == ids.state()


def test_bounds_and_states():
    """Impossible ranges and states are refused."""
    for first, last in ((2, 1), (-1, 3)):
        with pytest.raises(AllocationError, match=f"first={first} last={last}"):
            IdAllocator(first, last)
    with pytest.raises(SavedStateError):
        IdAllocator.from_state(IdAllocatorState(0, 1, (), version=0))
    with pytest.raises(AllocationError):
        IdAllocator.from_state(IdAllocatorState(0, 1, ((2, ""),)))


def test_system_allocator_releases_a_device_from_all_spaces():
    """Unplugging gives back ports, MMIO and interrupts together."""
    system = SystemAllocator(
        AddressAllocator(0, 0x10000, AddressSpace.PIO),
        AddressAllocator(0xD000_0000, 0x1000_0000),
        AddressAllocator(1 << 32, 1 << 40),
        IdAllocator(5, 23),
    )
    system.pio.allocate(8, owner="nic0")
    system.mmio_low.allocate(0x1000, 0x1000, owner="nic0")
    system.mmio_high.allocate(0x1000, 0x1000, owner="nic1")
    assert system.gsi.allocate("nic0") == 5
    assert system.release_owner("nic0") == 3
    assert system.gsi.allocate() == 5
    assert len(system.mmio_high) == 1
