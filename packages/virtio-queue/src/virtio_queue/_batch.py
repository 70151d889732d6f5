"""Caller-owned arrays for many chains at once."""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from vmm_memory import GuestMemory, ReadableBuffer, WritableBuffer

from virtio_queue import _ffi
from virtio_queue._chain import DescriptorChain, Segment
from virtio_queue._copy import gather_slowly, pack_sizes, scatter_slowly
from virtio_queue._errors import DriverError, Reason
from virtio_queue._layout import MAX_QUEUE_SIZE, U16

CHAIN = struct.Struct("<IHHIiQQ")  # struct virtio_chain
_SEGMENT = struct.Struct("<QI?3x")  # struct virtio_seg
_WRITTEN = struct.Struct("<I")
_WRITTEN_OFFSET = 8
_MAX_SEGMENTS = 1 << 24


class ChainBatch:
    """Room for a batch of descriptor chains, filled by `pop_batch` and emptied by the next one.

    A device in C takes `address` (`struct virtio_batch` of `virtio_batch.h`); in Python it uses the methods.
    One thread at a time.

    Attributes:
        max_chains: Chains that fit, 1 to 32768.
        max_segments: Buffers that fit, all chains together; a queue refuses a batch with less than its size.
        address: Address of the `struct virtio_batch`, good while this object lives.
        raw: The same as a pointer of cffi; it keeps neither chains nor buffers, this object does.

    Args:
        max_chains: As the attribute.
        max_segments: As the attribute, 1 to 2^24 (16 bytes of memory each).

    Raises:
        ValueError: A size is out of range.
    """

    __slots__ = ("_arrays", "address", "max_chains", "max_segments", "raw")

    def __init__(self, max_chains: int, max_segments: int) -> None:
        if not 1 <= max_chains <= MAX_QUEUE_SIZE:
            raise ValueError(f"max_chains is {max_chains}, must be from 1 to {MAX_QUEUE_SIZE}")
        if not 1 <= max_segments <= _MAX_SEGMENTS:
            raise ValueError(f"max_segments is {max_segments}, must be from 1 to {_MAX_SEGMENTS}")
        self.max_chains = max_chains
        self.max_segments = max_segments
        self._arrays = _ffi.BatchArrays(max_chains, max_segments)
        self.address = self._arrays.address
        self.raw: Final = self._arrays.batch

    def __len__(self) -> int:
        """Chains in the batch, those with an error included."""
        return self.raw.nchains

    @property
    def free_segments(self) -> int:
        """How many more buffers fit."""
        return self.max_segments - self.raw.nsegs

    def clear(self) -> None:
        """Take all chains out."""
        self.raw.nchains = 0
        self.raw.nsegs = 0

    def truncate(self, count: int) -> None:
        """Keep the first chains only; the others are to be given back by `undo_pop`.

        Args:
            count: Chains to keep, 0 to len.

        Raises:
            ValueError: The batch has fewer chains; it is unchanged.
        """
        batch = self.raw
        if not 0 <= count <= batch.nchains:
            raise ValueError(f"cannot keep {count} chains of a batch of {batch.nchains}")
        if count < batch.nchains:
            batch.nsegs = CHAIN.unpack_from(self._arrays.chains, count * CHAIN.size)[0]
            batch.nchains = count

    def append(
        self, head: int, segments: Iterable[tuple[int, int, bool]] = (), *, written: int = 0, error: int = 0
    ) -> None:
        """Put a chain at the end, for instance to complete requests in another order than they came.

        Args:
            head: Descriptor index that names the chain.
            segments: Its buffers as (address, length, writable).
            written: Used length, at most the sum of the writable lengths.
            error: 0, or a negative `Reason`: then the buffers are those accepted before the fault.

        Raises:
            ValueError: The batch is full or `head` has more than 16 bits; the batch is unchanged.
        """
        segs = list(segments)
        batch = self.raw
        index, first = batch.nchains, batch.nsegs
        if index == self.max_chains or first + len(segs) > self.max_segments or not 0 <= head <= U16:
            raise ValueError(
                f"chain {head} with {len(segs)} segments: batch holds {index} of {self.max_chains} chains "
                f"and {first} of {self.max_segments} segments"
            )
        totals = [0, 0]
        for position, (addr, length, writable) in enumerate(segs, first):
            _SEGMENT.pack_into(self._arrays.segs, position * _SEGMENT.size, addr, length, writable)
            totals[writable] += 0 if error else length
        record = (first, len(segs), head, written, error, *totals)
        CHAIN.pack_into(self._arrays.chains, index * CHAIN.size, *record)
        batch.nchains, batch.nsegs = index + 1, first + len(segs)

    def set_written(self, index: int, written: int) -> None:
        """Record how many bytes the device wrote into a chain; it becomes the used length.

        Args:
            index: Position in the batch, 0 to len - 1.
            written: Bytes, at most the chain's writable bytes (`complete_batch` checks).

        Raises:
            IndexError: No such chain.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"chain {index} of a batch of {len(self)}")
        _WRITTEN.pack_into(self._arrays.chains, index * CHAIN.size + _WRITTEN_OFFSET, written)

    def records(self) -> list[tuple[int, int, int, int, int, int, int]]:
        """Each chain as (first segment, segments, head, written, error, readable bytes, writable bytes)."""
        used = self._arrays.chains[: len(self) * CHAIN.size]
        return [(a, b, c, d, e, f, g) for a, b, c, d, e, f, g in CHAIN.iter_unpack(used)]

    def segments(self, index: int) -> tuple[Segment, ...]:
        """The buffers of one chain.

        Args:
            index: Position in the batch, 0 to len - 1.

        Raises:
            IndexError: No such chain.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"chain {index} of a batch of {len(self)}")
        first, count = CHAIN.unpack_from(self._arrays.chains, index * CHAIN.size)[:2]
        used = self._arrays.segs[first * _SEGMENT.size : (first + count) * _SEGMENT.size]
        return tuple(map(Segment._make, _SEGMENT.iter_unpack(used)))

    def gather(self, memory: GuestMemory, into: WritableBuffer) -> int:
        """Copy what the driver sent: the readable bytes of all chains, one behind the other.

        Broken chains have none; `records` tells how many each chain has.

        Args:
            memory: Where the buffers lie.
            into: Room for all of them. What the chains do not fill is left alone.

        Returns:
            How many bytes.

        Raises:
            ValueError: `into` is too small; it may hold the bytes of the first chains.
            GuestMemoryError: The memory went away since the pop; likewise.
        """
        done = _ffi.gather(memory, self.raw, into)
        return gather_slowly(self, memory, into) if done < 0 else done

    def scatter(self, memory: GuestMemory, data: ReadableBuffer, sizes: Sequence[int] | None = None) -> int:
        """Deal bytes out to the writable buffers of the chains, in order, marking the pages dirty.

        What a chain got is recorded as `set_written` does, for `complete_batch`. Broken chains get nothing.

        Args:
            memory: Where the buffers lie.
            data: The bytes.
            sizes: How many for each chain, 0 to its writable bytes, together at most all of `data`. Without
                them each chain takes as many as fit into it and are left.

        Returns:
            How many bytes were dealt out.

        Raises:
            ValueError: A size is not possible; nothing is written.
            GuestMemoryError: The memory went away since the pop; the chains before have got theirs.
        """
        packed = None if sizes is None else pack_sizes(self, sizes, memoryview(data).nbytes)
        done = _ffi.scatter(memory, self.raw, data, packed)
        return scatter_slowly(self, memory, data, sizes) if done < 0 else done

    def chain(self, index: int, memory: GuestMemory) -> DescriptorChain:
        """One chain as an object that outlives the batch.

        Args:
            index: Position in the batch, 0 to len - 1.
            memory: Where its buffers lie.

        Raises:
            DriverError: The chain is broken.
            IndexError: No such chain.
        """
        segments = self.segments(index)
        head, _written, error = CHAIN.unpack_from(self._arrays.chains, index * CHAIN.size)[2:5]
        if error:
            raise DriverError(Reason(-error), head=head, position=len(segments))
        return DescriptorChain(head, segments, memory)

    def errors(self) -> list[DriverError]:
        """What the driver did wrong, one for each broken chain; they are complete with 0 bytes written."""
        return [
            DriverError(Reason(-error), head=head, position=count)
            for _first, count, head, _written, error, *_totals in self.records()
            if error
        ]
