"""Sizes and flags of virtqueues (VIRTIO 1.2, 2.7 and 2.8), for the queue, its twin and the driver side."""

import struct

MAX_QUEUE_SIZE = 32768
BATCH_BYTES = 1 << 28  # VIRTQ_BATCH_BYTES

DESC_NEXT = 1
DESC_WRITE = 2
DESC_INDIRECT = 4
AVAIL_NO_INTERRUPT = 1
USED_NO_NOTIFY = 1

DESCRIPTOR = struct.Struct("<QIHH")  # addr, len, flags, next
USED_ELEMENT = struct.Struct("<II")  # id, len

# Packed (2.8): an element of the ring is available when AVAIL equals the driver's wrap counter and USED does
# not, and used when both equal the device's.
DESC_AVAIL = 1 << 7
DESC_USED = 1 << 15
PACKED_DESCRIPTOR = struct.Struct("<QIHH")  # addr, len, id, flags
EVENT_BYTES = 4  # offset and wrap counter in 16 bits, then the flags
EVENT_ENABLE = 0
EVENT_DISABLE = 1
EVENT_DESC = 2
WRAP = 1 << 15  # the wrap counter beside a 15-bit index
PACKED_START = WRAP  # both counters begin at 1

RING_FLAGS = 0
RING_IDX = 2
RING_ELEMENTS = 4

U16 = 0xFFFF
U32 = 0xFFFF_FFFF
U64 = (1 << 64) - 1


def descriptor_table_bytes(size: int) -> int:
    """Length of the descriptor table of a queue of `size` entries."""
    return 16 * size


def avail_ring_bytes(size: int) -> int:
    """Length of the available ring; the event word is there whether or not it is negotiated."""
    return 6 + 2 * size


def used_ring_bytes(size: int) -> int:
    """Length of the used ring; the event word is there whether or not it is negotiated."""
    return 6 + 8 * size


def used_event_offset(size: int) -> int:
    """Where in the available ring the driver says which used element it wants to hear of."""
    return RING_ELEMENTS + 2 * size


def avail_event_offset(size: int) -> int:
    """Where in the used ring the device says which available entry it wants to hear of."""
    return RING_ELEMENTS + 8 * size


def is_queue_size(size: int) -> bool:
    """Whether a split queue may have this many entries (2.7: a power of two up to 32768)."""
    return 0 < size <= MAX_QUEUE_SIZE and size & (size - 1) == 0


def is_packed_size(size: int) -> bool:
    """Whether a packed queue may have this many entries (2.8: any number up to 32768)."""
    return 0 < size <= MAX_QUEUE_SIZE


def ring_parts(size: int, *, packed: bool) -> tuple[tuple[int, int, bool], ...]:
    """Bytes, alignment and whether the device writes it, for each of the three areas (2.7, 2.8.10.1)."""
    if packed:
        return (descriptor_table_bytes(size), 16, True), (EVENT_BYTES, 4, False), (EVENT_BYTES, 4, True)
    return (
        (descriptor_table_bytes(size), 16, False),
        (avail_ring_bytes(size), 2, False),
        (used_ring_bytes(size), 4, True),
    )


def packed_move(position: int, count: int, size: int) -> int:
    """A position of a packed ring, `count` descriptors (0 to `size`) further on."""
    slot = (position & ~WRAP) + count
    return slot | position & WRAP if slot < size else ((slot - size) & ~WRAP) | ~position & WRAP


def packed_back(position: int, count: int, size: int) -> int:
    """A position of a packed ring, `count` descriptors (0 to `size`) before."""
    slot = (position & ~WRAP) - count
    return slot | position & WRAP if slot >= 0 else ((slot + size) & (WRAP - 1)) | ~position & WRAP


def ring_position(count: int, size: int, *, packed: bool) -> int:
    """Where a ring stands after `count` entries (split) or descriptors (packed) since it was fresh.

    Args:
        count: From 0.
        size: Entries of the ring.
        packed: Format: a free-running 16-bit index, or a 15-bit index with the wrap counter as bit 15.
    """
    if not packed:
        return count & U16
    return count % size | (0 if count // size % 2 else WRAP)


def check_max_size(max_size: int) -> int:
    """The argument, or ValueError when it is no queue size."""
    if not is_packed_size(max_size):
        raise ValueError(f"max_size is {max_size}, must be from 1 to {MAX_QUEUE_SIZE}")
    return max_size


def check_register(name: str, value: int, limit: int) -> int:
    """The argument, or ValueError when the register is too narrow for it."""
    if not 0 <= value <= limit:
        raise ValueError(f"{name} is {value:#x}, must be from 0 to {limit:#x}")
    return value
