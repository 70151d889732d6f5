"""The driver's half of a split ring (VIRTIO 1.2, 2.7.13 and 2.7.14)."""

from collections.abc import Sequence

from virtio_queue._layout import AVAIL_NO_INTERRUPT, DESC_NEXT, U16, USED_NO_NOTIFY
from virtio_queue.testing._rings import RawRings

Row = tuple[int, int, int]  # address, length, flags
RawRow = tuple[int, int, int, int]  # address, length, flags, next or id


def linked(rows: Sequence[Row], indices: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Descriptors of one chain as (address, length, flags, next), placed at `indices` of their table."""
    last = len(rows) - 1
    return [
        (addr, length, flags | (DESC_NEXT if place < last else 0), indices[place + 1] if place < last else 0)
        for place, (addr, length, flags) in enumerate(rows)
    ]


class SplitSide:
    """Chains are named by the index of their first descriptor."""

    def __init__(self, raw: RawRings, event_idx: bool, start: int) -> None:
        self.raw = raw
        self.last_used = self.next_avail = self._announced = start & U16
        self._event_idx = event_idx
        self._free = list(range(raw.layout.size))
        self._taken: dict[int, tuple[int, ...]] = {}
        raw.set_avail_idx(start & U16)
        raw.set_used_idx(start & U16)

    @property
    def free(self) -> int:
        """Descriptors of the table that no chain uses."""
        return len(self._free)

    def table(self, rows: Sequence[Row]) -> list[tuple[int, int, int, int]]:
        """The rows as an indirect table has them."""
        return linked(rows, range(len(rows)))

    def place(self, rows: Sequence[Row]) -> int:
        """Write a chain of at most `free` descriptors into the ring, not yet announced; returns its head."""
        taken = tuple(self._free.pop(0) for _ in rows)
        for index, raw in zip(taken, linked(rows, taken), strict=True):
            self.raw.write_descriptor(index, *raw)
        self._taken[taken[0]] = taken
        self.raw.write_available(self.next_avail, taken[0])
        self.next_avail = (self.next_avail + 1) & U16
        return taken[0]

    def offer(self, rows: Sequence[RawRow], head: int) -> None:
        """See `Driver.offer`."""
        for index, row in enumerate(rows[: self.raw.layout.size]):
            self.raw.write_descriptor(index, *row)
        self.raw.write_available(self.next_avail, head)
        self.next_avail = (self.next_avail + 1) & U16
        self.publish()

    def publish(self) -> None:
        """Announce what was placed."""
        self.raw.set_avail_idx(self.next_avail)

    def kick_needed(self) -> bool:
        """See `Driver.kick_needed`."""
        old, self._announced = self._announced, self.next_avail
        if self._event_idx:
            # Did the index pass the entry that the device named?
            return (self.next_avail - self.raw.avail_event() - 1) & U16 < (self.next_avail - old) & U16
        return self.next_avail != old and not self.raw.used_flags() & USED_NO_NOTIFY

    def used(self) -> tuple[int, int] | None:
        """The next (head, written) that the device has published, None when there is none."""
        return None if self.raw.used_idx() == self.last_used else self.raw.used_element(self.last_used)

    def retire(self, head: int) -> None:
        """Go on behind it; its descriptors are free again."""
        self.last_used = (self.last_used + 1) & U16
        self._free.extend(self._taken.pop(head))

    def enable_interrupts(self) -> bool:
        """See `Driver.enable_interrupts`."""
        if self._event_idx:
            self.raw.set_used_event(self.last_used)
        else:
            self.raw.set_avail_flags(0)
        return self.raw.used_idx() != self.last_used

    def disable_interrupts(self) -> None:
        """See `Driver.disable_interrupts`."""
        if self._event_idx:
            self.raw.set_used_event((self.last_used - 0x8000) & U16)
        else:
            self.raw.set_avail_flags(AVAIL_NO_INTERRUPT)
