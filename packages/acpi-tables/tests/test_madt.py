"""MADT entries: encoding, decoding, hostile tables."""

import pytest
from acpi_tables import (
    EncodingError,
    InterruptOverride,
    IoApic,
    LocalApic,
    LocalApicNmi,
    Madt,
    RawMadtEntry,
    TableError,
)
from hypothesis import given
from hypothesis import strategies as st

U32 = st.integers(0, 0xFFFF_FFFF)
ENTRIES = st.one_of(
    st.builds(LocalApic, U32, U32, st.booleans()),
    st.builds(LocalApic, st.integers(0, 254), st.integers(0, 254), st.booleans()),
    st.builds(IoApic, st.integers(0, 255), U32, U32),
    st.builds(LocalApicNmi, st.sampled_from([0, 1]), st.booleans()),
    st.builds(InterruptOverride, st.integers(0, 15), U32, st.booleans(), st.booleans()),
    st.builds(RawMadtEntry, st.integers(16, 255), st.binary(max_size=253)),
)


@given(st.lists(ENTRIES, max_size=12), U32, st.sampled_from([0, 1]))
def test_entries_round_trip(entries, local_apic, flags):
    """What is encoded decodes to equal objects."""
    madt = Madt(local_apic, tuple(entries), flags)
    assert Madt.decode(madt.encode()) == madt


@pytest.mark.parametrize(("uid", "apic_id", "kind"), [(254, 254, 0), (0, 255, 9), (255, 0, 9)])
def test_ids_beyond_254_take_the_x2apic_entry(uid, apic_id, kind):
    """255 is the broadcast id of the old entry (ACPI 6.5 §5.2.12.12)."""
    assert LocalApic(uid, apic_id).encode()[0] == kind


def test_flags_of_processors():
    """Enabled now, or online capable; never both."""
    assert LocalApic(1, 2).encode().hex() == "0008010201000000"
    assert LocalApic(1, 2, online=False).encode().hex() == "0008010202000000"


def test_an_entry_of_other_flags_stays_raw():
    """A typed entry is believed only when it encodes back to the same bytes."""
    entry = RawMadtEntry(0, bytes.fromhex("010203000000"))
    assert Madt.decode(Madt(0, (entry,)).encode()).entries == (entry,)


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x00", b"\x00\x01", b"\x00\x09" + bytes(6)])
def test_cut_entries_are_refused(tail):
    """No endless loop over entries of length 0, no read past the end."""
    with pytest.raises(TableError, match="entry at 0x2c"):
        Madt.decode(Madt(0, ()).encode() + tail, 0x1000)


def test_a_short_table_is_refused():
    """The fixed part must be there."""
    with pytest.raises(TableError, match="APIC at 0x1000: 0x24 bytes, less than 0x2c"):
        Madt.decode(bytes(36), 0x1000)


@pytest.mark.parametrize(
    "entry",
    [InterruptOverride(256, 0), LocalApic(0, 1 << 32), IoApic(256, 0), IoApic(0, 1 << 32), LocalApicNmi(256)],
)
def test_what_does_not_fit_is_refused(entry):
    """Nothing is clipped."""
    with pytest.raises(EncodingError, match="of layout"):
        entry.encode()
