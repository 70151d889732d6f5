"""Every rule of a descriptor chain, kept and broken, on both implementations."""

import pytest
from virtio_queue import DriverError, Reason, Segment
from virtio_queue._layout import DESCRIPTOR
from virtio_queue.testing import RawRings, RingLayout
from vmm_memory import FileOffset, GuestMemoryMmap, GuestRegionMmap
from vmm_memory.testing import guarded_region

NEXT, WRITE, INDIRECT = 1, 2, 4
DATA = 0x1_2000
TABLE = 0x1_3000


def _table(bench, *rows):
    bench.mem.write(TABLE, b"".join(DESCRIPTOR.pack(*row) for row in rows))


# (rows of the main table, rows of the indirect table, reason, position, words of the message)
BROKEN = {
    "next outside": ([(DATA, 1, NEXT, 4)], [], Reason.INDEX, 1, "index 4, table of 4 entries"),
    "self loop": ([(DATA, 1, NEXT, 0)], [], Reason.LOOP, 4, "step 5 in a table of 4 entries"),
    "loop of two": ([(DATA, 1, NEXT, 1), (DATA, 1, NEXT, 0)], [], Reason.LOOP, 4, "step 5"),
    "order": ([(DATA, 1, NEXT | WRITE, 1), (DATA, 2, 0, 0)], [], Reason.ORDER, 1, "2 bytes at 0x"),
    "order after empty": (
        [(DATA, 0, NEXT | WRITE, 1), (DATA, 2, 0, 0)],
        [],
        Reason.ORDER,
        1,
        "after a",
    ),
    "address": ([(DATA, 1, NEXT, 1), (0x1_3FFF, 2, 0, 0)], [], Reason.ADDRESS, 1, "2 bytes at 0x13fff"),
    "address wraps": ([((1 << 64) - 1, 2, 0, 0)], [], Reason.ADDRESS, 0, "0xffffffffffffffff"),
    "address null": ([(0, 1, WRITE, 0)], [], Reason.ADDRESS, 0, "1 bytes at 0x0"),
    "table empty": ([(TABLE, 0, INDIRECT, 0)], [], Reason.TABLE_SIZE, 0, "0 bytes, must be a multiple of 16"),
    "table odd": ([(TABLE, 24, INDIRECT, 0)], [], Reason.TABLE_SIZE, 0, "24 bytes"),
    "table outside": ([(0x1_3FF8, 16, INDIRECT, 0)], [], Reason.TABLE_ADDRESS, 0, "16 bytes at 0x13ff8"),
    "table wraps": ([((1 << 64) - 16, 32, INDIRECT, 0)], [], Reason.TABLE_ADDRESS, 0, "32 bytes"),
    "table with next": ([(TABLE, 16, INDIRECT | NEXT, 1)], [], Reason.INDIRECT_WITH_NEXT, 0, "flags 0x5"),
    "nested": (
        [(TABLE, 16, INDIRECT, 0)],
        [(TABLE, 16, INDIRECT, 0)],
        Reason.INDIRECT_NESTED,
        0,
        "flags 0x4",
    ),
    "table next outside": (
        [(TABLE, 16, INDIRECT, 0)],
        [(DATA, 1, NEXT, 1)],
        Reason.INDEX,
        1,
        "table of 1 entries",
    ),
    "table loop": (
        [(TABLE, 16, INDIRECT, 0)],
        [(DATA, 1, NEXT, 0)],
        Reason.LOOP,
        1,
        "in a table of 1 entries",
    ),
    "table too long": (
        [(TABLE, 80, INDIRECT, 0)],
        [(DATA, 1, NEXT, n) for n in range(1, 5)] + [(DATA, 1, 0, 0)],
        Reason.TOO_LONG,
        4,
        "buffer 5, queue size 4",
    ),
    "direct then too long": (
        [(DATA, 1, NEXT, 1), (TABLE, 64, INDIRECT, 0)],
        [(DATA, 1, NEXT, n) for n in range(1, 4)] + [(DATA, 1, 0, 0)],
        Reason.TOO_LONG,
        4,
        "buffer 5",
    ),
    "order across tables": (
        [(DATA, 1, NEXT | WRITE, 1), (TABLE, 16, INDIRECT, 0)],
        [(DATA, 1, 0, 0)],
        Reason.ORDER,
        1,
        "1 bytes",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_chain_names_the_rule(bench, case):
    """Head, position, rule and values; the chain is taken; no other exception, no write to memory."""
    rows, table, reason, position, message = BROKEN[case]
    bench.descriptors(*rows)
    _table(bench, *table)
    bench.announce(0)
    memory = bench.mem.read(bench.BASE, bench.ROOM)
    with pytest.raises(DriverError, match=message) as caught:
        bench.queue.pop(bench.mem)
    error = caught.value
    assert (error.reason, error.head, error.position) == (reason, 0, position)
    assert (bench.queue.in_flight, bench.mem.read(bench.BASE, bench.ROOM)) == (1, memory)
    bench.queue.undo_pop()
    assert bench.queue.pop_batch(bench.mem, bench.batch) == 1
    (again,) = bench.batch.errors()
    assert (again.reason, again.head, again.position) == (reason, 0, position)


def test_indirect_needs_negotiation(bench):
    """Without VIRTIO_F_INDIRECT_DESC the flag is a fault."""
    bench.queue.indirect = False
    bench.descriptors((TABLE, 16, INDIRECT, 0))
    bench.announce(0)
    with pytest.raises(DriverError, match="without VIRTIO_F_INDIRECT_DESC") as caught:
        bench.queue.pop(bench.mem)
    assert caught.value.reason is Reason.INDIRECT_NOT_NEGOTIATED


LEGAL = {
    "one": ([(DATA, 1, 0, 3)], [], [(DATA, 1, False)]),
    "whole table backwards": (
        [(DATA, 1, NEXT, 3), (DATA, 2, WRITE, 0), (DATA, 3, NEXT | WRITE, 1), (DATA, 4, NEXT, 2)],
        [],
        [(DATA, 1, False), (DATA, 4, False), (DATA, 3, True), (DATA, 2, True)],
    ),
    "empty buffers lie anywhere": (
        [(0, 0, NEXT, 1), (1 << 63, 0, 2, 0)],
        [],
        [(0, 0, False), (1 << 63, 0, True)],
    ),
    "write flag of the table": (
        [(TABLE, 16, INDIRECT | WRITE, 0)],
        [(DATA, 1, 0, 0)],
        [(DATA, 1, False)],
    ),
    "direct before indirect": (
        [(DATA, 1, NEXT, 2), (0, 0, 0, 0), (TABLE, 48, INDIRECT, 0)],
        [(DATA, 2, NEXT, 2), (0, 0, 0, 0), (DATA, 3, WRITE, 0)],
        [(DATA, 1, False), (DATA, 2, False), (DATA, 3, True)],
    ),
    "table longer than the queue, chain not": (
        [(TABLE, 128, INDIRECT, 0)],
        [(DATA, 1, NEXT, 7)] + [(0, 0, 0, 0)] * 6 + [(DATA, 2, 0, 0)],
        [(DATA, 1, False), (DATA, 2, False)],
    ),
    "last byte of memory": ([(0x1_3FFF, 1, WRITE, 0)], [], [(0x1_3FFF, 1, True)]),
    "unknown flags": ([(DATA, 1, 0xFFF8, 0)], [], [(DATA, 1, False)]),
}


@pytest.mark.parametrize("case", LEGAL)
def test_legal_chain(bench, case):
    """The buffers come in chain order with their direction."""
    rows, table, expected = LEGAL[case]
    bench.descriptors(*rows)
    _table(bench, *table)
    bench.announce(0)
    chain = bench.queue.pop(bench.mem)
    assert list(chain.segments) == [Segment(*row) for row in expected]


def test_indirect_table_needs_no_alignment(bench):
    """Only the queue's own table has an alignment rule."""
    bench.mem.write(TABLE + 3, DESCRIPTOR.pack(DATA, 7, 0, 0))
    bench.descriptors((TABLE + 3, 16, INDIRECT, 0))
    bench.announce(0)
    assert bench.queue.pop(bench.mem).segments == (Segment(DATA, 7, False),)


def test_four_gibibytes_are_the_limit(queue_class):
    """A chain may sum to 2^32 bytes and not to one more (VIRTIO 1.2, 2.7.5.2)."""
    mem = GuestMemoryMmap.from_ranges([(0, 1 << 31)])
    layout = RingLayout.at(0, 4)
    queue = queue_class(4)
    layout.configure(queue)
    raw = RawRings(mem, layout)
    for index, length in enumerate([1 << 31, 1 << 31, 0, 1]):
        raw.write_descriptor(index, 0, length, WRITE | (NEXT if index < 3 else 0), index + 1)
    raw.set_avail_idx(1)
    with pytest.raises(DriverError, match="4294967297 bytes, limit 4294967296") as caught:
        queue.pop(mem)
    assert (caught.value.reason, caught.value.position) == (Reason.TOTAL, 3)
    raw.write_descriptor(3, 0, 0, WRITE)
    queue.undo_pop()
    assert queue.pop(mem).writable_bytes == 1 << 32


def test_read_only_memory_is_for_reading(queue_class, tmp_path):
    """A buffer in read-only memory may be readable, not writable; past its end it is simply outside."""
    path = tmp_path / "rom"
    path.write_bytes(bytes(4096))
    with path.open("rb") as file:
        rom = GuestRegionMmap.from_file(0x8000, 4096, FileOffset(file.fileno()), shared=False, read_only=True)
        mem = GuestMemoryMmap([guarded_region(0x1000, 0x1000), rom])
    layout = RingLayout.at(0x1000, 4)
    queue = queue_class(4)
    layout.configure(queue)
    raw = RawRings(mem, layout)
    raw.write_descriptor(0, 0x8000, 4096, 0)
    raw.write_descriptor(1, 0x8000, 1, WRITE)
    raw.write_descriptor(2, 0x8FFF, 2, WRITE)
    for head in range(3):
        raw.write_available(head, head)
    raw.set_avail_idx(3)
    assert queue.pop(mem).readable_bytes == 4096
    for reason in (Reason.READ_ONLY, Reason.ADDRESS):
        with pytest.raises(DriverError) as caught:
            queue.pop(mem)
        assert caught.value.reason is reason
    queue.used_ring = 0x8000
    assert not queue.is_valid(mem)
