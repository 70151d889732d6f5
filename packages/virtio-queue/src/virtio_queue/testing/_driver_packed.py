"""The driver's half of a packed ring (VIRTIO 1.2, 2.8.20 and 2.8.21)."""

from collections.abc import Sequence

from virtio_queue._layout import (
    DESC_AVAIL,
    DESC_NEXT,
    DESC_USED,
    DESC_WRITE,
    EVENT_DESC,
    EVENT_DISABLE,
    EVENT_ENABLE,
    WRAP,
    packed_move,
    ring_position,
)
from virtio_queue.testing._driver_split import RawRow, Row
from virtio_queue.testing._rings import PackedRings


class PackedSide:
    """Chains are named by a buffer id, which need not be where they lie."""

    def __init__(self, raw: PackedRings, event_idx: bool, start: int) -> None:
        size = raw.layout.size
        self.raw = raw
        self.free = size
        self.last_used = self.next_avail = ring_position(start, size, packed=True)
        self._event_idx = event_idx
        self._placed = 0  # descriptors since the last decision about a kick
        self._ids = list(range(size))
        self._taken: dict[int, int] = {}
        self._held_back: tuple[int, int] | None = None  # slot and flags of the first unannounced element
        # As if the device had used all of it: this lap up to here, the lap before from here on.
        for slot in range(size):
            wrap = bool(self.next_avail & WRAP) == (slot < self.next_avail & ~WRAP)
            raw.set_flags(slot, DESC_AVAIL | DESC_USED if wrap else 0)

    def table(self, rows: Sequence[Row]) -> list[tuple[int, int, int, int]]:
        """The rows as an indirect table has them: nothing but WRITE counts besides the buffer."""
        return [(addr, length, 0, flags) for addr, length, flags in rows]

    def place(self, rows: Sequence[Row]) -> int:
        """Write a chain of at most `free` descriptors into the ring, not yet announced; returns its id."""
        head = self._ids.pop(0)
        for offset, (addr, length, kind) in enumerate(rows):
            slot = self.next_avail & ~WRAP
            available = DESC_AVAIL if self.next_avail & WRAP else DESC_USED
            flags = kind | available | (DESC_NEXT if offset < len(rows) - 1 else 0)
            self.raw.write_body(slot, addr, length, head)
            if self._held_back is None:
                self._held_back = slot, flags
            else:
                self.raw.set_flags(slot, flags)
            self.next_avail = packed_move(self.next_avail, 1, self.raw.layout.size)
        self._taken[head] = len(rows)
        self._placed += len(rows)
        self.free -= len(rows)
        return head

    def offer(self, rows: Sequence[RawRow], _head: int) -> None:
        """See `Driver.offer`."""
        flags: list[tuple[int, int]] = []
        for addr, length, kind, head in rows[: self.raw.layout.size]:
            slot = self.next_avail & ~WRAP
            self.raw.write_body(slot, addr, length, head)
            available = DESC_AVAIL if self.next_avail & WRAP else DESC_USED
            flags.append((slot, kind & ~(DESC_AVAIL | DESC_USED) | available))
            self.next_avail = packed_move(self.next_avail, 1, self.raw.layout.size)
        for slot, word in reversed(flags):
            self.raw.set_flags(slot, word)
        self.publish()

    def publish(self) -> None:
        """Announce what was placed: the device looks no further than the element whose flags are missing."""
        if self._held_back is not None:
            self.raw.set_flags(*self._held_back)
            self._held_back = None

    def kick_needed(self) -> bool:
        """See `Driver.kick_needed`."""
        placed, self._placed = self._placed, 0
        size = self.raw.layout.size
        event, kind = self.raw.device_event()
        if kind == EVENT_DISABLE:
            return False
        if kind != EVENT_DESC:
            return placed > 0
        # Backwards over what was placed since: is the one that the device named among it?
        passed = [packed_back_by(self.next_avail, back, size) for back in range(1, min(placed, 2 * size) + 1)]
        return event in passed

    def used(self) -> tuple[int, int] | None:
        """The next (id, written) that the device has published, None when there is none."""
        _addr, length, head, flags = self.raw.descriptor(self.last_used & ~WRAP)
        if flags & (DESC_AVAIL | DESC_USED) != (DESC_AVAIL | DESC_USED if self.last_used & WRAP else 0):
            return None
        return head, length if flags & DESC_WRITE else 0

    def retire(self, head: int) -> None:
        """Go on behind it; its descriptors are free again."""
        count = self._taken.pop(head)
        self.last_used = packed_move(self.last_used, count, self.raw.layout.size)
        self._ids.append(head)
        self.free += count

    def enable_interrupts(self) -> bool:
        """See `Driver.enable_interrupts`."""
        self.raw.set_driver_event(self.last_used, EVENT_DESC if self._event_idx else EVENT_ENABLE)
        return self.used() is not None

    def disable_interrupts(self) -> None:
        """See `Driver.disable_interrupts`."""
        self.raw.set_driver_event(0, EVENT_DISABLE)


def packed_back_by(position: int, count: int, size: int) -> int:
    """A position, any number of descriptors before."""
    lap = (position & ~WRAP) + (size if position & WRAP else 0) - count
    return ring_position((lap - size) % (2 * size), size, packed=True)
