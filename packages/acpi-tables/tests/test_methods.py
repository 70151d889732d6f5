"""Methods and expressions, disassembled and assembled again by iasl."""

import operator

import pytest
from acpi_tables import EncodingError, aml, sdt
from hypothesis import given, settings
from hypothesis import strategies as st
from vmm_testhost.pytest_plugin import LONG


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


def _bool(compare):
    """AML truth is all ones."""
    return lambda left, right: aml.ONES if compare(left, right) else 0


MODEL = {
    aml.Arith.ADD: operator.add,
    aml.Arith.SUBTRACT: operator.sub,
    aml.Arith.MULTIPLY: operator.mul,
    aml.Arith.SHIFT_LEFT: lambda left, right: left << min(right, 64),
    aml.Arith.SHIFT_RIGHT: lambda left, right: left >> min(right, 64),
    aml.Arith.AND: operator.and_,
    aml.Arith.NAND: lambda left, right: ~(left & right),
    aml.Arith.OR: operator.or_,
    aml.Arith.NOR: lambda left, right: ~(left | right),
    aml.Arith.XOR: operator.xor,
    aml.Arith.MOD: lambda left, right: left % right if right else None,
    aml.Compare.AND: _bool(lambda left, right: bool(left) and bool(right)),
    aml.Compare.OR: _bool(lambda left, right: bool(left) or bool(right)),
    aml.Compare.EQUAL: _bool(operator.eq),
    aml.Compare.GREATER: _bool(operator.gt),
    aml.Compare.LESS: _bool(operator.lt),
    aml.Compare.NOT_EQUAL: _bool(operator.ne),
    aml.Compare.LESS_EQUAL: _bool(operator.le),
    aml.Compare.GREATER_EQUAL: _bool(operator.ge),
}
U64 = st.one_of(
    st.integers(0, 70), st.integers(0, aml.ONES), st.sampled_from([aml.ONES, aml.ONES - 1, 1 << 63])
)
TREES = st.recursive(U64, lambda inner: st.tuples(st.sampled_from(list(MODEL)), inner, inner), max_leaves=12)


def _value(tree):
    """What the expression is worth; None when a division by zero ends the method."""
    if isinstance(tree, int):
        return tree
    operation, left, right = tree[0], _value(tree[1]), _value(tree[2])
    result = None if None in (left, right) else MODEL[operation](left, right)
    return None if result is None else result & aml.ONES


def _code(tree):
    if isinstance(tree, int):
        return tree
    operation, left, right = tree[0], _code(tree[1]), _code(tree[2])
    build = aml.arith if isinstance(operation, aml.Arith) else aml.compare
    return build(operation, left, right)


@settings(max_examples=40 if LONG else 5, deadline=None)
@given(trees=st.lists(TREES, min_size=1, max_size=30))
def test_acpica_computes_what_was_meant(evaluate, trees):
    """Thirty random expressions a process, each in a method of its own, against plain Python."""
    methods = [aml.method(f"M{n:03X}", 0, aml.return_(_code(tree))) for n, tree in enumerate(trees)]
    table = sdt(b"DSDT", 2, b"".join(method.code for method in methods))
    expected = [_value(tree) for tree in trees]
    assert evaluate(table, [f"M{n:03X}" for n in range(len(trees))]) == expected


def test_acpica_runs_loops_branches_and_buffers(evaluate):
    """A sum of odd numbers, XOR on even ones; a field over a buffer; an element of a package; a call."""
    count, total = aml.local(0), aml.local(1)
    loop = (
        aml.store(0, count),
        aml.store(0, total),
        aml.while_(
            aml.compare(aml.Compare.LESS, count, aml.arg(0)),
            aml.arith(aml.Arith.ADD, count, 1, count),
            aml.if_(aml.arith(aml.Arith.AND, count, 1), aml.arith(aml.Arith.ADD, total, count, total)),
            aml.else_(aml.arith(aml.Arith.XOR, total, 0xFF, total)),
        ),
        aml.return_(total),
    )
    view = (
        aml.store(bytes(range(16)), count),
        aml.create_field(count, 4, "WORD", width=2),
        aml.store(0xABCD, aml.path("WORD")),
        aml.store(aml.index([10, 20, aml.path("WORD")], 1), total),
        aml.return_(aml.arith(aml.Arith.ADD, aml.path("WORD"), aml.size_of(count))),
    )
    nested = aml.method("CALL", 0, aml.return_(aml.logic_not(aml.call("LOOP", 0))))
    methods = (aml.method("LOOP", 1, *loop), aml.method("VIEW", 0, *view, serialized=True), nested)
    table = sdt(b"DSDT", 2, b"".join(method.code for method in methods))
    total = 0
    for number in range(1, 8):
        total = total + number if number % 2 else total ^ 0xFF
    assert evaluate(table, ["LOOP 7", "VIEW", "CALL"]) == [total, 0xABCD + 16, aml.ONES]
