"""The rest of AML's operators: one operand, synchronisation, power, and named objects beyond devices."""

from collections.abc import Sequence
from enum import Enum

from acpi_tables._errors import EncodingError
from acpi_tables._methods import NULL_TARGET, FieldAccess, FieldUpdate, field_flags, field_units
from acpi_tables._terms import Aml, Term, encode, framed, join, path

__all__ = (
    "BREAK",
    "BREAK_POINT",
    "CONTINUE",
    "DEBUG",
    "NOOP",
    "REVISION",
    "TIMER",
    "Unary",
    "alias",
    "bank_field",
    "create_bit_field",
    "create_bits_field",
    "divide",
    "event",
    "external",
    "fatal",
    "index_field",
    "mid",
    "power_resource",
    "reset",
    "signal",
    "sleep",
    "stall",
    "thermal_zone",
    "to_string",
    "unary",
    "wait",
)

BREAK = Aml(b"\xa5")
"""Leave the innermost loop."""
CONTINUE = Aml(b"\x9f")
"""Go on with the innermost loop's next round."""
NOOP = Aml(b"\xa3")
"""Do nothing."""
BREAK_POINT = Aml(b"\xcc")
"""Stop in the debugger, if there is one."""
DEBUG = Aml(b"\x5b\x31")
"""The debug object: what is stored there is logged."""
REVISION = Aml(b"\x5b\x30")
"""The revision of the interpreter."""
TIMER = Aml(b"\x5b\x33")
"""A counter of 100 ns."""


class Unary(Enum):
    """Operators of one operand: opcode, and whether a target follows (ACPI 6.5 §20.2.5.4)."""

    INCREMENT = (b"\x75", False)
    DECREMENT = (b"\x76", False)
    REF_OF = (b"\x71", False)
    DEREF_OF = (b"\x83", False)
    OBJECT_TYPE = (b"\x8e", False)
    NOT = (b"\x80", True)
    FIND_SET_LEFT_BIT = (b"\x81", True)
    FIND_SET_RIGHT_BIT = (b"\x82", True)
    FROM_BCD = (b"\x5b\x28", True)
    TO_BCD = (b"\x5b\x29", True)
    TO_BUFFER = (b"\x96", True)
    TO_DECIMAL_STRING = (b"\x97", True)
    TO_HEX_STRING = (b"\x98", True)
    TO_INTEGER = (b"\x99", True)
    COPY_OBJECT = (b"\x9d", True)
    COND_REF_OF = (b"\x5b\x12", True)


def unary(operation: Unary, operand: Term, target: Aml | None = None) -> Aml:
    """Build an expression of one operand.

    Args:
        operation: which.
        operand: a term; an object's name or a variable where the operator changes it or refers to it.
        target: where the result goes too; by default nowhere.

    Returns:
        The expression.

    Raises:
        EncodingError: a target for an operator that has none, none for CopyObject, or an operand that
            cannot be encoded.
    """
    opcode, targeted = operation.value
    if (target is not None and not targeted) or (target is None and operation is Unary.COPY_OBJECT):
        raise EncodingError(
            f"target of {operation.name}", target, "a target for CopyObject and those that take one"
        )
    tail = (NULL_TARGET if target is None else target).code if targeted else b""
    return Aml(opcode + encode(operand) + tail)


def divide(left: Term, right: Term, remainder: Aml = NULL_TARGET, quotient: Aml = NULL_TARGET) -> Aml:
    """Build ``Divide(left, right, remainder, quotient)``, whose value is the quotient."""
    return Aml(b"\x78" + encode(left) + encode(right) + remainder.code + quotient.code)


def mid(source: Term, start: Term, length: Term, target: Aml = NULL_TARGET) -> Aml:
    """Build ``Mid(source, start, length, target)``: a part of a string or a buffer."""
    return Aml(b"\x9e" + encode(source) + encode(start) + encode(length) + target.code)


def to_string(source: Term, length: Term, target: Aml = NULL_TARGET) -> Aml:
    """Build ``ToString(source, length, target)``: text from a buffer, up to a NUL."""
    return Aml(b"\x9c" + encode(source) + encode(length) + target.code)


def event(where: str) -> Aml:
    """Build ``Event(where)``."""
    return Aml(b"\x5b\x02" + path(where).code)


def signal(where: str) -> Aml:
    """Build ``Signal(where)``: one waiter of the event goes on."""
    return Aml(b"\x5b\x24" + path(where).code)


def reset(where: str) -> Aml:
    """Build ``Reset(where)``: signals of the event that nobody waited for are forgotten."""
    return Aml(b"\x5b\x26" + path(where).code)


def wait(where: str, timeout: Term = 0xFFFF) -> Aml:
    """Build ``Wait(where, timeout)`` in ms, 0xffff (the default) for ever; true when it timed out."""
    return Aml(b"\x5b\x25" + path(where).code + encode(timeout))


def sleep(milliseconds: Term) -> Aml:
    """Build ``Sleep(milliseconds)``, which lets others run."""
    return Aml(b"\x5b\x22" + encode(milliseconds))


def stall(microseconds: Term) -> Aml:
    """Build ``Stall(microseconds)``, which does not; at most 100."""
    return Aml(b"\x5b\x21" + encode(microseconds))


def fatal(kind: int, code: int, argument: Term) -> Aml:
    """Build ``Fatal(kind, code, argument)``; EncodingError when kind leaves 8 or code 32 bits."""
    if not 0 <= kind <= 0xFF or not 0 <= code <= 0xFFFF_FFFF:
        raise EncodingError("fatal error", (kind, code), "a type of 8 bits and a code of 32")
    return Aml(b"\x5b\x32" + bytes((kind,)) + code.to_bytes(4, "little") + encode(argument))


def alias(source: str, where: str) -> Aml:
    """Build ``Alias(source, where)``: another name for an object."""
    return Aml(b"\x06" + path(source).code + path(where).code)


def external(where: str, kind: int = 0, arguments: int = 0) -> Aml:
    """Build ``External(where, kind, arguments)``: an object of another table.

    Args:
        where: its name.
        kind: ACPI object type, 0 .. 16: 8 is a method, 0 unknown.
        arguments: of a method, 0 .. 7.

    Returns:
        DefExternal.

    Raises:
        EncodingError: a bad name, type or count.

    Source: ACPI 6.5 §20.2.5.1; the types are those of ObjectType, §19.6.101.
    """
    if not 0 <= kind <= 16 or not 0 <= arguments <= 7:
        raise EncodingError("external object", (kind, arguments), "a type of 0 to 16 with 0 to 7 arguments")
    return Aml(b"\x15" + path(where).code + bytes((kind, arguments)))


def power_resource(where: str, level: int, order: int, *content: Aml) -> Aml:
    """Build ``PowerResource(where, level, order) {content}``; EncodingError outside 8 and 16 bits."""
    if not 0 <= level <= 0xFF or not 0 <= order <= 0xFFFF:
        raise EncodingError("power resource", (level, order), "a level of 8 bits and an order of 16")
    return framed(
        b"\x5b\x84", path(where).code + bytes((level,)) + order.to_bytes(2, "little") + join(content)
    )


def thermal_zone(where: str, *content: Aml) -> Aml:
    """Build ``ThermalZone(where) {content}``."""
    return framed(b"\x5b\x85", path(where).code + join(content))


def index_field(
    index: str,
    data: str,
    access: FieldAccess,
    units: Sequence[tuple[str | None, int]],
    *,
    lock: bool = False,
    update: FieldUpdate = FieldUpdate.PRESERVE,
) -> Aml:
    """Build ``IndexField(index, data, access, lock, update) {units}``: registers behind an index register.

    Args:
        index: name of the field that selects.
        data: name of the field that is then read or written.
        access: width of each access.
        units: (name, bits) in order; the name None skips that many bits.
        lock: take the global lock around each access.
        update: what the other bits of a written unit become.

    Returns:
        DefIndexField.

    Raises:
        EncodingError: a bad name, or a length outside PkgLength.

    Source: ACPI 6.5 §20.2.5.2.
    """
    names = path(index).code + path(data).code
    return framed(b"\x5b\x86", names + field_flags(access, lock, update) + field_units(units))


def bank_field(
    region: str,
    bank: str,
    value: Term,
    access: FieldAccess,
    units: Sequence[tuple[str | None, int]],
    *,
    lock: bool = False,
    update: FieldUpdate = FieldUpdate.PRESERVE,
) -> Aml:
    """Build ``BankField(region, bank, value, access, lock, update) {units}``: registers of one bank.

    Args:
        region: name of the operation region.
        bank: name of the field that selects the bank.
        value: what is written there first.
        access: width of each access.
        units: (name, bits) in order; the name None skips that many bits.
        lock: take the global lock around each access.
        update: what the other bits of a written unit become.

    Returns:
        DefBankField.

    Raises:
        EncodingError: a bad name, or a length outside PkgLength.

    Source: ACPI 6.5 §20.2.5.2.
    """
    names = path(region).code + path(bank).code + encode(value)
    return framed(b"\x5b\x87", names + field_flags(access, lock, update) + field_units(units))


def create_bit_field(source: Term, bit: Term, where: str) -> Aml:
    """Build ``CreateBitField(source, bit, where)``."""
    return Aml(b"\x8d" + encode(source) + encode(bit) + path(where).code)


def create_bits_field(source: Term, bit: Term, count: Term, where: str) -> Aml:
    """Build ``CreateField(source, bit, count, where)``: any number of bits from any bit on."""
    return Aml(b"\x5b\x13" + encode(source) + encode(bit) + encode(count) + path(where).code)
