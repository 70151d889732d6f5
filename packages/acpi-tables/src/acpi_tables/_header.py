"""The header every table but the RSDP starts with, and the byte sum that guards them all."""

import struct

import attrs
from vm_device import Value

from acpi_tables._errors import EncodingError

__all__ = ("GenericAddress", "byte_sum", "sdt")

HEADER = struct.Struct("<4sIBB6s8sI4sI")
CHECKSUM_OFFSET = 9
OEM_ID = b"PYVMM "
_OEM_TABLE_ID = b"PYVMM"
_CREATOR_ID = b"VMM "
_GAS = struct.Struct("<BBBBQ")
_ACCESS_SIZES = {1: 1, 2: 2, 4: 3, 8: 4}


def byte_sum(data: bytes) -> int:
    """Return the sum of all bytes modulo 256; 0 for every sound table."""
    return sum(data) & 0xFF


def sealed(table: bytes, checksum_offset: int = CHECKSUM_OFFSET) -> bytes:
    """Set the checksum byte (0 until now) so that the byte sum becomes 0."""
    rest = table[checksum_offset + 1 :]
    return table[:checksum_offset] + bytes((-byte_sum(table) & 0xFF,)) + rest


def sdt(signature: bytes, revision: int, body: bytes) -> bytes:
    """Put a header in front of ``body`` and seal the whole.

    Args:
        signature: four ASCII characters.
        revision: table revision, 0 .. 255.
        body: what follows the 36 header bytes.

    Returns:
        The table; its byte sum is 0.

    Raises:
        EncodingError: a signature of another length, or a revision outside its byte.

    Source: ACPI 6.5 §5.2.6.
    """
    if len(signature) != 4:
        raise EncodingError("table signature", signature, "four ASCII characters")
    if not 0 <= revision <= 0xFF:
        raise EncodingError("table revision", revision, "0 to 0xff")
    oem_table_id = (_OEM_TABLE_ID + signature)[:8]
    length = HEADER.size + len(body)
    header = HEADER.pack(signature, length, revision, 0, OEM_ID, oem_table_id, 1, _CREATOR_ID, 1)
    return sealed(header + body)


def packed(what: str, value: int, layout: struct.Struct, *fields: int | bytes) -> bytes:
    """Pack fields; EncodingError, which names ``what`` and ``value``, when one does not fit."""
    try:
        return layout.pack(*fields)
    except struct.error:
        raise EncodingError(what, value, f"fields {fields} of layout {layout.format!r}") from None


@attrs.frozen(eq=False, repr=False)
class GenericAddress(Value):
    """A Generic Address Structure: where a register is and how wide it is (ACPI 6.5 §5.2.3.2).

    Attributes:
        space: 0 memory, 1 ports.
        address: first byte, 0 .. 2**64 - 1.
        size: width in bytes: 1, 2, 4 or 8; 0 with address 0 means "not there".
    """

    space: int = 0
    address: int = 0
    size: int = 0

    def encode(self) -> bytes:
        """Return the 12 bytes; EncodingError when a field does not fit."""
        if self.size not in (0, *_ACCESS_SIZES):
            raise EncodingError("register size", self.size, "1, 2, 4 or 8 bytes")
        if not 0 <= self.address < 1 << 64:
            raise EncodingError("register address", self.address, "0 to 2**64 - 1")
        return _GAS.pack(self.space, 8 * self.size, 0, _ACCESS_SIZES.get(self.size, 0), self.address)

    @classmethod
    def decode(cls, data: bytes) -> "GenericAddress":
        """Read the 12 bytes back; a width that is not whole bytes is rounded down."""
        space, bits, _, _, address = _GAS.unpack(data)
        return cls(space, address, bits // 8)
