"""Id allocator, and the set of allocators a machine has."""

import heapq
import threading

import attrs

import vm_device  # whose names load when they are used
from vm_device._alloc import AddressAllocator
from vm_device._errors import AllocationError, ExhaustedError, NotAllocatedError
from vm_device._saved_state import check_saved
from vm_device._value import Value


class IdAllocator:
    """Hands out the smallest free integer of a range (GSIs, memory slots, CIDs). Thread-safe.

    Args:
        first: smallest id, >= 0.
        last: largest id, inclusive, >= first.

    Raises:
        AllocationError: last < first or first < 0.
    """

    def __init__(self, first: int, last: int) -> None:
        if not 0 <= first <= last:
            raise AllocationError(f"first={first} last={last}: need 0 <= first <= last")
        self.first = first
        self.last = last
        self._lock = threading.RLock()
        self._owners: dict[int, str] = {}
        self._next = first  # no id >= _next was ever freed
        self._freed: list[int] = []  # heap; may also hold ids that were since taken by `at`
        self._in_heap: set[int] = set()

    def allocate(self, owner: str = "", *, at: int | None = None) -> int:
        """Take the smallest free id, or exactly `at`.

        Raises:
            ExhaustedError: none is left, or `at` is taken.
            AllocationError: `at` lies outside the range.
        """
        with self._lock:
            chosen = self._smallest() if at is None else self._check_exact(at)
            self._owners[chosen] = owner
            return chosen

    def _check_exact(self, at: int) -> int:
        if not self.first <= at <= self.last:
            raise AllocationError(f"id {at}: outside {self.first}..{self.last}")
        if at in self._owners:
            message = f"id {at} belongs to {self._owners[at] or 'an unnamed owner'}"
            raise ExhaustedError(message, size=1, largest=min(1, self.free_count))
        return at

    def _smallest(self) -> int:
        while self._freed:
            candidate = heapq.heappop(self._freed)
            self._in_heap.discard(candidate)
            if candidate not in self._owners:
                return candidate
        while self._next in self._owners:
            self._next += 1
        if self._next > self.last:
            message = f"all {self.last - self.first + 1} ids of {self.first}..{self.last} are in use"
            raise ExhaustedError(message, size=1, largest=0)
        self._next += 1
        return self._next - 1

    def free(self, id: int) -> None:  # noqa: A002 - an id is what it takes
        """Give an id back.

        Raises:
            NotAllocatedError: it is free or outside the range. Nothing changes.
        """
        with self._lock:
            if id not in self._owners:
                raise NotAllocatedError(f"id {id} is not allocated (range {self.first}..{self.last})")
            del self._owners[id]
            if id < self._next and id not in self._in_heap:
                heapq.heappush(self._freed, id)
                self._in_heap.add(id)

    def release_owner(self, owner: str) -> int:
        """Free all ids of `owner`; returns how many."""
        with self._lock:
            mine = [id_ for id_, name in self._owners.items() if name == owner]
            for id_ in mine:
                self.free(id_)
            return len(mine)

    def owner(self, id: int) -> str | None:  # noqa: A002 - an id is what it takes
        """Return the owner's name ("" when anonymous), or None when the id is free."""
        return self._owners.get(id)

    @property
    def free_count(self) -> int:
        """How many ids are left."""
        return self.last - self.first + 1 - len(self._owners)

    def state(self) -> "vm_device.IdAllocatorState":
        """Return the saved state."""
        with self._lock:
            return vm_device.IdAllocatorState(self.first, self.last, tuple(sorted(self._owners.items())))

    @classmethod
    def from_state(cls, state: "vm_device.IdAllocatorState") -> "IdAllocator":
        """Rebuild an allocator.

        Raises:
            SavedStateError: unknown version.
            AllocationError: an id is out of range or listed twice.
        """
        check_saved(state)
        allocator = cls(state.first, state.last)
        for id_, owner in state.allocated:
            allocator.allocate(owner, at=id_)
        return allocator


@attrs.frozen(eq=False, repr=False)
class SystemAllocator(Value):
    """The allocators of a machine, one per space.

    Args:
        pio: I/O ports.
        mmio_low: MMIO below 4 GiB.
        mmio_high: MMIO from 4 GiB up.
        gsi: global system interrupts.
    """

    pio: AddressAllocator
    mmio_low: AddressAllocator
    mmio_high: AddressAllocator
    gsi: IdAllocator

    def release_owner(self, owner: str) -> int:
        """Free everything `owner` holds in all four (unplugging a device); returns how many pieces."""
        pools = (self.pio, self.mmio_low, self.mmio_high, self.gsi)
        return sum(pool.release_owner(owner) for pool in pools)
