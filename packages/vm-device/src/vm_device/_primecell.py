"""What the Arm PrimeCell peripherals have in common: 4 KiB of 32-bit registers and an identity at the end."""

from typing import Final

SIZE: Final = 0x1000
_ID: Final = 0xFE0
_CELL_ID: Final = (0x0D, 0xF0, 0x05, 0xB1)


def identity(part: int, revision: int, offset: int) -> int:
    """Return an identification register, or 0 for any other offset.

    Args:
        part: three hexadecimal digits, as in the name: 0x011 for a PL011.
        revision: 0 .. 15.
        offset: byte offset, 0 .. SIZE - 1.
    """
    if offset < _ID or offset % 4:
        return 0
    # Designer 0x41 is Arm (PrimeCell identification registers, e.g. DDI 0183 section 3.3.15).
    ids = (part & 0xFF, 0x10 | part >> 8, revision << 4 | 0x04, 0x00, *_CELL_ID)
    return ids[offset - _ID >> 2]
