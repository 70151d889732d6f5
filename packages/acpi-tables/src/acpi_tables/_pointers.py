"""RSDP and XSDT: how a guest finds the rest (ACPI 6.5 §5.2.5, §5.2.8)."""

import struct
from collections.abc import Sequence

from acpi_tables._errors import EncodingError
from acpi_tables._header import OEM_ID, sdt, sealed

__all__ = ("RSDP_SIGNATURE", "RSDP_SIZE", "rsdp", "xsdt")

RSDP_SIGNATURE = b"RSD PTR "
"""What a root pointer begins with (ACPI 6.5 §5.2.5.3)."""
RSDP_SIZE = 36
"""Bytes of a root pointer of revision 2."""
_RSDP_V1_SIZE = 20
_RSDP = struct.Struct("<8sB6sBIIQB3x")
_V1_CHECKSUM, _CHECKSUM = 8, 32


def rsdp(xsdt_address: int) -> bytes:
    """Build the root pointer, revision 2, with both checksums and no RSDT.

    Args:
        xsdt_address: guest-physical address of the XSDT, 0 .. 2**64 - 1.

    Returns:
        36 bytes; the sums of the first 20 and of all are 0.

    Raises:
        EncodingError: the address does not fit 64 bits.

    Source: ACPI 6.5 §5.2.5.3.
    """
    if not 0 <= xsdt_address < 1 << 64:
        raise EncodingError("XSDT address", xsdt_address, "0 to 2**64 - 1")
    raw = _RSDP.pack(RSDP_SIGNATURE, 0, OEM_ID, 2, 0, RSDP_SIZE, xsdt_address, 0)
    return sealed(sealed(raw[:_RSDP_V1_SIZE], _V1_CHECKSUM) + raw[_RSDP_V1_SIZE:], _CHECKSUM)


def xsdt(addresses: Sequence[int]) -> bytes:
    """Build the table of tables.

    Args:
        addresses: guest-physical address of each table but DSDT, each 0 .. 2**64 - 1.

    Returns:
        The table.

    Raises:
        EncodingError: an address does not fit 64 bits.

    Source: ACPI 6.5 §5.2.8.
    """
    for address in addresses:
        if not 0 <= address < 1 << 64:
            raise EncodingError("table address", address, "0 to 2**64 - 1")
    return sdt(b"XSDT", 1, struct.pack(f"<{len(addresses)}Q", *addresses))
