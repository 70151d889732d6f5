"""The IOTLB against a dict of bytes, and its rules."""

import gc
import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from vmm_memory import InvalidRegionError, Iotlb, IotlbEntry, Permissions, RegionBusyError

READ, WRITE = Permissions.READ, Permissions.WRITE
BOTH = READ | WRITE
TOP = 1 << 64


class AgainstDict(RuleBasedStateMachine):
    """Every operation on byte-sized ranges, and on a dict from IOVA to (target, permissions)."""

    places = st.integers(0, 60)
    sizes = st.integers(1, 12)
    rights = st.sampled_from((READ, WRITE, BOTH))

    @initialize(top=st.booleans(), capacity=st.sampled_from((1, 3, 2048)))
    def begin(self, top, capacity):
        """At the bottom of the address space, or so that the last range ends at exactly 2^64."""
        self.base = TOP - 72 if top else 0
        self.tlb, self.model, self.changes = Iotlb(capacity), {}, 0
        self.tlb.attach(self)

    def forget(self):
        """Count what the IOTLB announces."""
        self.changes += 1

    @rule(iova=places, size=sizes, to=st.integers(0, 200), rights=rights, straight=st.booleans())
    def insert(self, iova, size, to, rights, straight):
        """Over whatever is there; often so that neighbours can be merged."""
        target = 500 + iova if straight else to
        self.tlb.insert([IotlbEntry(self.base + iova, size, target, rights)])
        self.model |= {iova + i: (target + i, rights) for i in range(size)}
        assert {iova + i for i in range(size)} <= self.evict()

    def evict(self):
        """Take out of the model what the IOTLB has not any more; what it has must be there."""
        kept = {byte - self.base for entry in self.tlb for byte in range(entry.iova, entry.end)}
        assert kept <= set(self.model)
        if self.tlb.capacity == 2048:
            assert kept == set(self.model)
        self.model = {byte: self.model[byte] for byte in kept}
        return kept

    @rule(iova=places, size=st.integers(0, 72))
    def invalidate(self, iova, size):
        """Parts of entries, too."""
        before = self.changes
        self.tlb.invalidate(self.base + iova, size)
        self.model = {at: v for at, v in self.model.items() if not iova <= at < iova + size}
        assert self.changes == before + 1
        self.evict()

    @rule(iova=places, size=st.integers(0, 72), rights=rights)
    def lookup(self, iova, size, rights):
        """What is found, and what is missing first."""
        found = self.tlb.lookup(self.base + iova, size)
        seen = {
            entry.iova - self.base + i: (entry.target + i, entry.permissions)
            for entry in found
            for i in range(entry.size)
        }
        wanted = range(iova, iova + size)
        assert seen == {at: self.model[at] for at in wanted if at in self.model}
        bad = [at for at in wanted if at not in self.model or rights not in self.model[at][1]]
        expected = (self.base + bad[0], bad[0] in self.model) if bad else None
        assert self.tlb.first_missing(self.base + iova, size, rights) == expected

    @invariant()
    def entries_are_the_model(self):
        """Disjoint, ascending, merged, not too many, and byte for byte the model."""
        if not hasattr(self, "tlb"):
            return
        entries = list(self.tlb)
        assert len(entries) == len(self.tlb) <= self.tlb.capacity
        flat = {e.iova - self.base + i: (e.target + i, e.permissions) for e in entries for i in range(e.size)}
        assert flat == self.model
        assert sum(e.size for e in entries) == len(flat)
        assert [e.iova for e in entries] == sorted(e.iova for e in entries)


TestAgainstDict = AgainstDict.TestCase


def test_neighbours_merge_only_when_they_go_on():
    """Consecutive both here and there, with equal permissions."""
    tlb = Iotlb()
    tlb.insert([IotlbEntry(0x1000, 0x1000, 0x9000), IotlbEntry(0x3000, 0x1000, 0xB000)])
    assert len(tlb) == 2
    tlb.insert([IotlbEntry(0x2000, 0x1000, 0xA000)])
    assert list(tlb) == [IotlbEntry(0x1000, 0x3000, 0x9000)]
    tlb.insert([IotlbEntry(0x4000, 0x1000, 0xC000, READ), IotlbEntry(0x5000, 0x1000, 0xC000, READ)])
    assert len(tlb) == 3
    assert repr(tlb) == "<Iotlb of 3 entries, at most 2048>"


def test_the_oldest_is_evicted():
    """In order of arrival, not of address."""
    tlb = Iotlb(2)
    for iova in (0x9000, 0x1000, 0x5000):
        tlb.insert([IotlbEntry(iova, 1, 0)])
    assert [entry.iova for entry in tlb] == [0x1000, 0x5000]
    with pytest.raises(ValueError, match="capacity is 0"):
        Iotlb(0)


def test_invalidating_inside_an_entry():
    """Two are left, which counts against the capacity; of no bytes, nothing changes: both were wrong once."""
    tlb = Iotlb(1)
    tlb.insert([IotlbEntry(0, 3, 0)])
    tlb.invalidate(1, 0)
    assert list(tlb) == [IotlbEntry(0, 3, 0)]
    tlb.invalidate(1, 1)
    assert len(tlb) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((-1, 1, 0), r"IotlbEntry\.iova is -0x1"),
        ((0, 1, TOP), r"IotlbEntry\.target is 0x10000000000000000"),
        ((0, 0, 0), "size must be at least 1"),
        ((TOP - 1, 2, 0), "neither range may pass"),
        ((0, 2, TOP - 1), "neither range may pass"),
        ((0, 1, 0, Permissions(0)), "permits nothing"),
    ],
)
def test_entries_that_cannot_be(fields, message):
    """Each field is checked."""
    with pytest.raises(InvalidRegionError, match=message):
        IotlbEntry(*fields)


class User:
    """Something that uses a translation."""

    def __repr__(self):
        return "<User>"


def test_invalidate_waits_for_users_of_the_range():
    """Those of before and of these addresses; when they are gone it returns, else it names them."""
    tlb = Iotlb()
    tlb.insert([IotlbEntry(0, 0x10000, 0)])
    users = [User(), User()]
    tlb.holders.add(users[0], span=(0x1000, 0x2000))
    tlb.holders.add(users[1])
    with pytest.raises(RegionBusyError, match=r"the translation of 0x0 \+ 0x1000 is still used by <User>;"):
        tlb.invalidate(0, 0x1000, timeout=0.01)
    assert tlb.lookup(0, 0x1000) == ()
    del users[1]
    gc.collect()
    tlb.invalidate(0x2000, 0x1000, timeout=0)
    with pytest.raises(RegionBusyError):
        tlb.invalidate(0x1FFF, 1, timeout=0)
    late = User()
    tlb.holders.add(late)  # began after the invalidation, which it does not concern
    timer = threading.Timer(0.05, users.clear)
    with pytest.raises(RegionBusyError):
        tlb.invalidate(0, 1, timeout=0)  # … but this one it does
    del late
    gc.collect()
    timer.start()
    tlb.invalidate(0x1000, 1, timeout=30)
    assert not users
    timer.join()
