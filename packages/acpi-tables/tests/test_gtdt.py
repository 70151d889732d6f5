"""The GTDT: round trip, iasl, hostile tables."""

import struct

import pytest
from acpi_tables import EncodingError, Gtdt, TableError, TimerInterrupt
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_testhost.pytest_plugin import LONG

TIMERS = st.builds(TimerInterrupt, st.integers(0, 0xFFFF_FFFF), st.booleans(), st.booleans(), st.booleans())
TABLES = st.builds(Gtdt, secure_el1=TIMERS, el1=TIMERS, virtual=TIMERS, el2=TIMERS, virtual_el2=TIMERS)
GOOD = Gtdt(virtual=TimerInterrupt(27, active_low=True, always_on=True)).encode()


@given(TABLES)
def test_round_trip(table):
    """What is encoded decodes to an equal object."""
    assert Gtdt.decode(table.encode()) == table


@settings(max_examples=500 if LONG else 4, deadline=None)
@given(table=TABLES)
def test_iasl_rebuilds_it(iasl, table):
    """Field by field the same bytes."""
    encoded = table.encode()
    runner = iasl()
    source = runner.disassemble(encoded)
    assert f"Virtual Timer Interrupt : {table.virtual.gsi:08X}" in source
    assert runner.assemble(source)[36:] == encoded[36:]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (GOOD[:-1], "GTDT at 0x10: 0x67 bytes, less than 0x68"),
        (GOOD + b"\0", "0 memory-mapped timers in 0x69 bytes"),
        (GOOD[:88] + struct.pack("<I", 1) + GOOD[92:], "1 memory-mapped timers"),
        (GOOD[:68] + b"\x08" + GOOD[69:], "timer flags 0x8"),
    ],
)
def test_what_it_cannot_say_is_refused(table, message):
    """Cut short, with platform timers, or with reserved flags."""
    with pytest.raises(TableError, match=message):
        Gtdt.decode(table, 0x10)


def test_an_interrupt_beyond_32_bits_is_refused():
    """Nothing is clipped."""
    with pytest.raises(EncodingError, match="of layout"):
        Gtdt(virtual=TimerInterrupt(1 << 32)).encode()
