"""Intervals against sets of addresses."""

from hypothesis import given
from hypothesis import strategies as st
from linux_loader._ranges import GuestRange, align_down, align_up, gaps, highest_fit, lowest_fit

ranges = st.builds(GuestRange, st.integers(0, 200), st.integers(0, 60))


def addresses(*items):
    """All addresses in the ranges."""
    return {a for r in items for a in range(r.base, r.end)}


@given(ranges, ranges)
def test_overlap_and_containment_agree_with_sets(a, b):
    """Two ranges overlap exactly when they share an address."""
    assert a.overlaps(b) == bool(addresses(a) & addresses(b))
    if b.size:
        assert a.contains(b) == (addresses(b) <= addresses(a))


@given(st.lists(ranges, max_size=6))
def test_gaps_are_ram_minus_what_is_taken(taken):
    """Gaps hold each free address once and nothing else."""
    ram = [GuestRange(10, 80), GuestRange(120, 100)]
    free = gaps(ram, taken)
    assert addresses(*free) == addresses(*ram) - addresses(*taken)
    assert free == sorted(free)
    assert sum(g.size for g in free) == len(addresses(*free))


@given(
    st.lists(ranges, max_size=6),
    st.integers(1, 40),
    st.sampled_from([1, 4, 16]),
    st.integers(0, 250),
    st.integers(0, 250),
)
def test_fits_are_extreme(taken, size, alignment, floor, limit):
    """The lowest and highest fit are what a search over all addresses finds."""
    ram = [GuestRange(10, 80), GuestRange(120, 100)]
    free = gaps(ram, taken)
    room = addresses(*free)
    # Gaps never touch each other, so "all free" is the same as "in one gap".
    ok = [a for a in range(0, 260, alignment) if set(range(a, a + size)) <= room]
    assert lowest_fit(free, size, alignment, floor) == min((a for a in ok if a >= floor), default=None)
    assert highest_fit(free, size, alignment, limit) == max(
        (a for a in ok if a + size <= limit), default=None
    )


def test_alignment():
    """Aligned values stay, others move to the neighbour."""
    assert (align_down(0x1FFF, 0x1000), align_up(0x1001, 0x1000), align_up(0x1000, 0x1000)) == (
        0x1000,
        0x2000,
        0x1000,
    )
    assert str(GuestRange(0x10, 0x10)) == "0x10..0x20"
    assert GuestRange(0x10, 0x10).last == 0x1F
