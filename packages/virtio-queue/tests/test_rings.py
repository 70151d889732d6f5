"""Ring layouts and raw access."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue import Queue
from virtio_queue.testing import RawRings, RingLayout
from virtio_queue.testing.strategies import ring_layouts
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import ByteArrayMemory


@pytest.mark.parametrize("size", [0, 3, 65536])
def test_bad_size(size):
    """A layout has a size that a queue can have."""
    with pytest.raises(ValueError, match=f"queue size is {size}, must be a power of two"):
        RingLayout.at(0, size)


@given(data=st.data(), packed=st.booleans())
def test_parts_are_aligned_and_apart(data, packed):
    """VIRTIO 1.2, 2.7, 2.8.10.1: alignments 16, 2 (packed: 4), 4; nothing overlaps; a queue accepts it."""
    layout = data.draw(ring_layouts(0x1003, packed=packed))
    driver, device = (4, 4) if packed else (6 + 2 * layout.size, 6 + 8 * layout.size)
    assert layout.packed is packed
    assert layout.desc_table >= 0x1003
    alignments = layout.desc_table % 16, layout.avail_ring % (4 if packed else 2), layout.used_ring % 4
    assert alignments == (0, 0, 0)
    assert layout.desc_table + 16 * layout.size <= layout.avail_ring
    assert layout.avail_ring + driver <= layout.used_ring
    assert layout.end == layout.used_ring + device
    queue, memory = Queue(32768), GuestMemoryMmap.from_ranges([(0x1000, 0x20_0000)])
    layout.configure(queue, event_idx=True, indirect=True)
    assert queue.is_valid(memory)
    assert (queue.size, queue.packed, queue.event_idx, queue.indirect) == (layout.size, packed, True, True)


def test_words_lie_where_the_spec_puts_them():
    """Each accessor against the bytes of the spec's structures (2.7.5, 2.7.6, 2.7.8)."""
    mem = ByteArrayMemory([(0, 0x1000)])
    raw = RawRings(mem, RingLayout(2, 0x100, 0x200, 0x300))
    raw.write_descriptor(1, 0x1122334455667788, 0x99AABBCC, 0xDDEE, 0xFF01)
    assert mem.read(0x110, 16) == bytes.fromhex("8877665544332211ccbbaa99eedd01ff")
    raw.set_avail_flags(1)
    raw.set_avail_idx(0x0203)
    raw.write_available(3, 0x0405)
    raw.set_used_event(0x0607)
    assert mem.read(0x200, 10) == bytes.fromhex("01000302000005040706")
    mem.write(0x300, bytes.fromhex("0100030208070605000000000c0b0a09040302010e0d"))
    assert (raw.used_flags(), raw.used_idx(), raw.avail_event()) == (1, 0x0203, 0x0D0E)
    assert raw.used_element(5) == (0x090A0B0C, 0x01020304)
