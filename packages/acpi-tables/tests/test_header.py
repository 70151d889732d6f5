"""The common table header and generic addresses."""

import pytest
from acpi_tables import EncodingError, GenericAddress, byte_sum, sdt
from hypothesis import given
from hypothesis import strategies as st


@given(st.binary(max_size=200), st.integers(0, 255))
def test_every_table_sums_to_zero(body, revision):
    """Length and sum follow from the body."""
    table = sdt(b"TEST", revision, body)
    assert byte_sum(table) == 0
    assert int.from_bytes(table[4:8], "little") == len(table) == 36 + len(body)


@pytest.mark.parametrize(("signature", "revision"), [(b"LONGER", 1), (b"", 1), (b"TEST", 256), (b"TEST", -1)])
def test_bad_headers_are_refused(signature, revision):
    """Four characters, one byte."""
    with pytest.raises(EncodingError, match="table"):
        sdt(signature, revision, b"")


@given(st.sampled_from([0, 1]), st.integers(0, (1 << 64) - 1), st.sampled_from([1, 2, 4, 8]))
def test_generic_addresses_round_trip(space, address, size):
    """Twelve bytes and back."""
    register = GenericAddress(space, address, size)
    assert GenericAddress.decode(register.encode()) == register


@pytest.mark.parametrize(("address", "size"), [(0, 3), (-1, 1), (1 << 64, 1)])
def test_bad_generic_addresses_are_refused(address, size):
    """Odd widths and addresses outside 64 bits."""
    with pytest.raises(EncodingError, match="register"):
        GenericAddress(1, address, size).encode()
