"""The reader of all AML: what iasl compiles, calls, names, hostile bytes."""

import contextlib

import pytest
from acpi_tables import AmlParseError, aml
from acpi_tables._aml_code import _OPERATIONS
from hypothesis import given
from hypothesis import strategies as st

SOURCE = r"""
DefinitionBlock ("", "DSDT", 2, "TEST", "TEST", 1)
{
    External (\_SB.FAR, MethodObj)
    Name (PKG0, Package () { 1, "two", Buffer () { 3 }, Package () { \_SB.DEV0, "x" }, Zero, Ones })
    Method (ADD2, 2, NotSerialized) { Return (Arg0 + Arg1) }
    Scope (\_SB)
    {
        Device (DEV0)
        {
            Name (_HID, EisaId ("PNP0A03"))
            OperationRegion (OPR0, SystemMemory, 0xFED00000, 0x100)
            Field (OPR0, DWordAcc, Lock, Preserve)
            {
                FLD0, 32, Offset (0x10), FLD1, 1, , 7, AccessAs (ByteAcc, 0), FLD2, 8
            }
            Method (ADD2, 3, Serialized) { Return (Arg0 * Arg1 + Arg2) }
            Method (CALL, 1, Serialized)
            {
                Local0 = ADD2 (1, \ADD2 (2, 3), ^^DEV0.ADD2 (4, 5, 6))
                Name (BUF0, Buffer (Arg0) { 1, 2 })
                CreateDWordField (BUF0, 0, DWF0)
                Switch (ToInteger (Arg0))
                {
                    Case (1) { Local1 = "one" }
                    Case (Package () { 2, 3 }) { Local1 = Concatenate ("a", "b") }
                    Default { Local1 = DerefOf (PKG0 [1]) }
                }
                While (Local0 < 10)
                {
                    Local0++
                    If (Local0 == 5) { Break } ElseIf (Local0 == 6) { Continue } Else { Noop }
                }
                Local2 = Match (PKG0, MEQ, 1, MTR, 0, 0)
                Local3 = LoadTable ("OEM1", "", "", "", "", Package () { 0 })
                FLD1 = !FLD0 && (FLD2 || ~Local0 != 3)
                Notify (DEV0, 0x80)
                Return (RefOf (FLD0))
            }
        }
        Processor (CPU0, 0, 0x410, 6) { }
    }
}
"""


def compiled(iasl, source):
    """The AML that iasl makes of a source, header apart."""
    return iasl().assemble_loosely(source)[36:]


def encoded(node):
    """A node as AML again, by the reader's own table: only what was really read can come out."""
    if node.kind == "Integer":
        return aml.encode(node.value)
    if node.kind == "String":
        return aml.encode(node.value)
    if node.kind == "Path":
        return name(node.value)
    if node.kind == "Nothing":
        return b"\0"
    if node.kind in ("Local", "Arg"):
        return bytes(((0x60 if node.kind == "Local" else 0x68) + node.value,))
    if node.kind == "Call":
        return name(node.name) + b"".join(map(encoded, node.children))
    if node.kind == "Buffer":
        return package(b"\x11", encoded(node.children[0]) + node.value)
    if node.kind == "Package":
        return package(b"\x12", bytes((node.children[0].value,)) + b"".join(map(encoded, node.children[1:])))
    if node.kind == "Unit":
        return (b"\0" if node.name is None else node.name.encode()) + aml.encode_pkg_length(node.value)
    if node.kind == "AccessAs":
        return b"\x01" + node.value.to_bytes(2, "little")
    return operation(node)


def operation(node):
    """A node of the table: operands by its pattern."""
    opcode, pattern = next((code, p) for code, (kind, p) in _OPERATIONS.items() if kind == node.kind)
    left = list(node.children)
    names = [node.name] if node.name is not None else []
    body = b""
    for letter in pattern.strip("P"):
        if letter == "n":
            body += name(names.pop() if names else left.pop(0).value)
        elif letter in "bwd":
            body += left.pop(0).value.to_bytes({"b": 1, "w": 2, "d": 4}[letter], "little")
        elif letter in "ts":
            body += encoded(left.pop(0))
        else:
            body += b"".join(map(encoded, left))
    lead = bytes((opcode,)) if opcode < 0x100 else opcode.to_bytes(2, "big")
    return package(lead, body) if "P" in pattern else lead + body


def package(lead, body):
    """Opcode, length, body."""
    width = next(n for n, limit in enumerate((0x3F, 0xFFF, 0xF_FFFF), 1) if len(body) + n <= limit)
    return lead + aml.encode_pkg_length(len(body) + width) + body


def name(text):
    """A NameString of a path as the reader gives it."""
    return aml.path(text).code


def test_what_iasl_compiles_is_read_whole(iasl):
    """Every byte of the compiler's output is accounted for: encoded again, the tree is the same AML."""
    code = compiled(iasl, SOURCE)
    nodes = aml.disassemble(code)
    assert b"".join(map(encoded, nodes)) == code


def test_calls_take_the_arguments_of_the_method_in_scope(iasl):
    """DEV0's own ADD2 has three arguments, the root's two; a name in a package is no call."""
    nodes = aml.disassemble(compiled(iasl, SOURCE))
    scope = next(node for node in nodes if node.kind == "Scope")
    statements = scope.child("DEV0").child("CALL").children
    store = next(node for node in statements if node.kind == "Store")
    (call, target) = store.children
    assert (store.kind, call.kind, call.name, target.kind) == ("Store", "Call", "ADD2", "Local")
    assert [child.kind for child in call.children] == ["Integer", "Call", "Call"]
    assert [(child.name, len(child.children)) for child in call.children[1:]] == [
        ("\\ADD2", 2),
        ("^^DEV0.ADD2", 3),
    ]


def test_methods_declared_elsewhere():
    """Known by the caller; without that the arguments stand as statements of their own."""
    code = aml.call("\\_SB.INIT", 1, 2).code
    assert [node.kind for node in aml.disassemble(code)] == ["Path", "Integer", "Integer"]
    (call,) = aml.disassemble(code, {"\\_SB_.INIT": 2})
    assert [child.value for child in call.children] == [1, 2]
    with pytest.raises(AmlParseError, match="with 8 arguments"):
        aml.disassemble(code, {"\\_SB_.INIT": 8})


@given(st.binary(max_size=300))
def test_random_bytes_parse_or_raise_the_documented_error(code):
    """No other exception, no endless loop."""
    with contextlib.suppress(AmlParseError):
        assert isinstance(aml.disassemble(code), tuple)


BODY = (
    aml.while_(1, aml.store(aml.call("ADD2", aml.local(0), aml.arg(1)), aml.local(1)), aml.BREAK),
    aml.return_([1, "x", b"yz", aml.path("ADD2")]),
)
SAMPLE = aml.method("ADD2", 2, aml.return_(0)).code + aml.device("DEV0", aml.method("TEST", 2, *BODY)).code


@given(
    st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(SAMPLE)),
)
def test_damaged_code_parses_or_raises_the_documented_error(changes, cut):
    """Methods with a few bytes changed or cut off."""
    code = bytearray(SAMPLE)
    for at, value in changes:
        code[at] = value
    with contextlib.suppress(AmlParseError):
        assert isinstance(aml.disassemble(bytes(code[:cut])), tuple)


def test_deep_nesting_is_bounded():
    """Recursion of the reader does not follow the guest down for ever."""
    term = aml.NOOP
    for _ in range(300):
        term = aml.if_(1, term)
    with pytest.raises(AmlParseError, match="nested deeper than 96"):
        aml.disassemble(term.code)
    with pytest.raises(AmlParseError, match="nested deeper than 96"):
        aml.disassemble(b"\x92" * 5000 + b"\x00")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\x70\x60", "0x1 bytes wanted, 0x0 left"),
        (b"\xa0\x0a\x01", "leaves the"),
        (b"\xa0\x00", "leaves the"),
        (b"\x5b\x77", "opcode 0x5b77 is unknown"),
        (b"\x11\x04\x01ab", "room for 0x1, but 0x2 are there"),
        (b"\x12\x04\x01\x00\x00", "room for 0x1, but 0x2 are there"),
        (b"\x5b\x81\x0aABCD\x00abcd", "name segment"),
    ],
)
def test_contradictions_are_named(code, message):
    """The error says what is wrong."""
    with pytest.raises(AmlParseError, match=message):
        aml.disassemble(code)
