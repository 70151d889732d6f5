"""What is about to be written into guest memory, checked as a whole before the first byte moves."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from linux_loader._errors import PlacementError
from linux_loader._ranges import GuestRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmm_memory import GuestMemory

_ZEROS = bytes(1 << 20)


class Write(NamedTuple):
    """One range of guest memory and its new contents: ``data``, or zeros when it is None."""

    what: str
    range: GuestRange
    data: bytes | memoryview | None

    @classmethod
    def of(cls, what: str, base: int, data: bytes | memoryview) -> Write:
        """A write of ``data`` at ``base``."""
        return cls(what, GuestRange(base, len(data)), data)


def ordered(writes: Sequence[Write]) -> tuple[Write, ...]:
    """Drop empty writes, sort the rest by address, and refuse two that overlap."""
    result = sorted((w for w in writes if w.range.size), key=lambda w: w.range)
    for lower, upper in pairwise(result):
        if lower.range.overlaps(upper.range):
            reason = f"{upper.range} overlaps the {lower.what} at {lower.range}"
            raise PlacementError(upper.what, size=upper.range.size, reason=reason)
    return tuple(result)


def apply(memory: GuestMemory, writes: Sequence[Write]) -> None:
    """Perform the writes; each buffer is copied once, straight into guest memory."""
    for write in writes:
        if write.data is not None:
            memory.write(write.range.base, write.data)
            continue
        for at in range(write.range.base, write.range.end, len(_ZEROS)):
            memory.write(at, memoryview(_ZEROS)[: write.range.end - at])
