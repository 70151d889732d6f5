"""A complete, well-behaved driver of a split queue (VIRTIO 1.2, 2.7.13 and 2.7.14), for tests of devices."""

from collections.abc import Iterator, Sequence

import attrs
from vmm_memory import GuestMemory

from virtio_queue._chain import Segment
from virtio_queue._layout import (
    AVAIL_NO_INTERRUPT,
    DESC_INDIRECT,
    DESC_NEXT,
    DESC_WRITE,
    DESCRIPTOR,
    U16,
    USED_NO_NOTIFY,
)
from virtio_queue.testing._arena import Arena
from virtio_queue.testing._rings import RawRings, RingLayout


class DeviceFaultError(Exception):
    """The device broke the spec: it used a chain it does not have, or more bytes than there was room."""


@attrs.frozen
class Completion:
    """A request that the device has used.

    Attributes:
        head: What `add` or `request` returned.
        written: Bytes the device says it wrote.
        data: Content of each writable buffer, cut to what was written (a buffer not reached is empty).
    """

    head: int
    written: int
    data: tuple[bytes, ...]


@attrs.frozen
class _Pending:
    descriptors: tuple[int, ...]
    segments: tuple[Segment, ...]
    owned: tuple[int, ...]  # arena blocks to free with it

    @property
    def room(self) -> int:
        """Bytes that the device may write."""
        return sum(segment.len for segment in self.segments if segment.writable)


class Driver:
    """The driver side of a split queue on any guest memory: publishes chains, kicks, takes used ones back.

    Args:
        memory: The guest's memory.
        layout: Where the rings lie; they are zeroed.
        event_idx: VIRTIO_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
        arena: (address, bytes) from which `request` and indirect tables take memory.
        start: Free-running index to begin with, as if so many chains had been used already.

    Attributes:
        raw: Unchecked access to the rings, for a driver that misbehaves on purpose.
        last_used: Free-running index of the next used element to take.
    """

    def __init__(
        self,
        memory: GuestMemory,
        layout: RingLayout,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        arena: tuple[int, int] = (0, 0),
        start: int = 0,
    ) -> None:
        self.memory = memory
        self.layout = layout
        self.event_idx = event_idx
        self.indirect = indirect
        self.raw = RawRings(memory, layout)
        self.last_used = start
        self._arena = Arena(*arena)
        self._free = list(range(layout.size))
        self._pending: dict[int, _Pending] = {}
        self._next = self._announced = start
        memory.write(layout.desc_table, bytes(layout.end - layout.desc_table))
        self.raw.set_avail_idx(start)
        self.raw.set_used_idx(start)

    @property
    def free_descriptors(self) -> int:
        """Descriptors of the table that no chain uses."""
        return len(self._free)

    @property
    def outstanding(self) -> tuple[int, ...]:
        """Heads of the chains that the device has not used yet."""
        return tuple(self._pending)

    def add(self, segments: Sequence[Segment], *, indirect: bool = False, announce: bool = True) -> int:
        """Make a chain of buffers available.

        Args:
            segments: 1 to `layout.size` buffers, readable ones first.
            indirect: Put them into an indirect table, which costs one descriptor of the queue.
            announce: Also store the available index; otherwise `publish` does, for several chains at once.

        Returns:
            The head, which names the chain until it is completed.

        Raises:
            ValueError: No buffers, too many, or indirect without the feature; nothing is changed.
            MemoryError: Descriptors or arena are exhausted; nothing is changed.
        """
        return self._add(tuple(segments), (), indirect, announce)

    def request(
        self, readable: Sequence[bytes] = (), writable: Sequence[int] = (), *, indirect: bool = False
    ) -> int:
        """Make a chain available whose buffers come from the arena.

        Args:
            readable: Content of each device-readable buffer.
            writable: Length of each device-writable buffer.
            indirect: As for `add`.

        Returns:
            The head.

        Raises:
            ValueError: As for `add`.
            MemoryError: As for `add`.
        """
        lengths = [len(data) for data in readable] + list(writable)
        blocks = self._arena.take_all(lengths)
        for addr, data in zip(blocks, readable, strict=False):
            self.memory.write(addr, data)
        segments = tuple(
            Segment(addr, length, index >= len(readable))
            for index, (addr, length) in enumerate(zip(blocks, lengths, strict=True))
        )
        try:
            return self._add(segments, tuple(blocks), indirect, announce=True)
        except (ValueError, MemoryError):
            self._arena.free(*blocks)
            raise

    def _add(
        self, segments: tuple[Segment, ...], owned: tuple[int, ...], indirect: bool, announce: bool
    ) -> int:
        if not 1 <= len(segments) <= self.layout.size:
            raise ValueError(f"{len(segments)} buffers, must be from 1 to the queue size, {self.layout.size}")
        if indirect and not self.indirect:
            raise ValueError(f"indirect chain of {len(segments)} buffers, but the feature is not negotiated")
        needed = 1 if indirect else len(segments)
        if needed > len(self._free):
            raise MemoryError(
                f"{needed} descriptors needed, {len(self._free)} of {self.layout.size} are free"
            )
        if indirect:
            table = self._arena.take_all([DESCRIPTOR.size * len(segments)])[0]
            owned += (table,)
        taken = tuple(self._free.pop(0) for _ in range(needed))
        if indirect:
            self._write_table(table, segments)
            self.raw.write_descriptor(taken[0], table, DESCRIPTOR.size * len(segments), DESC_INDIRECT)
        else:
            for index, raw in zip(taken, _linked(segments, taken), strict=True):
                self.raw.write_descriptor(index, *raw)
        self._pending[taken[0]] = _Pending(taken, segments, owned)
        self.raw.write_available(self._next, taken[0])
        self._next = (self._next + 1) & U16
        if announce:
            self.publish()
        return taken[0]

    def _write_table(self, table: int, segments: tuple[Segment, ...]) -> None:
        rows = _linked(segments, tuple(range(len(segments))))
        self.memory.write(table, b"".join(DESCRIPTOR.pack(*row) for row in rows))

    def publish(self) -> None:
        """Store the available index: everything added so far becomes visible to the device."""
        self.raw.set_avail_idx(self._next)

    def kick_needed(self) -> bool:
        """Whether the device wants to be told of what was published since the last call (2.7.13.4)."""
        old, self._announced = self._announced, self._next
        if self.event_idx:
            # Did the index pass the entry that the device named?
            return (self._next - self.raw.avail_event() - 1) & U16 < (self._next - old) & U16
        return self._next != old and not self.raw.used_flags() & USED_NO_NOTIFY

    def completed(self) -> Iterator[Completion]:
        """Take back every chain that the device has used so far.

        Raises:
            DeviceFaultError: The device returned a chain it does not have, or wrote more than there was room.
        """
        while self.raw.used_idx() != self.last_used:
            head, written = self.raw.used_element(self.last_used)
            pending = self._pending.pop(head, None)
            if pending is None:
                raise DeviceFaultError(f"used element {self.last_used}: chain {head} is not with the device")
            if written > pending.room:
                raise DeviceFaultError(f"chain {head}: {written} bytes used, {pending.room} writable")
            self.last_used = (self.last_used + 1) & U16
            data = tuple(self._collect(pending.segments, written))
            self._free.extend(pending.descriptors)
            self._arena.free(*pending.owned)
            yield Completion(head, written, data)

    def _collect(self, segments: tuple[Segment, ...], written: int) -> Iterator[bytes]:
        for addr, length, writable in segments:
            if writable:
                part = min(length, written)
                yield self.memory.read(addr, part) if part else b""
                written -= part

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt at the next used chain; True when some are there already (2.7.14)."""
        if self.event_idx:
            self.raw.set_used_event(self.last_used)
        else:
            self.raw.set_avail_flags(0)
        return self.raw.used_idx() != self.last_used

    def disable_interrupts(self) -> None:
        """Ask for no interrupts; a hint. With event index the event is left half the index space behind."""
        if self.event_idx:
            self.raw.set_used_event((self.last_used - 0x8000) & U16)
        else:
            self.raw.set_avail_flags(AVAIL_NO_INTERRUPT)


def _linked(segments: Sequence[Segment], indices: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    last = len(segments) - 1
    for position, segment in enumerate(segments):
        flags = (DESC_WRITE if segment.writable else 0) | (DESC_NEXT if position < last else 0)
        following = indices[position + 1] if position < last else 0
        yield segment.addr, segment.len, flags, following
