"""The holder: publishing, listeners, rollback, snapshots under change."""

import functools
import gc
import threading
import weakref

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from vmm_memory import (
    GuestAddressSpace,
    GuestMemoryAtomic,
    GuestMemoryMmap,
    GuestRegionMmap,
    InvalidGuestAddressError,
    InvalidRegionError,
    ListenerError,
    NoSuchRegionError,
    RegionOverlapError,
)

PAGE = 4096


class Slots:
    """A listener that keeps slots as KVM would, and can be told to refuse."""

    def __init__(self):
        self.slots = {}
        self.discards = []
        self.refuse = None

    def region_added(self, region):
        """Set the slot, once."""
        if self.refuse == ("add", region.base):
            raise OSError("no slot left")
        assert region.slot not in self.slots
        self.slots[region.slot] = region

    def region_removed(self, region):
        """Delete the slot, which must be set."""
        if self.refuse == ("remove", region.base):
            raise OSError("busy")
        del self.slots[region.slot]

    def range_discarded(self, region, offset, size):
        """Remember what was said."""
        self.discards.append((region.base, offset, size))


class Changes(RuleBasedStateMachine):
    """Whatever is inserted, removed, replaced or refused: listeners hold exactly the published regions."""

    bases = st.integers(0, 5).map(lambda n: n * PAGE)

    def __init__(self):
        super().__init__()
        self.holder = GuestMemoryAtomic()
        self.listeners = [Slots(), Slots()]
        for listener in self.listeners:
            self.holder.add_listener(listener)

    @rule(base=bases, pages=st.integers(1, 2))
    def insert(self, base, pages):
        """Into a free place, or refused."""
        before = self.holder.memory()
        region = GuestRegionMmap.anonymous(base, pages * PAGE)
        try:
            assert region in self.holder.insert_region(region).regions
        except RegionOverlapError:
            assert self.holder.memory() is before

    @rule(base=bases, pages=st.integers(1, 2))
    def remove(self, base, pages):
        """Of a region that is there, or refused."""
        before = self.holder.memory()
        try:
            after = self.holder.remove_region(base, pages * PAGE)
            assert len(after.regions) == len(before.regions) - 1
        except NoSuchRegionError:
            assert self.holder.memory() is before

    @rule(keep=st.integers(0, 63), new=st.sets(bases, max_size=3))
    def replace(self, keep, new):
        """Some regions stay (the same objects), others come at any free place."""
        kept = [region for i, region in enumerate(self.holder.memory()) if keep >> i & 1]
        fresh = [
            GuestRegionMmap.anonymous(base, PAGE)
            for base in new
            if not any(region.contains(base) for region in kept)
        ]
        self.holder.replace(GuestMemoryMmap([*kept, *fresh]))

    @rule(which=st.integers(0, 1), base=bases, kind=st.sampled_from(("add", "remove")))
    def refused_by_a_listener(self, which, base, kind):
        """An exception of one listener undoes the others, and nothing is published."""
        before = self.holder.memory()
        region = before.find_region(base)
        self.listeners[which].refuse = (kind, base if region is None else region.base)
        if kind == "add" and region is None:
            with pytest.raises(OSError, match="no slot left"):
                self.holder.insert_region(GuestRegionMmap.anonymous(base, PAGE))
        if kind == "remove" and region is not None:
            with pytest.raises(OSError, match="busy"):
                self.holder.remove_region(region.base, region.size)
        self.listeners[which].refuse = None
        assert self.holder.memory() is before

    @invariant()
    def listeners_agree(self):
        """Slots are the published regions, in each listener."""
        wanted = {region.slot: region for region in self.holder.memory()}
        assert all(listener.slots == wanted for listener in self.listeners)


TestChanges = Changes.TestCase


def test_snapshot_survives_removal():
    """Who holds the old map reads on; who asks again sees the new one."""
    holder = GuestMemoryAtomic(GuestMemoryMmap.from_ranges([(0, PAGE), (PAGE, PAGE)]))
    assert isinstance(holder, GuestAddressSpace)
    old = holder.memory()
    old.write(PAGE, b"kept")
    new = holder.remove_region(PAGE, PAGE)
    assert holder.memory() is new
    assert old.read(PAGE, 4) == b"kept"
    with pytest.raises(InvalidGuestAddressError):
        new.read(PAGE, 4)


def test_late_listener_hears_of_what_is_there():
    """Adding replays; a listener that refuses is not added, and is told to forget."""
    holder = GuestMemoryAtomic(GuestMemoryMmap.from_ranges([(0, PAGE), (PAGE, PAGE)]))
    listener = Slots()
    holder.add_listener(listener)
    assert sorted(region.base for region in listener.slots.values()) == [0, PAGE]
    fussy = Slots()
    fussy.refuse = ("add", PAGE)
    with pytest.raises(OSError, match="no slot left"):
        holder.add_listener(fussy)
    assert fussy.slots == {}
    holder.remove_region(0, PAGE)
    assert [region.base for region in listener.slots.values()] == [PAGE]
    holder.remove_listener(listener)
    holder.remove_region(PAGE, PAGE)
    assert [region.base for region in listener.slots.values()] == [PAGE]
    with pytest.raises(ValueError, match="not in list"):
        holder.remove_listener(listener)


def test_listener_may_look_but_not_change():
    """A change from inside a notification is refused and undoes the outer one."""
    holder = GuestMemoryAtomic()

    class Meddler(Slots):
        def region_added(self, region):
            """Look, then meddle."""
            assert holder.memory().num_regions == 0
            holder.insert_region(GuestRegionMmap.anonymous(0x100000, PAGE))

    holder.add_listener(Meddler())
    with pytest.raises(ListenerError, match="may read it, but not change it"):
        holder.insert_region(GuestRegionMmap.anonymous(0, PAGE))
    assert holder.memory().num_regions == 0


def test_failed_undo_is_noted():
    """When undoing fails too, the first error is raised and carries the second."""
    holder = GuestMemoryAtomic()
    stubborn, refusing = Slots(), Slots()
    holder.add_listener(stubborn)
    holder.add_listener(refusing)
    stubborn.refuse, refusing.refuse = ("remove", 0), ("add", 0)
    with pytest.raises(OSError, match="no slot left") as caught:
        holder.insert_region(GuestRegionMmap.anonymous(0, PAGE))
    assert "failed too: OSError('busy')" in caught.value.__notes__[0]


def test_discard_tells_first():
    """Listeners that pin pages hear of a discard with the region's offset; bad ranges tell nobody."""
    holder = GuestMemoryAtomic(GuestMemoryMmap.from_ranges([(0x10000, 4 * PAGE)]))
    listener = Slots()
    holder.add_listener(listener)
    holder.memory().write(0x11000, b"gone soon")
    holder.discard(0x11000, PAGE)
    assert listener.discards == [(0x10000, PAGE, PAGE)]
    assert holder.memory().read(0x11000, 9) == bytes(9)
    with pytest.raises(InvalidRegionError):
        holder.discard(0x11000, 100)
    with pytest.raises(InvalidGuestAddressError, match="0x0 is not mapped; nothing to discard"):
        holder.discard(0, PAGE)
    assert len(listener.discards) == 1


def test_readers_while_regions_come_and_go():
    """Threads that take a snapshot per access never see half a change."""
    holder = GuestMemoryAtomic(GuestMemoryMmap.from_ranges([(0, PAGE)]))
    stop, failures = threading.Event(), []

    def reader():
        while not stop.is_set():
            memory = holder.memory()
            try:
                memory.write(0, b"\x55" * 64)
                if memory.num_regions == 2:
                    memory.write(PAGE - 2, b"span")
                    assert memory.read(PAGE - 2, 4) == b"span"
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        holder.insert_region(GuestRegionMmap.anonymous(PAGE, PAGE))
        holder.remove_region(PAGE, PAGE)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def filled(value):
    """A map of two adjacent regions of its own, every byte alike."""
    memory = GuestMemoryMmap.from_ranges([(0, PAGE), (PAGE, PAGE)])
    memory.write(0, bytes([value]) * (2 * PAGE))
    return memory


def test_readers_while_the_whole_map_is_replaced():
    """Reads across the seam are of one map, however many threads put others there; old maps are unmapped."""
    listener, holder = Slots(), GuestMemoryAtomic(filled(255))
    holder.add_listener(listener)
    stop, failures, seen, published = threading.Event(), [], set(), []

    def guarded(work):
        def run():
            try:
                work()
            except BaseException as error:
                failures.append(error)
                stop.set()
                raise

        return threading.Thread(target=run)

    def reader():
        while not stop.is_set():
            memory = holder.memory()
            (value,) = set(memory.read(PAGE - 64, 128))
            memory.write(PAGE - 8, bytes([value]) * 16)
            with memory.get_slice(PAGE, 64) as view:
                assert set(view.view) == {value}
            seen.add(value)

    def replacer(first):
        for value in range(first, 200, 2):
            memory = filled(value)
            published.extend(weakref.ref(region) for region in memory)
            assert holder.replace(memory) is memory

    readers = [guarded(reader) for _ in range(2)]
    replacers = [guarded(functools.partial(replacer, first)) for first in range(2)]
    for thread in [*readers, *replacers]:
        thread.start()
    for thread in replacers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert failures == []
    assert len(published) == 400
    assert listener.slots == {region.slot: region for region in holder.memory()}
    gc.collect()
    alive = {region for region in (reference() for reference in published) if region is not None}
    assert alive == set(holder.memory())
    assert seen
