"""Address allocator: what is taken, by whom, and the holes between."""

import enum
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import attrs

import vm_device  # whose names load when they are used
from vm_device._errors import AllocationError, ExhaustedError, NotAllocatedError, SavedStateError
from vm_device._saved_state import check_saved
from vm_device._value import Value
from vm_device.platform import AddressRange, AddressSpace


class AllocPolicy(enum.Enum):
    """Where in the free space an allocation goes."""

    FIRST = "first"
    """Lowest address that fits."""
    LAST = "last"
    """Highest address that fits."""
    EXACT = "exact"
    """At the address given with `at`, or not at all."""


@attrs.frozen(eq=False, repr=False)
class Allocation(Value):
    """An allocated range and its owner's name ("" when anonymous)."""

    range: AddressRange
    owner: str = ""


class AddressAllocator:
    """Hands out disjoint address ranges of one space. Thread-safe.

    Free space is not stored: it is the gaps between allocations, so that neighbours coalesce by themselves.

    Args:
        base: first address managed.
        size: bytes managed, at least 1.
        space: the address space of the ranges returned.

    Raises:
        PlatformError: base and size do not fit the space.
    """

    def __init__(self, base: int, size: int, space: AddressSpace = AddressSpace.MMIO) -> None:
        self.range = AddressRange(space, base, size)
        self._lock = threading.RLock()
        self._taken: list[Allocation] = []
        self._bases: list[int] = []

    def allocate(
        self,
        size: int,
        align: int = 1,
        policy: AllocPolicy = AllocPolicy.FIRST,
        owner: str = "",
        *,
        at: int | None = None,
    ) -> AddressRange:
        """Take a range.

        Args:
            size: bytes, at least 1.
            align: power of two the base must be a multiple of.
            policy: where to look; EXACT needs `at`.
            owner: name for error messages and `release_owner`.
            at: base address for EXACT, a multiple of `align`.

        Returns:
            The range, exactly `size` long.

        Raises:
            AllocationError: size < 1, align no power of two, or `at` missing, misplaced or misaligned.
            ExhaustedError: no hole fits, or the exact range is taken (the message names the owner).
        """
        self._check_request(size, align, policy, at)
        with self._lock:
            base = self._exact(at, size) if at is not None else self._search(size, align, policy)
            range_ = AddressRange(self.range.space, base, size)
            index = bisect_left(self._bases, base)
            self._bases.insert(index, base)
            self._taken.insert(index, Allocation(range_, owner))
            return range_

    def _check_request(self, size: int, align: int, policy: AllocPolicy, at: int | None) -> None:
        if size < 1:
            raise AllocationError(f"size={size}: must be at least 1")
        if align < 1 or align & (align - 1):
            raise AllocationError(f"align={align:#x}: must be a power of two")
        if (policy is AllocPolicy.EXACT) != (at is not None):
            raise AllocationError(
                f"at={at!r} with policy {policy.name}: EXACT needs an address and only EXACT takes one"
            )
        if at is not None and at % align:
            raise AllocationError(f"at={at:#x}: not a multiple of align={align:#x}")

    def _exact(self, at: int, size: int) -> int:
        if not self.range.contains(at, size):
            raise AllocationError(f"at={at:#x} size={size:#x}: outside {self.range}")
        index = bisect_right(self._bases, at) - 1
        for near in self._taken[max(index, 0) : index + 2]:
            if near.range.base <= at + size - 1 and at <= near.range.last:
                message = (
                    f"{size:#x} bytes at {at:#x}: {near.range} belongs to {near.owner or 'an unnamed owner'}"
                )
                raise ExhaustedError(message, size=size, largest=self.largest_hole)
        return at

    def _search(self, size: int, align: int, policy: AllocPolicy) -> int:
        if policy is AllocPolicy.FIRST:
            for hole in self.holes():
                base = -(-hole.base // align) * align
                if base + size - 1 <= hole.last:
                    return base
        else:
            for hole in reversed(list(self.holes())):
                base = (hole.last - size + 1) // align * align
                if base >= hole.base:
                    return base
        largest = self.largest_hole
        message = (
            f"no hole of {size:#x} bytes aligned to {align:#x} in {self.range}; the largest is {largest:#x}"
        )
        raise ExhaustedError(message, size=size, largest=largest)

    def free(self, range: AddressRange) -> None:  # noqa: A002 - contract name
        """Give back a range exactly as `allocate` returned it.

        Raises:
            NotAllocatedError: freed already, never allocated, or only part of an allocation. Nothing changes.
        """
        with self._lock:
            index = bisect_left(self._bases, range.base)
            if index == len(self._bases) or self._taken[index].range != range:
                owner = self.find(range.base) if range.space is self.range.space else None
                there = f"{owner.range} of {owner.owner!r} is there" if owner else "it is free"
                raise NotAllocatedError(f"{range} is not an allocation: {there}")
            del self._bases[index], self._taken[index]

    def release_owner(self, owner: str) -> int:
        """Free everything that `owner` holds; returns how many ranges that were."""
        with self._lock:
            before = len(self._taken)
            self._taken = [taken for taken in self._taken if taken.owner != owner]
            self._bases = [taken.range.base for taken in self._taken]
            return before - len(self._taken)

    def find(self, address: int) -> Allocation | None:
        """Return the allocation that holds `address`, or None when it is free or not managed here."""
        with self._lock:
            index = bisect_right(self._bases, address) - 1
            return self._taken[index] if index >= 0 and self._taken[index].range.contains(address) else None

    def holes(self) -> tuple[AddressRange, ...]:
        """Return the free ranges in address order; no two of them touch."""
        with self._lock:
            cursor, found = self.range.base, []
            for taken in self._taken:
                if taken.range.base > cursor:
                    found.append(AddressRange(self.range.space, cursor, taken.range.base - cursor))
                cursor = taken.range.last + 1
            if cursor <= self.range.last:
                found.append(AddressRange(self.range.space, cursor, self.range.last + 1 - cursor))
            return tuple(found)

    @property
    def largest_hole(self) -> int:
        """Size of the largest free range, 0 when full."""
        return max((hole.size for hole in self.holes()), default=0)

    @property
    def free_size(self) -> int:
        """Sum of all free bytes."""
        return sum(hole.size for hole in self.holes())

    def __iter__(self) -> Iterator[Allocation]:
        """Allocations in address order, as of this moment."""
        with self._lock:
            return iter(tuple(self._taken))

    def __len__(self) -> int:
        return len(self._taken)

    def state(self) -> "vm_device.AllocatorState":
        """Return the saved state."""
        return vm_device.AllocatorState(self.range.space, self.range.base, self.range.size, tuple(self))

    @classmethod
    def from_state(cls, state: "vm_device.AllocatorState") -> "AddressAllocator":
        """Rebuild an allocator.

        Raises:
            SavedStateError: unknown version, or an allocation in another space.
            AllocationError: allocations overlap or leave the managed range.
        """
        check_saved(state)
        allocator = cls(state.base, state.size, state.space)
        for taken in state.allocations:
            if taken.range.space is not state.space:
                raise SavedStateError("allocations", str(taken.range), f"ranges of {state.space.name}")
            allocator.allocate(taken.range.size, 1, AllocPolicy.EXACT, taken.owner, at=taken.range.base)
        return allocator
