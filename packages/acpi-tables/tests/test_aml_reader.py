"""The AML reader on its own: hostile bytes, nesting, every declarative object."""

import contextlib

import pytest
from acpi_tables import AmlParseError, aml
from hypothesis import given
from hypothesis import strategies as st


def test_every_declarative_object_is_read():
    """Scope, Device, Method, Mutex, OperationRegion and Field come back with their names."""
    inner = (
        aml.mutex("LOCK", 3),
        aml.op_region("REGS", aml.Region.SYSTEM_IO, 0x600, 8),
        aml.field("REGS", aml.FieldAccess.BYTE, [("SLPC", 8), (None, 4)]),
        aml.method("_STA", 0, aml.return_(0xF)),
        aml.name("_DEP", aml.path("\\_SB.D001")),
    )
    (scope,) = aml.parse(aml.scope("\\_SB", aml.device("D000", *inner)).code)
    (device,) = scope.children
    assert (scope.kind, scope.name, device.kind, device.name) == ("Scope", "\\_SB_", "Device", "D000")
    assert [node.kind for node in device.children] == ["Mutex", "OperationRegion", "Field", "Method", "Name"]
    assert device.child("_STA").value == b"\xa4\x0a\x0f"
    assert device.child("_DEP").children[0].value == "\\_SB_.D001"
    with pytest.raises(KeyError, match="_CRS"):
        device.child("_CRS")


@given(st.binary(max_size=300))
def test_random_bytes_parse_or_raise_the_documented_error(code):
    """No other exception, no endless loop."""
    with contextlib.suppress(AmlParseError):
        assert isinstance(aml.parse(code), tuple)


@given(st.data())
def test_damaged_aml_parses_or_raises_the_documented_error(data):
    """A sound device with one byte changed or cut off."""
    code = bytearray(aml.device("DEV0", aml.name("_CRS", b"abc"), aml.name("PKG", [1, "two", b"3"])).code)
    code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(AmlParseError):
        assert isinstance(aml.parse(bytes(code[: data.draw(st.integers(0, len(code)))])), tuple)


def test_deep_nesting_is_bounded():
    """Recursion of the reader does not follow the guest down for ever."""
    term = aml.package()
    for _ in range(200):
        term = aml.package(term)
    with pytest.raises(AmlParseError, match="nested deeper than 32"):
        aml.parse(aml.name("DEEP", term).code)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\x10\x3f", "leaves the"),
        (b"\x08ABCD\x0dabc", "string without NUL"),
        (b"\x08ABCD\x11\x04\x01ab", "buffer of 0x1 bytes holds 0x2"),
        (b"\x08ABCD\x12\x04\x01\x00\x00", "package of 0x1 elements holds 0x2"),
        (b"\x70\x60\x61", "outside the declarative subset"),
        (b"\x08AB", "bytes wanted"),
        (b"\x08ABCD\x11\x05\x0d\x00ab", "String where an integer was expected"),
    ],
)
def test_contradictions_are_named(code, message):
    """The error says what is wrong."""
    with pytest.raises(AmlParseError, match=message):
        aml.parse(code)
