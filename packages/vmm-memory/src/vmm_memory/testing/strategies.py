"""Hypothesis strategies for layouts of guest memory and ranges in and around them."""

from __future__ import annotations

from .._mapping import HOST_PAGE

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "vmm_memory.testing.strategies needs Hypothesis: pip install 'vmm-memory[testing]'", name=error.name
    ) from error

__all__ = ("TOP", "addresses_near", "layouts", "ranges_near")

TOP = 1 << 64
"""One past the last guest physical address."""


@st.composite
def layouts(draw: st.DrawFn, max_regions: int = 5, max_pages: int = 3) -> tuple[tuple[int, int], ...]:
    """Sorted disjoint (base, size) in whole pages: adjacent ones, gaps, sometimes up to exactly 2^64.

    Args:
        draw: Given by Hypothesis.
        max_regions: At most so many, at least one.
        max_pages: Pages per region, and per gap.
    """
    pieces = draw(
        st.lists(
            st.tuples(st.integers(0, max_pages), st.integers(1, max_pages)), min_size=1, max_size=max_regions
        )
    )
    span = sum(gap + pages for gap, pages in pieces) * HOST_PAGE
    at = draw(st.sampled_from((0, 0x1000, 0xBFFF_F000, 0xFFFF_E000, TOP - span)))
    result = []
    for gap, pages in pieces:
        at += gap * HOST_PAGE
        result.append((at, pages * HOST_PAGE))
        at += pages * HOST_PAGE
    return tuple(result)


def addresses_near(layout: tuple[tuple[int, int], ...]) -> SearchStrategy[int]:
    """Addresses in a layout's regions and close to their edges, on both sides, within 0 .. 2^64 - 1.

    Make it once per layout and draw from it often: making it is what costs.
    """
    edges = {edge for base, size in layout for edge in (base, base + size)}
    near = sorted({edge + step for edge in edges for step in range(-17, 18) if 0 <= edge + step < TOP})

    def inside(nth: int) -> int:
        for base, size in layout:
            if nth < size:
                return base + nth
            nth -= size
        raise AssertionError(f"byte {nth} past the layout's end")

    total = sum(size for _, size in layout)
    return st.one_of(st.sampled_from(near), st.integers(0, total - 1).map(inside))


def ranges_near(
    layout: tuple[tuple[int, int], ...], max_size: int = 3 * HOST_PAGE
) -> SearchStrategy[tuple[int, int]]:
    """(address, size) that begin in or near a layout; many are small, some span regions and holes."""
    return st.tuples(addresses_near(layout), st.one_of(st.integers(0, 40), st.integers(0, max_size)))
