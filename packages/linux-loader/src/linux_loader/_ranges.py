"""Guest-physical intervals, and finding room between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen
from vm_device import Value

ADDRESS_SPACE = 1 << 64


@frozen(order=True, repr=False)
class GuestRange(Value):
    """A half-open interval of guest-physical addresses.

    Attributes:
        base: First address.
        size: Length in bytes; 0 is an empty range, which overlaps nothing.
    """

    base: int
    size: int

    @property
    def end(self) -> int:
        """First address after the range."""
        return self.base + self.size

    @property
    def last(self) -> int:
        """Last address inside the range; ``base - 1`` when empty."""
        return self.end - 1

    def contains(self, other: GuestRange) -> bool:
        """Tell whether ``other`` lies wholly inside this range."""
        return self.base <= other.base and other.end <= self.end

    def overlaps(self, other: GuestRange) -> bool:
        """Tell whether the two ranges share an address."""
        return self.base < other.end and other.base < self.end and self.size > 0 and other.size > 0

    def __str__(self) -> str:
        return f"{self.base:#x}..{self.end:#x}"


def align_down(value: int, alignment: int) -> int:
    """Return the largest multiple of `alignment` that is not above `value`."""
    return value - value % alignment


def align_up(value: int, alignment: int) -> int:
    """Return the smallest multiple of `alignment` that is not below `value`."""
    return align_down(value + alignment - 1, alignment)


def gaps(ram: Sequence[GuestRange], occupied: Iterable[GuestRange]) -> list[GuestRange]:
    """List what is left of ``ram`` (sorted, disjoint) once ``occupied`` is taken away, lowest first."""
    taken = sorted(r for r in occupied if r.size)
    free = []
    for block in ram:
        cursor = block.base
        for used in taken:
            if used.end <= cursor or used.base >= block.end:
                continue
            if used.base > cursor:
                free.append(GuestRange(cursor, used.base - cursor))
            cursor = max(cursor, used.end)
        if cursor < block.end:
            free.append(GuestRange(cursor, block.end - cursor))
    return free


def lowest_fit(free: Sequence[GuestRange], size: int, alignment: int, floor: int) -> int | None:
    """Lowest aligned address >= ``floor`` with ``size`` free bytes, or None."""
    for gap in free:
        base = align_up(max(gap.base, floor), alignment)
        if base + size <= gap.end:
            return base
    return None


def highest_fit(free: Sequence[GuestRange], size: int, alignment: int, limit: int) -> int | None:
    """Highest aligned address whose ``size`` free bytes end at or below ``limit``, or None."""
    for gap in reversed(free):
        base = align_down(min(gap.end, limit) - size, alignment)
        if base >= gap.base:
            return base
    return None
