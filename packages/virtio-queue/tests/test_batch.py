"""The caller-owned arrays of a batch."""

import pytest
from virtio_queue import ChainBatch, DriverError, Reason, Segment


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 4), "max_chains is 0, must be from 1 to 32768"),
        ((32769, 4), "max_chains is 32769"),
        ((4, 0), "max_segments is 0, must be from 1 to 16777216"),
    ],
)
def test_sizes_are_checked(sizes, message):
    """An impossible batch is refused with the value and the limit."""
    with pytest.raises(ValueError, match=message):
        ChainBatch(*sizes)


def test_append_and_read_back():
    """What goes in comes out, totals included."""
    batch = ChainBatch(2, 4)
    batch.append(7, [(0x1000, 5, False), (0x2000, 6, True), (0x3000, 7, True)], written=9)
    batch.append(8, error=-Reason.LOOP)
    assert batch.records() == [(0, 3, 7, 9, 0, 5, 13), (3, 0, 8, 0, -Reason.LOOP, 0, 0)]
    assert batch.segments(0)[1] == Segment(0x2000, 6, True)
    assert (len(batch), batch.free_segments) == (2, 1)


def test_full_batch_refuses_and_stays_as_it_is():
    """Neither chains nor segments run over."""
    batch = ChainBatch(1, 2)
    with pytest.raises(ValueError, match="3 segments: batch holds 0 of 1 chains and 0 of 2 segments"):
        batch.append(3, [(0, 1, True)] * 3)
    with pytest.raises(ValueError, match="chain 65536"):
        batch.append(65536)
    batch.append(1)
    with pytest.raises(ValueError, match="batch holds 1 of 1 chains"):
        batch.append(2)
    assert [record[2] for record in batch.records()] == [1]


def test_clear_makes_room():
    """A cleared batch is empty."""
    batch = ChainBatch(1, 1)
    batch.append(1, [(0, 1, True)])
    batch.clear()
    assert (len(batch), batch.free_segments, batch.records()) == (0, 1, [])


@pytest.mark.parametrize("index", [-1, 1])
def test_indices_are_checked(index):
    """Only chains that are in the batch can be looked at."""
    batch = ChainBatch(2, 2)
    batch.append(1)
    with pytest.raises(IndexError, match=f"chain {index} of a batch of 1"):
        batch.segments(index)
    with pytest.raises(IndexError, match=f"chain {index} of a batch of 1"):
        batch.set_written(index, 0)


def test_chain_objects_outlive_the_batch(bench):
    """A DescriptorChain is a copy; that of a broken chain is its error."""
    bench.descriptors((bench.DATA, 8, 2), (bench.DATA, 8, 1, 1))
    bench.announce(0, 1)
    bench.queue.pop_batch(bench.mem, bench.batch)
    chain = bench.batch.chain(0, bench.mem)
    with pytest.raises(DriverError, match=r"^descriptors form a loop") as caught:
        bench.batch.chain(1, bench.mem)
    assert (caught.value.head, caught.value.position) == (1, 4)
    bench.batch.clear()
    assert (chain.head, chain.segments) == (0, (Segment(bench.DATA, 8, True),))


def test_truncate_keeps_the_first_chains():
    """What is cut off is gone, its segments too, and the room is there again."""
    batch = ChainBatch(3, 5)
    batch.append(1, [(0, 1, True)])
    batch.append(2, [(0, 2, True), (8, 2, True)])
    batch.append(3, [(0, 3, False)])
    batch.truncate(1)
    assert [record[2] for record in batch.records()] == [1]
    assert (len(batch), batch.free_segments) == (1, 4)
    batch.append(4, [(0, 4, True)])
    assert batch.segments(1) == (Segment(0, 4, True),)
    batch.truncate(2)
    assert len(batch) == 2
    with pytest.raises(ValueError, match="cannot keep 3 chains of a batch of 2"):
        batch.truncate(3)
