"""Memory slots follow the region map, refusals included."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from vm_hypervisor import MemorySlots, SlotError
from vm_hypervisor.testing import Slot, SoftSlots
from vmm_memory import GuestMemoryAtomic, GuestMemoryError, GuestRegionMmap

PAGE = 4096
PLACES = st.integers(0, 15)
LENGTHS = st.integers(1, 4)


class SlotsMachine(RuleBasedStateMachine):
    """Insert and remove regions, with a hypervisor that sometimes refuses, against a set of intervals."""

    def __init__(self):
        super().__init__()
        self.vm, self.memory = SoftSlots(), GuestMemoryAtomic()
        self.slots = MemorySlots(self.vm)
        self.memory.add_listener(self.slots)
        self.model = {}  # base page -> (pages, region, tracked)

    @rule(place=PLACES, length=LENGTHS, refuse=st.booleans(), tracked=st.booleans())
    def insert(self, place, length, refuse, tracked):
        region = GuestRegionMmap.memfd(place * PAGE, length * PAGE, name="test", dirty=tracked)
        overlap = any(at < place + length and place < at + n for at, (n, *_) in self.model.items())
        self.vm.refuse = refuse
        try:
            self.memory.insert_region(region)
        except (SlotError, GuestMemoryError):
            inserted = False
        else:
            inserted = True
        assert inserted == (not overlap and not refuse)
        if inserted:
            self.model[place] = (length, region, tracked)
        else:
            region.close()

    @rule(place=PLACES, refuse=st.booleans())
    def remove(self, place, refuse):
        length, region, _ = self.model.get(place, (1, None, False))
        self.vm.refuse = refuse
        try:
            self.memory.remove_region(place * PAGE, length * PAGE)
        except (SlotError, GuestMemoryError):
            removed = False
        else:
            removed = True
        assert removed == (region is not None and not refuse)
        if removed:
            del self.model[place]
            region.close()

    @invariant()
    def slots_are_the_intervals(self):
        expected = {
            Slot(place * PAGE, n * PAGE, region.host_address, read_only=False, log_dirty=tracked)
            for place, (n, region, tracked) in self.model.items()
        }
        assert set(self.vm.slots.values()) == expected
        assert {region.base for region in self.slots.regions} == {place * PAGE for place in self.model}
        assert set(self.vm.slots) <= set(range(16)), "the smallest free number is taken"
        for _, region, _ in self.model.values():
            assert self.vm.slots[self.slots.slot_of(region)].base == region.base

    def teardown(self):
        self.vm.refuse = False
        for place in sorted(self.model):
            self.remove(place, False)


TestSlots = SlotsMachine.TestCase


def test_numbers_are_taken_again():
    """The slot of a removed region goes to the next one, so a small maximum is enough."""
    vm = SoftSlots(most=2)
    slots = MemorySlots(vm)
    first, second, third = (GuestRegionMmap.anonymous(i * PAGE, PAGE) for i in range(3))
    slots.region_added(first)
    slots.region_added(second)
    slots.region_removed(first)
    slots.region_added(third)
    assert [slots.slot_of(third), slots.slot_of(second)] == [0, 1]
    assert slots.regions == (third, second)


def test_too_many_regions():
    """The hypervisor's maximum is a refusal that names the slot, and leaves the others alone."""
    slots = MemorySlots(SoftSlots(most=1))
    slots.region_added(GuestRegionMmap.anonymous(0, PAGE))
    with pytest.raises(SlotError, match=r"^memory slot 1 \(guest 0x1000, 0x1000 bytes\): slot numbers end"):
        slots.region_added(GuestRegionMmap.anonymous(PAGE, PAGE))
    assert len(slots.regions) == 1


def test_unknown_region():
    """Removing what was never added is an error that names it."""
    region = GuestRegionMmap.anonymous(0x3000, PAGE)
    with pytest.raises(SlotError, match=r"\(guest 0x3000, 0x1000 bytes\): this region is not mirrored here$"):
        MemorySlots(SoftSlots()).region_removed(region)
