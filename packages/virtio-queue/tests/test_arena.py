"""The driver's allocator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_queue.testing import Arena


@given(base=st.integers(0, 100), sizes=st.lists(st.integers(0, 80), max_size=12), data=st.data())
def test_blocks_never_overlap(base, sizes, data):
    """Whatever is taken and given back, blocks are aligned, inside, and apart."""
    arena, held = Arena(base, 512), {}
    for size in sizes:
        if held and data.draw(st.booleans()):
            victim = data.draw(st.sampled_from(sorted(held)))
            arena.free(victim)
            del held[victim]
        try:
            (addr,) = arena.take_all([size])
        except MemoryError:
            continue
        assert addr % 16 == 0
        assert base <= addr
        assert addr + size <= base + 512
        assert all(addr + size <= other or other + length <= addr for other, length in held.items())
        held[addr] = max(size, 1)


def test_all_or_nothing():
    """A list of sizes that does not fit takes no block."""
    arena = Arena(0, 64)
    with pytest.raises(MemoryError, match="arena of 64 bytes has no room for 48"):
        arena.take_all([32, 48])
    assert arena.take_all([64]) == [0]
