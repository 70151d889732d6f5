"""Chain walking as the Rust crate virtio-queue does it: what breaks a rule ends the chain."""

import attrs

from virtio_queue._chain import Segment
from virtio_queue._errors import DriverError, Reason
from virtio_queue._layout import DESC_NEXT, DESCRIPTOR
from virtio_queue.testing._walk import ChainWalk, NoRoomError, Table

_SUM_MAX = (1 << 32) - 1  # the crate adds in 32 bits
_ENDS = frozenset(
    {Reason.INDEX, Reason.LOOP, Reason.TABLE_SIZE, Reason.TABLE_ADDRESS, Reason.INDIRECT_NESTED}
)


@attrs.define
class CompatibleWalk(ChainWalk):
    """Walks one chain of a queue whose `compatible` is set."""

    def run(self) -> list[Segment]:
        """All segments up to the end or to the first broken rule, readable ones first.

        Raises:
            DriverError: A buffer is outside memory, or writable in read-only memory.
            NoRoomError: It has more than `room` segments.
        """
        try:
            ChainWalk.run(self)
        except DriverError as fault:
            if fault.reason not in _ENDS:
                raise
        except _EndError:
            pass
        finally:
            self.segments.sort(key=lambda segment: segment.writable)
        return self.segments

    def _enter(self, table: Table, addr: int, length: int, flags: int) -> Table:
        # Whether indirect tables were negotiated is not asked, and NEXT beside INDIRECT means nothing.
        if table.indirect:
            raise self._fault(Reason.INDIRECT_NESTED, flags & ~DESC_NEXT, 0)
        if length == 0 or length % DESCRIPTOR.size:
            raise self._fault(Reason.TABLE_SIZE, length, DESCRIPTOR.size)
        if not self.memory.check_range(addr, length):
            raise self._fault(Reason.TABLE_ADDRESS, addr, length)
        self.tables += 1
        return Table(self.memory, addr, length // DESCRIPTOR.size, indirect=True)

    def _accept(self, segment: Segment) -> None:
        if len(self.segments) == self.size:
            raise _EndError
        if len(self.segments) == self.room:
            raise NoRoomError
        if sum(accepted.len for accepted in self.segments) + segment.len > _SUM_MAX:
            raise _EndError
        self._check_buffer(segment)
        self.segments.append(segment)


class _EndError(Exception):
    """The chain ends before this buffer."""
