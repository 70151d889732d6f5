"""Every operator of the builder: through iasl and back, computed by ACPICA, and read by our own reader."""

import pytest
from acpi_tables import EncodingError, aml, sdt
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_testhost.pytest_plugin import LONG

L0, L1, L2 = aml.local(0), aml.local(1), aml.local(2)
STATEMENTS = (
    aml.store(aml.unary(aml.Unary.NOT, aml.arg(0), L1), L0),
    *(
        aml.unary(operation, aml.arg(0), L1)
        for operation in aml.Unary
        if operation.value[1] and operation is not aml.Unary.COND_REF_OF
    ),
    aml.unary(aml.Unary.INCREMENT, L0),
    aml.unary(aml.Unary.DECREMENT, L0),
    aml.store(aml.unary(aml.Unary.REF_OF, aml.path("MUTX")), L1),
    aml.store(aml.unary(aml.Unary.DEREF_OF, L1), L2),
    aml.store(aml.unary(aml.Unary.OBJECT_TYPE, L1), L2),
    aml.if_(aml.unary(aml.Unary.COND_REF_OF, aml.path("\\FAR0"), L1), aml.NOOP),
    aml.divide(aml.arg(0), 3, L1, L2),
    aml.mid(aml.arg(1), 1, 2, L1),
    aml.to_string(aml.arg(1), aml.ONES, L1),
    aml.while_(1, aml.if_(L0, aml.BREAK), aml.else_(aml.CONTINUE)),
    aml.signal("DONE"),
    aml.reset("DONE"),
    aml.if_(aml.wait("DONE", 100), aml.sleep(10)),
    aml.stall(5),
    aml.BREAK_POINT,
    aml.store(aml.TIMER, aml.DEBUG),
    aml.store(aml.REVISION, aml.DEBUG),
    aml.create_bit_field(aml.arg(1), 3, "BITF"),
    aml.create_bits_field(aml.arg(1), 3, 5, "BITS"),
    aml.fatal(1, 0x1234_5678, L0),
    aml.return_(aml.path("BITS")),
)
OBJECTS = (
    aml.event("DONE"),
    aml.mutex("MUTX", 2),
    aml.name("ORIG", 5),
    aml.alias("ORIG", "COPY"),
    aml.op_region("REGS", aml.Region.SYSTEM_CMOS, 0, 0x80),
    aml.field(
        "REGS",
        aml.FieldAccess.BYTE,
        [("INDX", 8), ("DATA", 8), ("BANK", 4)],
        update=aml.FieldUpdate.WRITE_AS_ONES,
    ),
    aml.index_field("INDX", "DATA", aml.FieldAccess.BYTE, [("REG0", 8), (None, 8), ("REG2", 16)], lock=True),
    aml.bank_field(
        "REGS",
        "BANK",
        1,
        aml.FieldAccess.BYTE,
        [(None, 64), ("BNK1", 8)],
        update=aml.FieldUpdate.WRITE_AS_ZEROS,
    ),
    aml.power_resource("PWR0", 1, 2, aml.method("_STA", 0, aml.return_(1))),
    aml.thermal_zone("TZ00", aml.name("_TZP", 100)),
    aml.method("TEST", 2, *STATEMENTS, serialized=True, sync_level=3),
)
EXTERNAL = aml.external("\\FAR0", 8, 2)
TABLE = sdt(b"SSDT", 2, (EXTERNAL + aml.scope("\\_SB", *OBJECTS)).code)


def test_iasl_accepts_every_operator(iasl):
    """What iasl assembles from its own reading is what was built, header apart."""
    runner = iasl()
    source = runner.disassemble(TABLE)
    for word in (
        "External (FAR0",
        "PowerResource",
        "ThermalZone",
        "IndexField",
        "BankField",
        "Alias",
        "Event",
        "Method (TEST, 2, Serialized, 3)",
        "CopyObject",
        "FindSetLeftBit",
        "FromBCD",
        "CondRefOf",
        "Wait (DONE, 0x64)",
        "Fatal",
        "Mid",
        "ToString",
        "WriteAsZeros",
    ):
        assert word in source
    # The compiler itself writes no External.
    assert runner.assemble_loosely(source)[36:] == TABLE[36 + len(EXTERNAL) :]


def _kinds(nodes):
    for node in nodes:
        yield node.kind
        yield from _kinds(node.children)


def test_our_reader_reads_every_operator():
    """No operator of the builder is unknown to the reader, and the method ends where it ended."""
    _, scope = aml.disassemble(TABLE[36:])
    assert [node.kind for node in scope.children] == [
        "Event", "Mutex", "Name", "Alias", "OperationRegion", "Field", "IndexField", "BankField",
        "PowerResource", "ThermalZone", "Method",
    ]  # fmt: skip
    kinds = [node.kind for node in scope.child("TEST").children[1:]]
    assert len(kinds) == len(STATEMENTS)
    assert {"CopyObject", "Divide", "Fatal", "BreakPoint", "CreateField", "Signal"} <= set(kinds)
    assert {"Timer", "Debug", "Revision", "Continue", "Break", "Noop", "Nothing"} <= {
        *_kinds([scope]),
        "Nothing",
    }


U64 = st.integers(0, aml.ONES)


def _bcd(value):
    return int(str(value), 16)


MODEL = {
    aml.Unary.NOT: lambda value: ~value & aml.ONES,
    aml.Unary.FIND_SET_LEFT_BIT: lambda value: value.bit_length(),
    aml.Unary.FIND_SET_RIGHT_BIT: lambda value: (value & -value).bit_length(),
    aml.Unary.TO_BCD: lambda value: _bcd(value % 10**16),
    aml.Unary.TO_INTEGER: lambda value: value,
    aml.Unary.OBJECT_TYPE: lambda _: 1,
    aml.Unary.INCREMENT: lambda value: (value + 1) & aml.ONES,
    aml.Unary.DECREMENT: lambda value: (value - 1) & aml.ONES,
}


@settings(max_examples=30 if LONG else 3, deadline=None)
@given(values=st.lists(U64, min_size=3, max_size=8))
def test_acpica_computes_what_was_meant(evaluate, values):
    """Each operator on each number in the interpreter that Linux has, against plain Python."""
    cases = [(op, value % 10**16 if op is aml.Unary.TO_BCD else value) for op in MODEL for value in values]
    methods = [
        aml.method(f"M{n:03X}", 0, aml.store(value, L0), aml.return_(aml.unary(op, L0)))
        for n, (op, value) in enumerate(cases)
    ]
    table = sdt(b"DSDT", 2, b"".join(method.code for method in methods))
    expected = [MODEL[op](value) for op, value in cases]
    assert evaluate(table, [f"M{n:03X}" for n in range(len(cases))]) == expected


def test_acpica_runs_the_others(evaluate):
    """BCD back, division, parts of buffers, bit fields, references, break and continue."""
    pick = aml.index(aml.mid(b"abcdef", 2, 3), 1, L1)
    loop = (
        aml.while_(
            1,
            aml.unary(aml.Unary.INCREMENT, L0),
            aml.if_(aml.arith(aml.Arith.AND, L0, 1), aml.CONTINUE),
            aml.if_(aml.compare(aml.Compare.GREATER, L0, 9), aml.BREAK),
            aml.arith(aml.Arith.ADD, L1, L0, L1),
        ),
        aml.return_(L1),
    )
    bits = (
        aml.store(b"\xf0\x0f", L0),
        aml.create_bits_field(L0, 6, 4, "BITS"),
        aml.create_bit_field(L0, 3, "BITT"),
        aml.store(1, aml.path("BITT")),
        aml.return_(
            aml.arith(aml.Arith.ADD, aml.path("BITS"), aml.unary(aml.Unary.DEREF_OF, aml.index(L0, 0)))
        ),
    )
    methods = (
        aml.method("FBCD", 0, aml.return_(aml.unary(aml.Unary.FROM_BCD, 0x1234))),
        aml.method(
            "DIVI",
            0,
            aml.divide(100, 7, L0, L1),
            aml.return_(aml.arith(aml.Arith.ADD, L1, aml.arith(aml.Arith.MULTIPLY, L0, 1000))),
        ),
        aml.method("PICK", 0, aml.store(pick, L2), aml.return_(aml.unary(aml.Unary.DEREF_OF, L2))),
        aml.method("LOOP", 0, aml.store(0, L0), aml.store(0, L1), *loop),
        aml.method("BITM", 0, *bits, serialized=True),
        aml.method("WAIT", 0, aml.signal("EVNT"), aml.return_(aml.wait("EVNT", 1))),
    )
    table = sdt(b"DSDT", 2, aml.event("EVNT").code + b"".join(method.code for method in methods))
    expected = [1234, 14 + 2000, ord("d"), 2 + 4 + 6 + 8, 0b1111 + 0xF8, 0]
    assert evaluate(table, ["FBCD", "DIVI", "PICK", "LOOP", "BITM", "WAIT"]) == expected


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: aml.unary(aml.Unary.INCREMENT, L0, L1), "target of INCREMENT"),
        (lambda: aml.unary(aml.Unary.COPY_OBJECT, L0), "target of COPY_OBJECT"),
        (lambda: aml.fatal(256, 0, 0), "fatal error"),
        (lambda: aml.external("ABCD", 17), "external object"),
        (lambda: aml.external("ABCD", 8, 8), "external object"),
        (lambda: aml.power_resource("P", 256, 0), "power resource"),
        (lambda: aml.method("M", 0, sync_level=1), "sync level"),
        (lambda: aml.method("M", 0, serialized=True, sync_level=16), "sync level"),
        (lambda: aml.index_field("I", "D", aml.FieldAccess.BYTE, [("A.B", 1)]), "field unit"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    """The message names field, value and limit."""
    with pytest.raises(EncodingError, match=message):
        build()
