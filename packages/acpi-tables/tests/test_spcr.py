"""The SPCR: round trip, iasl, hostile tables."""

import pytest
from acpi_tables import EncodingError, GenericAddress, SerialPort, Spcr, TableError
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_testhost.pytest_plugin import LONG

REGISTERS = st.builds(
    GenericAddress, st.sampled_from([0, 1]), st.integers(0, (1 << 64) - 1), st.sampled_from([1, 2, 4])
)
GSI = st.integers(1, 0xFFFF_FFFF)
TABLES = st.builds(
    Spcr,
    st.sampled_from(SerialPort),
    REGISTERS,
    GSI,
    st.sampled_from([0, 9600, 19200, 57600, 115200]),
    st.booleans(),
)
GOOD = Spcr(SerialPort.PL011, GenericAddress(0, 0x900_0000, 4), 33, 115200, gic=True).encode()


@given(TABLES)
def test_round_trip(table):
    """What is encoded decodes to an equal object."""
    assert Spcr.decode(table.encode()) == table


@settings(max_examples=500 if LONG else 4, deadline=None)
@given(table=TABLES)
def test_iasl_rebuilds_it(iasl, table):
    """Field by field the same bytes."""
    encoded = table.encode()
    runner = iasl()
    source = runner.disassemble(encoded)
    assert f"Interrupt : {table.gsi:08X}" in source
    assert runner.assemble(source)[36:] == encoded[36:]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (GOOD[:-1], "SPCR at 0x10: 0x4f bytes, less than 0x50"),
        (GOOD[:36] + b"\x77" + GOOD[37:], "port type 0x77 at speed code 7"),
        (GOOD[:58] + b"\x05" + GOOD[59:], "port type 0x3 at speed code 5"),
    ],
)
def test_what_it_cannot_say_is_refused(table, message):
    """Cut short, of an unknown port or speed."""
    with pytest.raises(TableError, match=message):
        Spcr.decode(table, 0x10)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Spcr(SerialPort.PL011, GenericAddress(0, 0, 4), baud=300), "baud rate cannot be 0x12c"),
        (Spcr(SerialPort.PL011, GenericAddress(0, 0, 4), gsi=1 << 32), "of layout"),
    ],
)
def test_what_does_not_fit_is_refused(table, message):
    """Nothing is clipped."""
    with pytest.raises(EncodingError, match=message):
        table.encode()
