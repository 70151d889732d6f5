"""Chain walking in readable Python: the specification of `walk_chain` in the C core (VIRTIO 1.2, 2.7.5)."""

import attrs
from vmm_memory import GuestMemory

from virtio_queue._chain import Segment
from virtio_queue._errors import DriverError, Reason
from virtio_queue._layout import DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DESCRIPTOR

_CHAIN_MAX_BYTES = 1 << 32


class NoRoomError(Exception):
    """The caller's batch has no room left for the chain."""


@attrs.define
class Table:
    """A descriptor table being walked: the queue's own, or the one indirect table it may lead into."""

    memory: GuestMemory
    base: int
    entries: int
    indirect: bool = False
    visited: int = 0

    def fetch(self, index: int) -> tuple[int, int, int, int]:
        """A copy of one descriptor: address, length, flags, next."""
        raw = self.memory.read(self.base + DESCRIPTOR.size * index, DESCRIPTOR.size)
        addr, length, flags, following = DESCRIPTOR.unpack(raw)
        return addr, length, flags, following


@attrs.define
class ChainWalk:
    """Walks one chain; `segments` holds what was accepted, also after a fault.

    Attributes:
        memory: Where the tables and the buffers lie.
        head: First descriptor, below `size`.
        desc_table: Guest address of the queue's descriptor table.
        size: Entries of the queue.
        indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
        room: Segments the caller has room for.
        tables: Indirect tables entered.
    """

    memory: GuestMemory
    head: int
    desc_table: int
    size: int
    indirect: bool
    room: int
    segments: list[Segment] = attrs.Factory(list)
    tables: int = 0

    def run(self) -> list[Segment]:
        """All segments of the chain.

        Raises:
            DriverError: The chain breaks a rule.
            NoRoomError: It has more than `room` segments.
        """
        table, index = Table(self.memory, self.desc_table, self.size), self.head
        while True:
            self._check_step(table, index)
            addr, length, flags, following = table.fetch(index)
            if flags & DESC_INDIRECT:
                table, index = self._enter(table, addr, length, flags), 0
                continue
            self._accept(Segment(addr, length, bool(flags & DESC_WRITE)))
            if not flags & DESC_NEXT:
                return self.segments
            index = following

    def _fault(self, reason: Reason, value: int, limit: int) -> DriverError:
        return DriverError(reason, head=self.head, position=len(self.segments), value=value, limit=limit)

    def _check_step(self, table: Table, index: int) -> None:
        if index >= table.entries:
            raise self._fault(Reason.INDEX, index, table.entries)
        table.visited += 1
        # More steps than entries: some entry was visited twice.
        if table.visited > table.entries:
            raise self._fault(Reason.LOOP, table.visited, table.entries)

    def _enter(self, table: Table, addr: int, length: int, flags: int) -> Table:
        if not self.indirect:
            raise self._fault(Reason.INDIRECT_NOT_NEGOTIATED, flags, 0)
        if table.indirect:
            raise self._fault(Reason.INDIRECT_NESTED, flags, 0)
        if flags & DESC_NEXT:
            raise self._fault(Reason.INDIRECT_WITH_NEXT, flags, 0)
        if length == 0 or length % DESCRIPTOR.size:
            raise self._fault(Reason.TABLE_SIZE, length, DESCRIPTOR.size)
        if not self.memory.check_range(addr, length):
            raise self._fault(Reason.TABLE_ADDRESS, addr, length)
        self.tables += 1
        return Table(self.memory, addr, length // DESCRIPTOR.size, indirect=True)

    def _accept(self, segment: Segment) -> None:
        if not segment.writable and self.segments and self.segments[-1].writable:
            raise self._fault(Reason.ORDER, segment.addr, segment.len)
        if len(self.segments) == self.size:
            raise self._fault(Reason.TOO_LONG, len(self.segments) + 1, self.size)
        if len(self.segments) == self.room:
            raise NoRoomError
        total = sum(accepted.len for accepted in self.segments) + segment.len
        if total > _CHAIN_MAX_BYTES:
            raise self._fault(Reason.TOTAL, total, _CHAIN_MAX_BYTES)
        self._check_buffer(segment)
        self.segments.append(segment)

    def _check_buffer(self, segment: Segment) -> None:
        if segment.len == 0:
            return
        if not self.memory.check_range(segment.addr, segment.len):
            raise self._fault(Reason.ADDRESS, segment.addr, segment.len)
        if segment.writable and not self.memory.check_range(segment.addr, segment.len, write=True):
            raise self._fault(Reason.READ_ONLY, segment.addr, segment.len)
