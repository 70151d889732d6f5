"""MADT entries of Arm's interrupt controller: bytes, round trip, iasl."""

import pytest
from acpi_tables import EncodingError, Gicc, Gicd, GicIts, GicMsiFrame, GicRedistributor, Madt, RawMadtEntry
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_testhost.pytest_plugin import LONG

U16, U32, U64 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF), st.integers(0, (1 << 64) - 1)
ENTRIES = st.one_of(
    st.builds(Gicc, U32, U64, st.booleans(), U64, U64, U64, U64, U32, U32),
    st.builds(Gicd, U64, st.integers(0, 255), U32),
    st.builds(GicMsiFrame, U32, U64, U16, U16),
    st.builds(GicRedistributor, U64, U32),
    st.builds(GicIts, U32, U64),
)


@given(st.lists(ENTRIES, max_size=9))
def test_entries_round_trip(entries):
    """What is encoded decodes to equal objects."""
    madt = Madt(0, tuple(entries))
    assert Madt.decode(madt.encode()) == madt


@settings(max_examples=500 if LONG else 5, deadline=None)
@given(entries=st.lists(ENTRIES, min_size=4, max_size=9))
def test_iasl_rebuilds_them(iasl, entries):
    """The compiler reads each field and writes the same bytes, its own creator id apart."""
    table = Madt(0, tuple(entries)).encode()
    again = iasl().round_trip(table)
    assert again[36:] == table[36:]


def test_names_of_the_fields(iasl):
    """Each value is where the specification has its field, as iasl names it."""
    source = iasl().disassemble(
        Madt(
            0, (Gicc(1, 0x8000_0001, redistributor=0x80A_0000), Gicd(0x800_0000), GicIts(0, 0x808_0000))
        ).encode()
    )
    words = source.replace(" ", "")
    for line in (
        "ProcessorUID:00000001",
        "ARMMPIDR:0000000080000001",
        "RedistributorBaseAddress:00000000080A0000",
        "BaseAddress:0000000008000000",
        "Version:03",
        "BaseAddress:0000000008080000",
        "ProcessorEnabled:1",
    ):
        assert line in words


def test_an_entry_that_says_more_stays_raw():
    """An edge-triggered performance interrupt is nothing a Gicc can say."""
    raw = bytearray(Gicc(0, 0).encode())
    raw[12] |= 2
    entry = RawMadtEntry(11, bytes(raw[2:]))
    assert Madt.decode(Madt(0, (entry,)).encode()).entries == (entry,)


@pytest.mark.parametrize(
    "entry",
    [
        Gicc(1 << 32, 0),
        Gicd(1 << 64),
        GicMsiFrame(0, 0, 1 << 16, 0),
        GicRedistributor(0, 1 << 32),
        GicIts(-1, 0),
    ],
)
def test_what_does_not_fit_is_refused(entry):
    """Nothing is clipped."""
    with pytest.raises(EncodingError, match="of layout"):
        entry.encode()
