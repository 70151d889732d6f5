"""Reader for the declarative part of AML: enough to take apart what static tables say about devices.

Method bodies stay bytes; executable code at the top level is refused. The input is hostile: depth, lengths
and counts are bounded by the bytes that are there.
"""

from collections.abc import Callable

import attrs

from acpi_tables._errors import AmlParseError, EncodingError
from acpi_tables._terms import ONES, decode_pkg_length

__all__ = ("AmlNode", "Cursor", "parse", "starts_name")

_INTEGER_WIDTHS = {0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8}
_CONSTANTS = {0x00: 0, 0x01: 1, 0xFF: ONES}


@attrs.frozen
class AmlNode:
    """One decoded object.

    Attributes:
        kind: of `parse` "Integer", "String", "Buffer", "Package", "Path", "Name", "Scope", "Device",
            "Method", "Mutex", "OperationRegion" or "Field"; of `disassemble` any ASL operator.
        name: path of a named object, else None; padding underscores are kept.
        value: an Integer's int, a String's or Path's str, a Buffer's or Method body's bytes, else None.
        children: what is inside, in order.
    """

    kind: str
    name: str | None = None
    value: int | str | bytes | None = None
    children: tuple["AmlNode", ...] = ()

    def child(self, name: str) -> "AmlNode":
        """Return the direct child called ``name``; KeyError when there is none."""
        for node in self.children:
            if node.name == name:
                return node
        raise KeyError(name)


def parse(code: bytes) -> tuple[AmlNode, ...]:
    """Decode a list of objects, such as the body of a DSDT after its header.

    Args:
        code: AML bytes.

    Returns:
        The objects in order.

    Raises:
        AmlParseError: truncated or contradictory bytes, nesting deeper than 32, or an opcode outside the
            declarative subset (see ``AmlNode.kind``).

    Source: ACPI 6.5 §20.2.
    """
    return Cursor(code).objects(len(code), 0)


class Cursor:
    """A position in the AML; every read is checked against the bytes that are there."""

    max_depth = 32
    subset = "outside the declarative subset"

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.at = 0

    def fail(self, reason: str) -> AmlParseError:
        """Make the error for here: the offset, and what is wrong."""
        return AmlParseError(self.at, reason)

    def take(self, size: int, limit: int) -> bytes:
        """Take `size` bytes; none may lie at `limit` or beyond."""
        if size > limit - self.at:
            raise self.fail(f"{size:#x} bytes wanted, {limit - self.at:#x} left")
        self.at += size
        return self.code[self.at - size : self.at]

    def byte(self, limit: int) -> int:
        """Take one byte."""
        return self.take(1, limit)[0]

    def objects(self, limit: int, depth: int) -> tuple[AmlNode, ...]:
        """Parse objects until `limit`."""
        nodes = []
        while self.at < limit:
            nodes.append(self.object(limit, depth))
        return tuple(nodes)

    def object(self, limit: int, depth: int) -> AmlNode:
        """Parse one object: a path, a constant, or what its opcode says (ACPI 6.5 section 20.2)."""
        self.check_depth(depth)
        if starts_name(self.code[self.at : self.at + 1]):
            return AmlNode("Path", value=self.path(limit))
        return self.data(limit, depth)

    def check_depth(self, depth: int) -> None:
        """Refuse deeper nesting than this reader follows."""
        if depth > self.max_depth:
            raise self.fail(f"nested deeper than {self.max_depth}")

    def opcode(self, limit: int) -> int:
        """Take an opcode of one byte, or of two that begin with 0x5b."""
        opcode = self.byte(limit)
        return 0x5B00 | self.byte(limit) if opcode == 0x5B else opcode

    def data(self, limit: int, depth: int) -> AmlNode:
        """Parse a constant, or what its opcode says declaratively."""
        opcode = self.opcode(limit)
        if opcode in _CONSTANTS:
            return AmlNode("Integer", value=_CONSTANTS[opcode])
        if opcode in _INTEGER_WIDTHS:
            raw = self.take(_INTEGER_WIDTHS[opcode], limit)
            return AmlNode("Integer", value=int.from_bytes(raw, "little"))
        reader = _READERS.get(opcode)
        if reader is None:
            raise self.fail(f"opcode {opcode:#x} is {self.subset}")
        return reader(self, limit, depth)

    def end_of_package(self, limit: int) -> int:
        """Take a PkgLength and return the offset where it ends, inside `limit` (ACPI 6.5 section 20.2.4)."""
        start = self.at
        length = self.length(limit)
        if not self.at - start <= length <= limit - start:
            raise self.fail(f"PkgLength {length:#x} leaves the {limit - start:#x} bytes around it")
        return start + length

    def length(self, limit: int) -> int:
        """Take the number that a PkgLength is, whatever it counts."""
        try:
            value, taken = decode_pkg_length(self.code, self.at)
        except EncodingError as error:
            raise self.fail(str(error)) from None
        self.take(taken, limit)
        return value

    def integer(self, limit: int, depth: int) -> int:
        """Parse an object that has to be an integer."""
        node = self.object(limit, depth + 1)
        if not isinstance(node.value, int):
            raise self.fail(f"{node.kind} where an integer was expected")
        return node.value

    def path(self, limit: int) -> str:
        """Take a NameString (ACPI 6.5 section 20.2.2)."""
        prefix = ""
        while self.code[self.at : self.at + 1] in (b"\\", b"^"):
            prefix += chr(self.byte(limit))
        lead = self.code[self.at] if self.at < limit else 0
        counted = {0x00: 0, 0x2E: 2, 0x2F: None}.get(lead, 1)
        if counted != 1:
            self.byte(limit)
        count = self.byte(limit) if counted is None else counted
        return prefix + ".".join(self.segment(limit) for _ in range(count))

    def segment(self, limit: int) -> str:
        """Take a NameSeg: four of A-Z, 0-9 and _, the first no digit."""
        raw = self.take(4, limit)
        text = raw.decode("latin-1")
        if not all(c == "_" or "A" <= c <= "Z" or "0" <= c <= "9" for c in text) or text[0].isdigit():
            raise self.fail(f"name segment {raw!r}")
        return text


def starts_name(lead: bytes) -> bool:
    """Whether a NameString begins with this byte."""
    return lead in (b"\\", b"^", b"\x2e", b"\x2f", b"_") or b"A" <= lead <= b"Z"


def _string(cursor: Cursor, limit: int, _depth: int) -> AmlNode:
    end = cursor.code.find(b"\0", cursor.at, limit)
    if end < 0:
        raise cursor.fail("string without NUL")
    raw = cursor.take(end - cursor.at, limit)
    cursor.take(1, limit)
    if not raw.isascii():
        raise cursor.fail(f"string {raw!r} is not ASCII")
    return AmlNode("String", value=raw.decode("ascii"))


def _buffer(cursor: Cursor, limit: int, depth: int) -> AmlNode:
    end = cursor.end_of_package(limit)
    size = cursor.integer(end, depth)
    data = cursor.take(end - cursor.at, end)
    if size < len(data):
        raise cursor.fail(f"buffer of {size:#x} bytes holds {len(data):#x}")
    return AmlNode("Buffer", value=data)


def _package(cursor: Cursor, limit: int, depth: int) -> AmlNode:
    end = cursor.end_of_package(limit)
    return _elements(cursor, end, depth, cursor.byte(end))


def _var_package(cursor: Cursor, limit: int, depth: int) -> AmlNode:
    end = cursor.end_of_package(limit)
    return _elements(cursor, end, depth, cursor.integer(end, depth))


def _elements(cursor: Cursor, end: int, depth: int, count: int) -> AmlNode:
    children = cursor.objects(end, depth + 1)
    if len(children) > count:
        raise cursor.fail(f"package of {count:#x} elements holds {len(children):#x}")
    return AmlNode("Package", children=children)


def _name(cursor: Cursor, limit: int, depth: int) -> AmlNode:
    where = cursor.path(limit)
    return AmlNode("Name", where, children=(cursor.object(limit, depth + 1),))


def _container(kind: str) -> Callable[[Cursor, int, int], AmlNode]:
    def read(cursor: Cursor, limit: int, depth: int) -> AmlNode:
        """Parse a name and the objects in its scope."""
        end = cursor.end_of_package(limit)
        where = cursor.path(end)
        return AmlNode(kind, where, children=cursor.objects(end, depth + 1))

    return read


def _method(cursor: Cursor, limit: int, _depth: int) -> AmlNode:
    end = cursor.end_of_package(limit)
    where = cursor.path(end)
    arguments = AmlNode("Integer", value=cursor.byte(end) & 7)
    return AmlNode("Method", where, cursor.take(end - cursor.at, end), (arguments,))


def _mutex(cursor: Cursor, limit: int, _depth: int) -> AmlNode:
    where = cursor.path(limit)
    return AmlNode("Mutex", where, cursor.byte(limit) & 0xF)


def _region(cursor: Cursor, limit: int, depth: int) -> AmlNode:
    where = cursor.path(limit)
    space = cursor.byte(limit)
    window = (cursor.object(limit, depth + 1), cursor.object(limit, depth + 1))
    return AmlNode("OperationRegion", where, space, window)


def _field(cursor: Cursor, limit: int, _depth: int) -> AmlNode:
    end = cursor.end_of_package(limit)
    where = cursor.path(end)
    return AmlNode("Field", where, cursor.take(end - cursor.at, end))


_READERS: dict[int, Callable[[Cursor, int, int], AmlNode]] = {
    0x08: _name,
    0x0D: _string,
    0x10: _container("Scope"),
    0x11: _buffer,
    0x12: _package,
    0x13: _var_package,
    0x14: _method,
    0x5B01: _mutex,
    0x5B80: _region,
    0x5B81: _field,
    0x5B82: _container("Device"),
}
