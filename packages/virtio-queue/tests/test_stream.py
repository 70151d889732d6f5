"""Byte streams against one flat buffer, however the parts are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import DriverError, Reader, Reason, Writer
from vmm_memory.testing import ByteArrayMemory

PARTS = st.lists(st.integers(0, 9), max_size=6)


def _place(lengths):
    return [(0x1000 + 0x40 * index, length) for index, length in enumerate(lengths)]


@given(lengths=PARTS, data=st.data())
def test_reader_reads_the_concatenation(lengths, data):
    """Reads, skips and splits of any size see the parts as one string."""
    mem = ByteArrayMemory([(0x1000, 0x1000)])
    flat = bytes(range(1, sum(lengths) + 1))
    rest = flat
    for addr, length in _place(lengths):
        mem.write(addr, rest[:length])
        rest = rest[length:]
    reader, seen = Reader(mem, _place(lengths)), 0
    for action in data.draw(st.lists(st.sampled_from(("read", "skip", "split")), max_size=6)):
        size = data.draw(st.integers(0, reader.available))
        if action == "read":
            assert reader.read(size) == flat[seen : seen + size]
        elif action == "skip":
            reader.skip(size)
        else:
            rest = reader.split(size)
            assert reader.read_all() == flat[seen : seen + size]
            reader = rest
        seen += size
    assert reader.read_all() == flat[seen:]


@given(lengths=PARTS, data=st.data())
def test_writer_fills_the_concatenation(lengths, data):
    """Writes of any size land in order, and nowhere else."""
    mem = ByteArrayMemory([(0x1000, 0x1000)])
    writer, model = Writer(mem, _place(lengths)), b""
    while data.draw(st.booleans()):
        chunk = data.draw(st.binary(max_size=writer.available))
        writer.write(chunk)
        model += chunk
    assert (writer.consumed, writer.available) == (len(model), sum(lengths) - len(model))
    expected = bytearray(0x1000)
    for addr, length in _place(lengths):
        expected[addr - 0x1000 : addr - 0x1000 + len(model[:length])] = model[:length]
        model = model[length:]
    assert mem.read(0x1000, 0x1000) == bytes(expected)


def test_short_chain_is_the_drivers_fault():
    """Reading past the end names head, need and rest, and moves nothing."""
    mem = ByteArrayMemory([(0x1000, 0x1000)])
    reader = Reader(mem, [(0x1000, 4)], head=9)
    reader.read(1)
    with pytest.raises(DriverError, match=r"request: 16 bytes needed, 3 left \(chain 9, ") as caught:
        reader.read(16)
    assert (caught.value.reason, caught.value.head) == (Reason.TOO_SHORT, 9)
    assert (reader.available, reader.consumed) == (3, 1)


def test_write_is_all_or_nothing():
    """A write that does not fit writes nothing."""
    mem = ByteArrayMemory([(0x1000, 0x1000)])
    writer = Writer(mem, [(0x1000, 4)], head=9)
    with pytest.raises(DriverError, match="5 bytes needed, 4 left"):
        writer.write(b"hello")
    assert mem.read(0x1000, 5) == bytes(5)


def test_status_byte_behind_the_data():
    """The usual use of split: data first, one status byte last, whatever was written before it."""
    mem = ByteArrayMemory([(0x1000, 0x1000)])
    data = Writer(mem, [(0x1000, 4), (0x1010, 3)], head=9)
    status = data.split(data.available - 1)
    data.write(b"ab")
    status.write(b"\x01")
    assert (mem.read(0x1000, 4), mem.read(0x1010, 3)) == (b"ab\0\0", b"\0\0\x01")


@pytest.mark.parametrize("call", ["read", "skip", "split"])
def test_negative_sizes_are_refused(call):
    """A negative size is our caller's mistake."""
    with pytest.raises(ValueError, match="size is -1, must not be negative"):
        getattr(Reader(ByteArrayMemory([]), []), call)(-1)
