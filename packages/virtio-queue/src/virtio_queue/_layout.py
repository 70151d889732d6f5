"""Sizes and flags of a split virtqueue (VIRTIO 1.2, 2.7), for the queue, its twin and the driver side."""

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

RING_FLAGS = 0
RING_IDX = 2
RING_ELEMENTS = 4

U16 = 0xFFFF
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


def check_max_size(max_size: int) -> int:
    """The argument, or ValueError when it is no queue size."""
    if not is_queue_size(max_size):
        raise ValueError(f"max_size is {max_size}, must be a power of two from 1 to {MAX_QUEUE_SIZE}")
    return max_size


def check_register(name: str, value: int, limit: int) -> int:
    """The argument, or ValueError when the register is too narrow for it."""
    if not 0 <= value <= limit:
        raise ValueError(f"{name} is {value:#x}, must be from 0 to {limit:#x}")
    return value
