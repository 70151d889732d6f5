"""The bytes of a whole batch where C gave up: memory is translated piece by piece, or went away."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmm_memory import GuestMemory, ReadableBuffer, WritableBuffer

if TYPE_CHECKING:
    from virtio_queue._batch import ChainBatch

__all__ = ("gather_slowly", "pack_sizes", "scatter_slowly")

_MOST_WRITTEN = 0xFFFF_FFFF  # a used length has 32 bits


def pack_sizes(batch: ChainBatch, sizes: Sequence[int], room: int) -> bytes:
    """The sizes as C wants them; ValueError when a chain or `room` bytes of data have less."""
    if len(sizes) != len(batch):
        raise ValueError(f"{len(sizes)} sizes for a batch of {len(batch)} chains")
    for size, (_first, _count, head, _written, _error, _readable, writable) in zip(
        sizes, batch.records(), strict=True
    ):
        if not 0 <= size <= min(writable, _MOST_WRITTEN):
            raise ValueError(f"chain {head}: {size} bytes to write, {writable} writable")
    if sum(sizes) > room:
        raise ValueError(f"sizes sum to {sum(sizes)} bytes, there are {room}")
    return struct.pack(f"<{len(sizes)}I", *sizes)


def gather_slowly(batch: ChainBatch, memory: GuestMemory, into: WritableBuffer) -> int:
    """`ChainBatch.gather` by the memory's own methods, which resolve, or say what is wrong."""
    room, done = memoryview(into).cast("B"), 0
    needed = sum(record[5] for record in batch.records())
    if needed > len(room):
        raise ValueError(f"buffer of {len(room)} bytes, the chains have {needed}")
    for index, record in enumerate(batch.records()):
        for addr, size, writable in batch.segments(index) if record[4] == 0 else ():
            if size and not writable:
                memory.read_into(addr, room[done : done + size])
                done += size
    return done


def scatter_slowly(
    batch: ChainBatch, memory: GuestMemory, data: ReadableBuffer, sizes: Sequence[int] | None
) -> int:
    """`ChainBatch.scatter` likewise."""
    view, done = memoryview(data).cast("B"), 0
    for index, record in enumerate(batch.records()):
        size = min(record[6], len(view) - done, _MOST_WRITTEN) if sizes is None else sizes[index]
        end = done + size
        for addr, length, writable in batch.segments(index) if size else ():
            part = min(length, end - done) if writable else 0
            if part:
                memory.write(addr, view[done : done + part])
                done += part
        batch.set_written(index, size)
    return done
