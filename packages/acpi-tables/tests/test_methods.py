"""Methods and expressions, disassembled and assembled again by iasl."""

import pytest
from acpi_tables import EncodingError, aml, sdt


def _body(*statements):
    head = aml.op_region("REGS", aml.Region.SYSTEM_IO, 0x600, 8)
    units = aml.field("REGS", aml.FieldAccess.BYTE, [("CTRL", 8), (None, 8), ("STAT", 16)], lock=True)
    method = aml.method("TEST", 2, *statements, serialized=True)
    return sdt(b"SSDT", 2, aml.scope("\\_SB", aml.mutex("MUTX"), head, units, method).code)


EVERYTHING = (
    aml.acquire("MUTX"),
    aml.store(aml.arg(0), aml.local(0)),
    aml.while_(
        aml.compare(aml.Compare.LESS, aml.local(0), 10),
        aml.arith(aml.Arith.ADD, aml.local(0), 1, aml.local(0)),
        aml.if_(
            aml.compare(aml.Compare.AND, aml.arg(1), aml.logic_not(aml.local(0))),
            aml.store(5, aml.path("CTRL")),
        ),
        aml.else_(aml.notify("\\_SB", 0x80)),
    ),
    aml.release("MUTX"),
    aml.store(b"12345678", aml.local(1)),
    aml.create_field(aml.local(1), 4, "DWF0", width=4),
    aml.return_(aml.size_of(aml.local(1))),
)


def test_iasl_accepts_a_method_of_every_statement(iasl):
    """What iasl assembles from its own reading is what was built, header apart."""
    table = _body(*EVERYTHING)
    runner = iasl()
    source = runner.disassemble(table)
    for word in ("Acquire", "While", "CTRL = 0x05", "Notify", "CreateDWordField", "SizeOf"):
        assert word in source
    assert runner.assemble(source)[36:] == table[36:]


@pytest.mark.parametrize("operation", list(aml.Arith))
def test_arithmetic_opcodes(operation):
    """Opcode, two operands, target."""
    code = aml.arith(operation, 2, 3, aml.local(0)).code
    assert code == bytes((operation,)) + b"\x0a\x02\x0a\x03\x60"


def test_call_and_index_encodings():
    """A call is a name followed by its arguments; Index has an empty target unless given one."""
    assert aml.call("TEST", 1, aml.arg(2)).code == b"TEST\x01\x6a"
    assert aml.index(aml.local(0), 2).code == b"\x88\x60\x0a\x02\x00"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: aml.arg(7), "method argument cannot be 0x7: 0 to 6"),
        (lambda: aml.local(8), "method local cannot be 0x8: 0 to 7"),
        (lambda: aml.method("M", 8), "method argument count"),
        (lambda: aml.mutex("M", 16), "mutex sync level"),
        (lambda: aml.acquire("M", 0x1_0000), "acquire timeout"),
        (lambda: aml.create_field(aml.arg(0), 0, "F", width=3), "field width"),
        (lambda: aml.field("R", aml.FieldAccess.ANY, [("A.B", 8)]), "field unit"),
        (lambda: aml.field("R", aml.FieldAccess.ANY, [("A", 1 << 28)]), "PkgLength"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    """The message names field, value and limit."""
    with pytest.raises(EncodingError, match=message):
        build()
