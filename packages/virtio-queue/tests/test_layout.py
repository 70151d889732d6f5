"""Sizes of the rings against the structures of the spec (VIRTIO 1.2, 2.7)."""

import pytest
from virtio_queue import _layout


@pytest.mark.parametrize("size", [1, 2, 256, 32768])
def test_sizes_and_event_words(size):
    """16, 6 + 2 and 6 + 8 bytes per entry; the event words are the last two bytes."""
    assert _layout.descriptor_table_bytes(size) == 16 * size
    assert _layout.avail_ring_bytes(size) == _layout.used_event_offset(size) + 2 == 6 + 2 * size
    assert _layout.avail_event_offset(size) + 2 == _layout.used_ring_bytes(size) == 6 + 8 * size


@pytest.mark.parametrize(
    ("size", "legal"), [(0, False), (1, True), (3, False), (32768, True), (65536, False)]
)
def test_queue_sizes(size, legal):
    """Powers of two up to 32768."""
    assert _layout.is_queue_size(size) is legal
