"""The virtio-net data path in Python: the readable specification of csrc/net_rx.c and net_tx.c.

Frames go through a buffer of this process; what is captured is what was moved, whatever the guest does to its
memory meanwhile.
"""

import errno
import os
import struct
from collections.abc import Iterator

from virtio_queue import ChainBatch, DriverError, Reason
from vmm_memory import GuestAccessError, GuestMemory

from virtio_devices._net_port import BODY_MAX, BODY_MIN, HEADER, NetCounters, PortFlag, Stop, Turn
from virtio_devices._pcap import PcapWriter

_NEEDS_CSUM, _DATA_VALID = 1, 2  # struct virtio_net_hdr_v1, flags
_GSO_NONE, _GSO_TCPV4, _GSO_TCPV6, _GSO_ECN = 0, 1, 4, 0x80  # gso_type
_NUM_BUFFERS = struct.Struct("<H")
_MAX_FRAMES = 64  # in a turn: frames that are dropped use no chain up
_SMALL = 2048  # one frame of an ordinary link


def _header_ok(header: bytes | bytearray, flags: PortFlag) -> bool:
    """Does a header ask for no more than was negotiated?"""
    kind = header[1]
    if header[0] & _NEEDS_CSUM and not flags & PortFlag.CSUM:
        return False
    if kind == _GSO_NONE:
        return True
    if kind & _GSO_ECN and not flags & PortFlag.ECN:
        return False
    needed = {_GSO_TCPV4: PortFlag.TSO4, _GSO_TCPV6: PortFlag.TSO6}.get(kind & ~_GSO_ECN)
    return needed is not None and bool(flags & needed)


def _sound(batch: ChainBatch, *, writable: bool) -> tuple[list[int], DriverError | None]:
    """Sizes of the chains before the first broken one, and what is wrong with that one."""
    sizes: list[int] = []
    for _first, count, head, _written, error, readable, room in batch.records():
        if error:
            return sizes, DriverError(Reason(-error), head=head, position=count)
        size = room if writable else readable
        if size < HEADER:
            return sizes, DriverError(Reason.TOO_SHORT, head=head, position=count, value=HEADER, limit=size)
        sizes.append(size)
    return sizes, None


class _Direction:
    """What the two directions have in common."""

    def __init__(
        self, fd: int, counters: NetCounters, *, capture: PcapWriter | None, flags: PortFlag
    ) -> None:
        self.flags = flags
        self._fd = fd
        self._counters = counters
        self._capture = capture
        self._error = 0

    @property
    def pending(self) -> bool:
        """Whether a frame waits in here: never, unless a direction says otherwise."""
        return False

    def drop_pending(self) -> None:
        """Nothing waits here."""

    def take_error(self) -> int:
        """Return the errno of the last failure, once; 0 for none."""
        code, self._error = self._error, 0
        return code

    def _moved(self, header: bytes | bytearray, body: memoryview) -> None:
        counters = self._counters
        counters.packets += 1
        counters.bytes += len(body)
        counters.csum += bool(header[0] & _NEEDS_CSUM)
        counters.gso += header[1] != _GSO_NONE
        if self._capture is not None:
            self._capture.add(body)


class PythonReceiver(_Direction):
    """Frames for the guest."""

    def __init__(
        self, fd: int, counters: NetCounters, *, capture: PcapWriter | None, flags: PortFlag
    ) -> None:
        super().__init__(fd, counters, capture=capture, flags=flags)
        self._buffer = bytearray(HEADER + BODY_MAX + 1)  # the last byte shows that a frame was larger
        self._pending = 0  # bytes of the frame in the buffer that waits
        self._large = 0  # so many frames are yet expected to be large

    @property
    def pending(self) -> bool:
        """Whether a frame that was read waits for buffers."""
        return self._pending != 0

    def drop_pending(self) -> None:
        """Forget that frame, and count it."""
        self._pending = 0
        self._counters.oversized += 1

    def run(self, memory: GuestMemory, batch: ChainBatch) -> Turn:
        """Read frames into the batch's chains until one of the two runs out."""
        sizes, broken = _sound(batch, writable=True)
        used, stop, error = 0, Stop.MORE, 0
        for _ in range(_MAX_FRAMES):
            if used == len(sizes):
                stop = Stop.STARVED
                break
            if self._should_ask_for_more(used, sum(sizes[used:])):
                break
            try:
                size = self._pending or os.readv(self._fd, [self._buffer])
            except BlockingIOError:
                stop = Stop.BLOCKED
                break
            except OSError as failure:
                stop, error = Stop.CLOSED, failure.errno or errno.EIO
                break
            if size == 0:
                stop = Stop.CLOSED
                break
            try:
                used += self._frame(memory, batch, used, sizes, size)
            except GuestAccessError:
                head = batch.records()[used][2]
                return Turn(used, Stop.STARVED, DriverError(Reason.ADDRESS, head=head), 0)
            if self._pending:
                stop = Stop.STARVED
                break
        return Turn(used, stop, broken, error)

    def _should_ask_for_more(self, used: int, room: int) -> bool:
        # The core would have to copy a large frame twice: it asks for the chains beyond this batch first.
        large = self.flags & PortFlag.MRG and self._large and used
        return bool(large and room < HEADER + BODY_MAX)

    def _frame(self, memory: GuestMemory, batch: ChainBatch, first: int, sizes: list[int], size: int) -> int:
        """Deliver, drop or hold the frame of `size` bytes in the buffer; returns the chains it took."""
        header, body = self._buffer, size - HEADER
        self._pending = 0
        if size < HEADER + BODY_MIN or body > BODY_MAX or not _header_ok(header, self.flags):
            self._counters.invalid += 1
            return 0
        # VIRTIO 1.2 section 5.1.6.4.1: without GUEST_CSUM, flags are 0; no bit that the driver cannot know.
        header[0] &= _NEEDS_CSUM | _DATA_VALID if self.flags & PortFlag.CSUM else 0
        self._large = _MAX_FRAMES if body > _SMALL else max(self._large - 1, 0)
        usable = sizes[first:] if self.flags & PortFlag.MRG else sizes[first : first + 1]
        taken = list(_split(size, usable))
        if sum(taken) < size:
            if self.flags & PortFlag.MRG:
                self._pending = size
            else:
                self._counters.oversized += 1
            return 0
        _NUM_BUFFERS.pack_into(header, HEADER - 2, len(taken))
        data, position = memoryview(self._buffer), 0
        for index, length in enumerate(taken, first):
            _scatter(memory, batch, index, data[position : position + length])
            batch.set_written(index, length)
            position += length
        self._counters.merged += len(taken) > 1
        self._moved(header, data[HEADER:size])
        return len(taken)


def _split(size: int, room: list[int]) -> Iterator[int]:
    """How much of `size` bytes goes into each of the buffers."""
    for length in room:
        if size == 0:
            return
        yield min(length, size)
        size -= min(length, size)


def _gather(memory: GuestMemory, parts: list[tuple[int, int]], skip: int, size: int) -> bytes:
    """`size` bytes of the buffers, beginning `skip` bytes in."""
    found = []
    for addr, length in parts:
        taken = min(max(length - skip, 0), size)
        if taken:
            found.append(memory.read(addr + skip, taken))
        skip, size = max(skip - length, 0), size - taken
    return b"".join(found)


def _scatter(memory: GuestMemory, batch: ChainBatch, index: int, data: memoryview) -> None:
    for addr, length, writable in batch.segments(index):
        if writable and length and len(data):
            memory.write(addr, data[:length])
            data = data[length:]


class PythonTransmitter(_Direction):
    """Frames of the guest."""

    def run(self, memory: GuestMemory, batch: ChainBatch) -> Turn:
        """Write the frames of the batch's chains until one has to wait."""
        sizes, broken = _sound(batch, writable=False)
        for index, size in enumerate(sizes):
            try:
                sent = self._frame(memory, batch, index, size)
            except GuestAccessError:
                head = batch.records()[index][2]
                return Turn(index, Stop.MORE, DriverError(Reason.ADDRESS, head=head), 0)
            if not sent:
                return Turn(index, Stop.BLOCKED, broken, 0)
            batch.set_written(index, 0)
        return Turn(len(sizes), Stop.MORE, broken, 0)

    def _frame(self, memory: GuestMemory, batch: ChainBatch, index: int, size: int) -> bool:
        """Send or drop one frame; False: the other end takes nothing now."""
        if not HEADER + BODY_MIN <= size <= HEADER + BODY_MAX:
            self._counters.invalid += 1
            return True
        parts = [
            (addr, length) for addr, length, writable in batch.segments(index) if length and not writable
        ]
        # Copied once; what follows works on the copy.
        header = bytearray(_gather(memory, parts, 0, HEADER))
        header[0] &= _NEEDS_CSUM  # the only flag that a driver may set (5.1.6.2.1)
        header[HEADER - 2 : HEADER] = bytes(2)  # num_buffers means nothing here
        if not _header_ok(header, self.flags):
            self._counters.invalid += 1
            return True
        frame = header + _gather(memory, parts, HEADER, size - HEADER)
        try:
            written = os.write(self._fd, frame)
        except BlockingIOError:
            return False
        except OSError as failure:
            self._refuse(failure.errno or errno.EIO)
            return True
        if written != size:
            self._refuse(errno.EMSGSIZE)
            return True
        self._moved(frame, memoryview(frame)[HEADER:])
        return True

    def _refuse(self, code: int) -> None:
        self._counters.refused += 1
        self._error = self._error or code
