"""RSDP and XSDT."""

import pytest
from acpi_tables import EncodingError, byte_sum, rsdp, xsdt
from hypothesis import given
from hypothesis import strategies as st

ADDRESSES = st.integers(0, (1 << 64) - 1)


@given(ADDRESSES)
def test_both_sums_of_the_rsdp_are_zero(address):
    """ACPI 1 readers check 20 bytes, later ones all 36."""
    root = rsdp(address)
    assert (len(root), byte_sum(root[:20]), byte_sum(root)) == (36, 0, 0)
    assert int.from_bytes(root[24:32], "little") == address


@given(st.lists(ADDRESSES, max_size=20))
def test_the_xsdt_lists_its_entries(addresses):
    """Eight bytes each, after the header."""
    table = xsdt(addresses)
    assert byte_sum(table) == 0
    assert [int.from_bytes(table[n : n + 8], "little") for n in range(36, len(table), 8)] == addresses


@pytest.mark.parametrize("build", [lambda: rsdp(-1), lambda: rsdp(1 << 64), lambda: xsdt([1 << 64])])
def test_addresses_outside_64_bits_are_refused(build):
    """Nothing is clipped."""
    with pytest.raises(EncodingError, match="address cannot be"):
        build()
