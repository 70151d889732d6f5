"""A complete, well-behaved driver of a queue of either format, for tests of devices."""

import itertools
from collections.abc import Iterator, Sequence

import attrs
from vmm_memory import GuestMemory

from virtio_queue._chain import Segment
from virtio_queue._layout import DESC_INDIRECT, DESC_WRITE, DESCRIPTOR
from virtio_queue.testing._arena import Arena
from virtio_queue.testing._driver_packed import PackedSide
from virtio_queue.testing._driver_split import SplitSide
from virtio_queue.testing._rings import PackedRings, RawRings, RingLayout


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
    segments: tuple[Segment, ...]
    owned: tuple[int, ...]  # arena blocks to free with it

    @property
    def room(self) -> int:
        """Bytes that the device may write."""
        return sum(segment.len for segment in self.segments if segment.writable)


class Driver:
    """The driver side of a queue on any guest memory: publishes chains, kicks, takes used ones back.

    Args:
        memory: The guest's memory.
        layout: Format and place of the ring; it is made as if nothing were in it.
        event_idx: VIRTIO_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
        in_order: VIRTIO_F_IN_ORDER was negotiated: a used element speaks for all chains before its own.
        arena: (address, bytes) from which `request` and indirect tables take memory.
        start: Begin as if so many entries (packed: descriptors) had been used already; `ring_position` of the
            layout says what the device's indices are then.

    Attributes:
        raw: Unchecked access to the ring, for a driver that misbehaves on purpose.
    """

    raw: RawRings | PackedRings

    def __init__(
        self,
        memory: GuestMemory,
        layout: RingLayout,
        *,
        event_idx: bool = False,
        indirect: bool = False,
        in_order: bool = False,
        arena: tuple[int, int] = (0, 0),
        start: int = 0,
    ) -> None:
        self.memory = memory
        self.layout = layout
        self.event_idx = event_idx
        self.indirect = indirect
        self.in_order = in_order
        self._arena = Arena(*arena)
        self._pending: dict[int, _Pending] = {}
        memory.write(layout.desc_table, bytes(layout.end - layout.desc_table))
        if layout.packed:
            self.raw = PackedRings(memory, layout)
            self._side: SplitSide | PackedSide = PackedSide(self.raw, event_idx, start)
        else:
            self.raw = RawRings(memory, layout)
            self._side = SplitSide(self.raw, event_idx, start)

    @property
    def next_avail(self) -> int:
        """Where the next chain goes, as the device's `next_avail` counts."""
        return self._side.next_avail

    @property
    def last_used(self) -> int:
        """Where the next used element is expected, as the device's `next_used` counts."""
        return self._side.last_used

    @property
    def free_descriptors(self) -> int:
        """Descriptors of the ring that no chain uses."""
        return self._side.free

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
        if needed > self._side.free:
            raise MemoryError(
                f"{needed} descriptors needed, {self._side.free} of {self.layout.size} are free"
            )
        rows = [(segment.addr, segment.len, DESC_WRITE if segment.writable else 0) for segment in segments]
        if indirect:
            table = self._arena.take_all([DESCRIPTOR.size * len(rows)])[0]
            owned += (table,)
            entries = self._side.table(rows)
            self.memory.write(table, b"".join(DESCRIPTOR.pack(*entry) for entry in entries))
            rows = [(table, DESCRIPTOR.size * len(entries), DESC_INDIRECT)]
        head = self._side.place(rows)
        self._pending[head] = _Pending(segments, owned)
        if announce:
            self.publish()
        return head

    def offer(self, rows: Sequence[tuple[int, int, int, int]], head: int = 0) -> None:
        """Make any descriptors available, as a bad driver does: nothing is checked or remembered.

        Args:
            rows: (address, length, flags, next) for the descriptor table from entry 0 on; in a packed ring
                (address, length, flags, id) for the next elements. Rows beyond the size are left out.
            head: What the available ring of a split queue gets, 0 to 65535.
        """
        self._side.offer(rows, head)

    def publish(self) -> None:
        """Make everything added so far visible to the device, with one store."""
        self._side.publish()

    def kick_needed(self) -> bool:
        """Whether the device wants to be told of what was added since the last call (2.7.13.4, 2.8.21.2)."""
        return self._side.kick_needed()

    def completed(self) -> Iterator[Completion]:
        """Take back every chain that the device has used so far.

        Raises:
            DeviceFaultError: The device returned a chain it does not have, or wrote more than there was room.
        """
        while (used := self._side.used()) is not None:
            head, written = used
            if self.in_order and head in self._pending:
                yield from self._skipped(head)
            pending = self._pending.pop(head, None)
            if pending is None:
                raise DeviceFaultError(f"used element {self.last_used}: chain {head} is not with the device")
            if written > pending.room:
                raise DeviceFaultError(f"chain {head}: {written} bytes used, {pending.room} writable")
            yield self._retire(head, written, pending)

    def _skipped(self, head: int) -> Iterator[Completion]:
        """Those that were made available before it: used completely (2.7.9, 2.8.9)."""
        for before in list(itertools.takewhile(lambda other: other != head, self._pending)):
            pending = self._pending.pop(before)
            yield self._retire(before, pending.room, pending)

    def _retire(self, head: int, written: int, pending: _Pending) -> Completion:
        self._side.retire(head)
        data = tuple(self._collect(pending.segments, written))
        self._arena.free(*pending.owned)
        return Completion(head, written, data)

    def _collect(self, segments: tuple[Segment, ...], written: int) -> Iterator[bytes]:
        for addr, length, writable in segments:
            if writable:
                part = min(length, written)
                yield self.memory.read(addr, part) if part else b""
                written -= part

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt at the next used chain; True when some are there already (2.7.14, 2.8.22)."""
        return self._side.enable_interrupts()

    def disable_interrupts(self) -> None:
        """Ask for no interrupts; a hint.

        In a split ring with event index the event is left half the index space behind.
        """
        self._side.disable_interrupts()
