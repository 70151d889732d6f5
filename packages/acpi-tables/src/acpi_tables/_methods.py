"""AML methods, statements and expressions (ACPI 6.5 §20.2.5.2 – §20.2.6)."""

import struct
from collections.abc import Sequence
from enum import Enum, IntEnum

from acpi_tables._errors import EncodingError
from acpi_tables._terms import Aml, Term, encode, encode_pkg_length, framed, join, path

__all__ = (
    "NULL_TARGET",
    "Arith",
    "Compare",
    "FieldAccess",
    "FieldUpdate",
    "Region",
    "acquire",
    "arg",
    "arith",
    "call",
    "compare",
    "create_field",
    "else_",
    "field",
    "field_flags",
    "field_units",
    "if_",
    "index",
    "local",
    "logic_not",
    "method",
    "mutex",
    "notify",
    "op_region",
    "release",
    "return_",
    "size_of",
    "store",
    "while_",
)

NULL_TARGET = Aml(b"\0")
"""The target of an operator whose result is only returned (ACPI 6.5 §20.2.5.4)."""


class Arith(IntEnum):
    """Two operands and a target (ACPI 6.5 §20.2.5.4)."""

    ADD = 0x72
    CONCAT = 0x73
    SUBTRACT = 0x74
    MULTIPLY = 0x77
    SHIFT_LEFT = 0x79
    SHIFT_RIGHT = 0x7A
    AND = 0x7B
    NAND = 0x7C
    OR = 0x7D
    NOR = 0x7E
    XOR = 0x7F
    CONCAT_RES = 0x84
    MOD = 0x85


class Compare(Enum):
    """Two operands, result Ones or Zero (ACPI 6.5 §20.2.5.4)."""

    AND = b"\x90"
    OR = b"\x91"
    EQUAL = b"\x93"
    GREATER = b"\x94"
    LESS = b"\x95"
    NOT_EQUAL = b"\x92\x93"
    LESS_EQUAL = b"\x92\x94"
    GREATER_EQUAL = b"\x92\x95"


class Region(IntEnum):
    """Address space of an operation region (ACPI 6.5 §20.2.5.2)."""

    SYSTEM_MEMORY = 0
    SYSTEM_IO = 1
    PCI_CONFIG = 2
    EMBEDDED_CONTROL = 3
    SMBUS = 4
    SYSTEM_CMOS = 5
    PCI_BAR_TARGET = 6
    IPMI = 7
    GENERAL_PURPOSE_IO = 8
    GENERIC_SERIAL_BUS = 9
    PCC = 10


class FieldAccess(IntEnum):
    """Access width of a field list (ACPI 6.5 §20.2.5.2)."""

    ANY = 0
    BYTE = 1
    WORD = 2
    DWORD = 3
    QWORD = 4
    BUFFER = 5


class FieldUpdate(IntEnum):
    """What a write makes of the other bits of its unit (ACPI 6.5 §20.2.5.2)."""

    PRESERVE = 0
    WRITE_AS_ONES = 1
    WRITE_AS_ZEROS = 2


_CREATE_FIELD_OPS = {1: 0x8C, 2: 0x8B, 4: 0x8A, 8: 0x8F}


def _numbered(what: str, number: int, limit: int, base: int) -> Aml:
    if not 0 <= number <= limit:
        raise EncodingError(what, number, f"0 to {limit}")
    return Aml(bytes((base + number,)))


def arg(number: int) -> Aml:
    """Name argument 0 .. 6 of the method; EncodingError for another number."""
    return _numbered("method argument", number, 6, 0x68)


def local(number: int) -> Aml:
    """Name local variable 0 .. 7 of the method; EncodingError for another number."""
    return _numbered("method local", number, 7, 0x60)


def method(where: str, arguments: int, *body: Term, serialized: bool = False, sync_level: int = 0) -> Aml:
    """Build ``Method(where, arguments) {body}``.

    Args:
        where: name of the method.
        arguments: how many it takes, 0 .. 7.
        body: statements.
        serialized: only one thread at a time (needed when the body creates named objects).
        sync_level: of a serialized method, 0 .. 15.

    Returns:
        DefMethod.

    Raises:
        EncodingError: a bad name, count or statement.

    Source: ACPI 6.5 §20.2.5.2.
    """
    if not 0 <= arguments <= 7:
        raise EncodingError("method argument count", arguments, "0 to 7")
    if not 0 <= sync_level <= (15 if serialized else 0):
        raise EncodingError("method sync level", sync_level, "0 to 15, and 0 unless serialized")
    flags = bytes((arguments | serialized << 3 | sync_level << 4,))
    return framed(b"\x14", path(where).code + flags + join(body))


def call(where: str, *arguments: Term) -> Aml:
    """Call a method; the caller sees to it that the count matches, for AML itself does not say it."""
    return path(where) + Aml(join(arguments))


def return_(value: Term) -> Aml:
    """Build ``Return(value)``."""
    return Aml(b"\xa4" + encode(value))


def if_(condition: Term, *body: Term) -> Aml:
    """Build ``If(condition) {body}``; an ``else_`` must follow it at once."""
    return framed(b"\xa0", encode(condition) + join(body))


def else_(*body: Term) -> Aml:
    """Build ``Else {body}``, right after an ``if_``."""
    return framed(b"\xa1", join(body))


def while_(condition: Term, *body: Term) -> Aml:
    """Build ``While(condition) {body}``."""
    return framed(b"\xa2", encode(condition) + join(body))


def store(value: Term, target: Aml) -> Aml:
    """Build ``target = value``."""
    return Aml(b"\x70" + encode(value) + target.code)


def notify(where: str, value: Term) -> Aml:
    """Build ``Notify(where, value)``."""
    return Aml(b"\x86" + path(where).code + encode(value))


def arith(operation: Arith, left: Term, right: Term, target: Aml = NULL_TARGET) -> Aml:
    """Build a two-operand expression; the result also goes to ``target``, by default nowhere."""
    return Aml(bytes((operation,)) + encode(left) + encode(right) + target.code)


def compare(operation: Compare, left: Term, right: Term) -> Aml:
    """Build a comparison or a logical AND / OR."""
    return Aml(operation.value + encode(left) + encode(right))


def logic_not(value: Term) -> Aml:
    """Build ``!value``."""
    return Aml(b"\x92" + encode(value))


def index(source: Term, position: Term, target: Aml = NULL_TARGET) -> Aml:
    """Build ``Index(source, position)``, a reference to an element."""
    return Aml(b"\x88" + encode(source) + encode(position) + target.code)


def size_of(source: Aml) -> Aml:
    """Build ``SizeOf(source)``."""
    return Aml(b"\x87" + source.code)


def mutex(where: str, sync_level: int = 0) -> Aml:
    """Build ``Mutex(where, sync_level)``; EncodingError when the level is not 0 .. 15."""
    if not 0 <= sync_level <= 15:
        raise EncodingError("mutex sync level", sync_level, "0 to 15")
    return Aml(b"\x5b\x01" + path(where).code + bytes((sync_level,)))


def acquire(where: str, timeout: int = 0xFFFF) -> Aml:
    """Build ``Acquire(where, timeout)``: 0 .. 0xffff ms, where 0xffff (the default) waits for ever."""
    if not 0 <= timeout <= 0xFFFF:
        raise EncodingError("acquire timeout", timeout, "0 to 0xffff ms")
    return Aml(b"\x5b\x23" + path(where).code + struct.pack("<H", timeout))


def release(where: str) -> Aml:
    """Build ``Release(where)``."""
    return Aml(b"\x5b\x27" + path(where).code)


def op_region(where: str, space: Region, base: Term, size: Term) -> Aml:
    """Build ``OperationRegion(where, space, base, size)``."""
    return Aml(b"\x5b\x80" + path(where).code + bytes((space,)) + encode(base) + encode(size))


def field(
    region: str,
    access: FieldAccess,
    units: Sequence[tuple[str | None, int]],
    *,
    lock: bool = False,
    update: FieldUpdate = FieldUpdate.PRESERVE,
) -> Aml:
    """Build ``Field(region, access, Lock | NoLock, update) {units}``.

    Args:
        region: name of an operation region.
        access: width of each access.
        units: (name, bits) in order; the name None skips that many bits.
        lock: take the global lock around each access.
        update: what the other bits of a written unit become.

    Returns:
        DefField.

    Raises:
        EncodingError: a bad name, or a length outside PkgLength.

    Source: ACPI 6.5 §20.2.5.2.
    """
    return framed(b"\x5b\x81", path(region).code + field_flags(access, lock, update) + field_units(units))


def field_flags(access: FieldAccess, lock: bool, update: FieldUpdate) -> bytes:
    """Encode the flags of a field list."""
    return bytes((access | lock << 4 | update << 5,))


def field_units(units: Sequence[tuple[str | None, int]]) -> bytes:
    """Encode the units of a field list; EncodingError for a bad name or length."""
    return b"".join(_unit(*unit) for unit in units)


def _unit(where: str | None, bits: int) -> bytes:
    segment = b"\0" if where is None else path(where).code
    if len(segment) not in (1, 4):
        raise EncodingError("field unit", where, "one segment, without dots or prefix")
    return segment + encode_pkg_length(bits)


def create_field(source: Term, offset: Term, where: str, *, width: int) -> Aml:
    """Build ``CreateByteField`` … ``CreateQWordField(source, offset, where)``.

    Args:
        source: a buffer.
        offset: byte offset into it.
        where: name of the new field.
        width: bytes: 1, 2, 4 or 8.

    Returns:
        DefCreate…Field.

    Raises:
        EncodingError: another width, or a bad name.

    Source: ACPI 6.5 §20.2.5.2.
    """
    if width not in _CREATE_FIELD_OPS:
        raise EncodingError("field width", width, "1, 2, 4 or 8 bytes")
    return Aml(bytes((_CREATE_FIELD_OPS[width],)) + encode(source) + encode(offset) + path(where).code)
