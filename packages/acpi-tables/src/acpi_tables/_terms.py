"""AML data and namespace objects (ACPI 6.5 §20.2)."""

import re
import string as _string
from collections.abc import Sequence
from typing import TypeAlias, Union

import attrs
from vm_device import Value

from acpi_tables._errors import EncodingError

__all__ = (
    "ONES",
    "Aml",
    "Term",
    "buffer",
    "decode_pkg_length",
    "device",
    "eisa_id",
    "encode",
    "encode_pkg_length",
    "framed",
    "join",
    "name",
    "package",
    "path",
    "scope",
    "uuid",
)

ONES = 0xFFFF_FFFF_FFFF_FFFF
"""The integer whose 64 bits are all set: AML's true (ACPI 6.5 section 20.2.3, OnesOp)."""
_PKG_LENGTH_LIMITS = (0x3F, 0xFFF, 0xF_FFFF, 0xFFF_FFFF)
_SEGMENT = re.compile(r"[A-Z_][A-Z0-9_]{0,3}\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_MAX_SEGMENTS = 255


@attrs.frozen(eq=False, repr=False)
class Aml(Value):
    """A piece of finished AML; what every builder of this module returns.

    Attributes:
        code: the encoded bytes.
    """

    code: bytes

    def __add__(self, other: "Aml") -> "Aml":
        """Put two pieces one after the other."""
        return Aml(self.code + other.code)

    def __len__(self) -> int:
        """Return the number of encoded bytes."""
        return len(self.code)


Term: TypeAlias = Union[Aml, int, str, bytes, Sequence["Term"]]  # noqa: UP007 -- a quoted name cannot take "|"
"""An AML value: finished AML, or an int, a str (string), bytes (buffer), a sequence (package)."""


def encode_pkg_length(value: int) -> bytes:
    """Encode a PkgLength that says exactly ``value``.

    Args:
        value: 0 to 2**28 - 1. Packages count their own length bytes, field lists do not; see ``framed``.

    Returns:
        1 to 4 bytes, as few as possible.

    Raises:
        EncodingError: value is outside 0 .. 2**28 - 1.

    Source: ACPI 6.5 §20.2.4.
    """
    if not 0 <= value <= _PKG_LENGTH_LIMITS[-1]:
        raise EncodingError("PkgLength", value, f"0 to {_PKG_LENGTH_LIMITS[-1]:#x}")
    if value <= _PKG_LENGTH_LIMITS[0]:
        return bytes((value,))
    follow = next(n for n, limit in enumerate(_PKG_LENGTH_LIMITS) if value <= limit)
    return bytes((follow << 6 | value & 0xF,)) + (value >> 4).to_bytes(follow, "little")


def decode_pkg_length(data: bytes, offset: int = 0) -> tuple[int, int]:
    """Decode the PkgLength at ``offset``.

    Args:
        data: AML bytes.
        offset: where the PkgLength starts.

    Returns:
        The value, and how many bytes it took (1 to 4).

    Raises:
        EncodingError: the bytes end early, or reserved bits 4-5 of a multi-byte lead are set.

    Source: ACPI 6.5 §20.2.4.
    """
    lead = data[offset] if 0 <= offset < len(data) else None
    if lead is None:
        raise EncodingError("PkgLength", data[offset:], f"at least one byte at offset {offset:#x}")
    follow = lead >> 6
    if not follow:
        return lead, 1
    tail = data[offset + 1 : offset + 1 + follow]
    if len(tail) != follow or lead & 0x30:
        limit = f"a lead byte with bits 4-5 zero and {follow} more"
        raise EncodingError("PkgLength", data[offset : offset + 4], limit)
    return int.from_bytes(tail, "little") << 4 | lead & 0xF, 1 + follow


def framed(opcode: bytes, body: bytes) -> Aml:
    """Put ``opcode`` and a PkgLength that covers itself and ``body`` in front of ``body``.

    Args:
        opcode: one or two opcode bytes.
        body: what the PkgLength encloses; at most 2**28 - 5 bytes.

    Returns:
        The whole object.

    Raises:
        EncodingError: the body is longer than a PkgLength can say.
    """
    for width, limit in enumerate(_PKG_LENGTH_LIMITS, start=1):
        if len(body) + width <= limit:
            return Aml(opcode + encode_pkg_length(len(body) + width) + body)
    raise EncodingError("PkgLength", len(body), f"a body of at most {_PKG_LENGTH_LIMITS[-1] - 4:#x} bytes")


def join(terms: Sequence[Term]) -> bytes:
    """Encode several terms one after the other.

    Raises:
        EncodingError: one of them cannot be encoded.
    """
    return b"".join([encode(term) for term in terms])


def encode(term: Term) -> bytes:
    """Encode any term with the shortest encoding it has.

    Args:
        term: finished AML, an int of 0 .. 2**64 - 1, an ASCII str without NUL, bytes, or a sequence of terms.

    Returns:
        AML bytes.

    Raises:
        EncodingError: an int outside 64 bits, a str that is not ASCII or holds NUL, or another type.

    Source: ACPI 6.5 §20.2.3. ``2**64 - 1`` becomes OnesOp, which needs a table of revision 2 or more.
    """
    match term:
        case Aml():
            return term.code
        case int():
            return _integer(term)
        case str():
            return _string_data(term)
        case bytes() | bytearray():
            return buffer(bytes(term)).code
        case Sequence():
            return package(*term).code
    raise EncodingError("AML term", term, "Aml, int, str, bytes or a sequence of these")


def _integer(value: int) -> bytes:
    if value in (0, 1):
        return bytes((value,))
    if value == ONES:
        return b"\xff"
    for prefix, width in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if 0 <= value < 1 << 8 * width:
            return bytes((prefix,)) + value.to_bytes(width, "little")
    raise EncodingError("AML integer", value, f"0 to {ONES:#x}")


def _string_data(text: str) -> bytes:
    if not text.isascii() or "\0" in text:
        raise EncodingError("AML string", text, "ASCII characters 0x01 to 0x7f")
    return b"\x0d" + text.encode("ascii") + b"\0"


def path(text: str) -> Aml:
    r"""Encode a name or a path, padding each segment with ``_``.

    Args:
        text: segments of 1 to 4 characters ``[A-Z_][A-Z0-9_]*`` divided by dots (at most 255), perhaps after
            one ``\`` (root) or any number of ``^`` (parent).

    Returns:
        A NameString.

    Raises:
        EncodingError: a segment that is empty, too long or holds other characters, or too many segments.

    Source: ACPI 6.5 §20.2.2.
    """
    stem = text[1:] if text.startswith("\\") else text.lstrip("^")
    prefix = text[: len(text) - len(stem)].encode("ascii")
    if not stem and prefix:
        return Aml(prefix + b"\0")
    segments = stem.split(".")
    if len(segments) > _MAX_SEGMENTS or not all(_SEGMENT.match(segment) for segment in segments):
        raise EncodingError("AML name", text, f"1 to {_MAX_SEGMENTS} dotted segments [A-Z_][A-Z0-9_]{{0,3}}")
    lead = {1: b"", 2: b"\x2e"}.get(len(segments), bytes((0x2F, len(segments) & 0xFF)))
    return Aml(prefix + lead + "".join(segment.ljust(4, "_") for segment in segments).encode("ascii"))


def name(where: str, value: Term) -> Aml:
    """Build ``Name(where, value)``.

    Args:
        where: name of the new object, as for ``path``.
        value: a data term.

    Returns:
        DefName.

    Raises:
        EncodingError: a bad name or value.

    Source: ACPI 6.5 §20.2.5.1.
    """
    return Aml(b"\x08" + path(where).code + encode(value))


def scope(where: str, *content: Aml) -> Aml:
    r"""Build ``Scope(where) {…}``; ``where`` must exist already, as ``\_SB`` always does.

    Args:
        where: path of the scope.
        content: objects inside.

    Returns:
        DefScope.

    Raises:
        EncodingError: a bad name, or a content too long for PkgLength.

    Source: ACPI 6.5 §20.2.5.1.
    """
    return framed(b"\x10", path(where).code + join(content))


def device(where: str, *content: Aml) -> Aml:
    """Build ``Device(where) {…}``.

    Args:
        where: name of the device.
        content: objects inside, usually ``name("_HID", …)`` first.

    Returns:
        DefDevice.

    Raises:
        EncodingError: a bad name, or a content too long for PkgLength.

    Source: ACPI 6.5 §20.2.5.2.
    """
    return framed(b"\x5b\x82", path(where).code + join(content))


def package(*elements: Term) -> Aml:
    """Build ``Package() {…}``, or VarPackage when there are more than 255 elements.

    Args:
        elements: data terms or paths.

    Returns:
        DefPackage or DefVarPackage.

    Raises:
        EncodingError: an element that cannot be encoded, or a content too long for PkgLength.

    Source: ACPI 6.5 §20.2.5.4.
    """
    body = join(elements)
    if len(elements) <= 0xFF:
        return framed(b"\x12", bytes((len(elements),)) + body)
    return framed(b"\x13", _integer(len(elements)) + body)


def buffer(data: bytes, size: int | None = None) -> Aml:
    """Build ``Buffer(size) {data}``.

    Args:
        data: initial bytes.
        size: length in bytes at run time, at least ``len(data)``; default ``len(data)``.

    Returns:
        DefBuffer.

    Raises:
        EncodingError: size is smaller than the data, or the data too long for PkgLength.

    Source: ACPI 6.5 §20.2.5.4.
    """
    length = len(data) if size is None else size
    if length < len(data):
        raise EncodingError("buffer size", length, f"at least {len(data):#x}, the bytes given")
    return framed(b"\x11", _integer(length) + data)


def eisa_id(text: str) -> Aml:
    """Build ``EisaId(text)``, the packed 32-bit form of a PNP id.

    Args:
        text: three capital letters and four hexadecimal digits, such as ``PNP0501``.

    Returns:
        A DWord constant.

    Raises:
        EncodingError: text is not of that form (use a plain str for ids such as ``LNRO0005``).

    Source: ACPI 6.5 §19.3.4, EISA specification.
    """
    letters, digits = text[:3], text[3:]
    good = len(text) == 7 and all(c in _string.ascii_uppercase for c in letters)
    if not good or not all(c in _string.hexdigits for c in digits):
        raise EncodingError("EISA id", text, "three letters A-Z and four hexadecimal digits")
    vendor = (ord(letters[0]) - 0x40) << 10 | (ord(letters[1]) - 0x40) << 5 | (ord(letters[2]) - 0x40)
    return Aml(b"\x0c" + vendor.to_bytes(2, "big") + int(digits, 16).to_bytes(2, "big"))


def uuid(text: str) -> Aml:
    """Build ``ToUUID(text)``: a buffer in the mixed-endian order of ACPI.

    Args:
        text: hexadecimal digits in groups of 8-4-4-4-12.

    Returns:
        A 16-byte buffer.

    Raises:
        EncodingError: text is not a UUID.

    Source: ACPI 6.5 §19.6.142.
    """
    if not _UUID.match(text):
        raise EncodingError("UUID", text, "hexadecimal digits in groups of 8-4-4-4-12")
    raw = bytes.fromhex(text.replace("-", ""))
    return buffer(raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:])
