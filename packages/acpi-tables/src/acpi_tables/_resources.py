"""Resource descriptors (ACPI 6.5 §6.4), each as plain bytes, and the template that holds them."""

import struct
from collections.abc import Sequence
from enum import IntEnum

from acpi_tables._errors import EncodingError
from acpi_tables._terms import Aml, buffer

__all__ = (
    "SpaceKind",
    "address_space",
    "interrupt",
    "io_ports",
    "memory32_fixed",
    "resource_template",
)

_END_TAG = b"\x79\x00"
_WIDTHS = {2: (0x88, "H"), 4: (0x87, "I"), 8: (0x8A, "Q")}


class SpaceKind(IntEnum):
    """Resource type byte of an address-space descriptor (ACPI 6.5 §6.4.3.5)."""

    MEMORY = 0
    IO = 1
    BUS = 2


_TYPE_FLAGS = {SpaceKind.MEMORY: 0x01, SpaceKind.IO: 0x03, SpaceKind.BUS: 0x00}


def _window(field: str, base: int, size: int, bits: int) -> None:
    if size <= 0 or base < 0 or base + size > 1 << bits:
        limit = f"a range of 1 or more that ends at or below {1 << bits:#x}; size is {size:#x}"
        raise EncodingError(field, base, limit)


def io_ports(base: int, size: int, *, alignment: int = 1) -> bytes:
    """Build ``IO(Decode16, base, base, alignment, size)``.

    Args:
        base: first port, 0 .. 0xffff.
        size: number of ports, 1 .. 255.
        alignment: alignment of the base, 0 .. 255.

    Returns:
        8 descriptor bytes.

    Raises:
        EncodingError: the range leaves the port space, or a field leaves its byte.

    Source: ACPI 6.5 §6.4.2.5.
    """
    _window("I/O port base", base, size, 16)
    if size > 0xFF or not 0 <= alignment <= 0xFF:
        raise EncodingError("I/O port count", size, f"at most 0xff, alignment {alignment:#x} likewise")
    return struct.pack("<BBHHBB", 0x47, 1, base, base, alignment, size)


def memory32_fixed(base: int, size: int, *, writable: bool = True) -> bytes:
    """Build ``Memory32Fixed(ReadWrite | ReadOnly, base, size)``.

    Args:
        base: guest-physical address below 4 GiB.
        size: bytes, 1 or more, ending at or below 4 GiB.
        writable: whether the range can be written.

    Returns:
        12 descriptor bytes.

    Raises:
        EncodingError: the range is empty or leaves 32 bits; use ``address_space`` there.

    Source: ACPI 6.5 §6.4.3.4.
    """
    _window("Memory32Fixed base", base, size, 32)
    return struct.pack("<BHBII", 0x86, 9, writable, base, size)


def interrupt(
    gsis: Sequence[int], *, edge: bool, active_low: bool, shared: bool = False, consumer: bool = True
) -> bytes:
    """Build ``Interrupt(ResourceConsumer, Edge | Level, ActiveHigh | ActiveLow, Exclusive | Shared) {gsis}``.

    Args:
        gsis: 1 to 255 global system interrupts, each 0 .. 2**32 - 1.
        edge: edge triggered, else level.
        active_low: active low, else high.
        shared: whether other devices may use them too.
        consumer: whether the device uses (rather than provides) them.

    Returns:
        Descriptor bytes.

    Raises:
        EncodingError: no interrupt, too many of them, or one outside 32 bits.

    Source: ACPI 6.5 §6.4.3.6.
    """
    if not 0 < len(gsis) <= 0xFF:
        raise EncodingError("interrupt count", len(gsis), "1 to 0xff")
    for gsi in gsis:
        _window("interrupt", gsi, 1, 32)
    flags = consumer | edge << 1 | active_low << 2 | shared << 3
    return struct.pack(f"<BHBB{len(gsis)}I", 0x89, 2 + 4 * len(gsis), flags, len(gsis), *gsis)


def address_space(kind: SpaceKind, base: int, size: int, *, width: int = 8, producer: bool = False) -> bytes:
    """Build a fixed Word, DWord or QWord address-space descriptor of memory, ports or buses.

    Args:
        kind: what lies in the range.
        base: first address.
        size: length, 1 or more; the whole space (2**(8 * width)) is too long for its own length field.
        width: bytes of each field: 2, 4 or 8.
        producer: whether the device hands the range on to its children (a bridge's window).

    Returns:
        Descriptor bytes.

    Raises:
        EncodingError: the range is empty, leaves the width or fills it whole, or the width is another.

    Source: ACPI 6.5 §6.4.3.5.
    """
    if width not in _WIDTHS:
        raise EncodingError("address space width", width, "2, 4 or 8 bytes")
    _window("address space base", base, size, 8 * width)
    if size == 1 << 8 * width:
        raise EncodingError("address space size", size, f"less than {1 << 8 * width:#x}; split it in two")
    tag, letter = _WIDTHS[width]
    fields = (0, base, base + size - 1, 0, size)
    flags = 0x0C | (not producer)
    return struct.pack(f"<BHBBB5{letter}", tag, 3 + 5 * width, kind, flags, _TYPE_FLAGS[kind], *fields)


def resource_template(*descriptors: bytes) -> Aml:
    """Build ``ResourceTemplate() {…}``, the value of a ``_CRS``.

    Args:
        descriptors: results of the other functions of this module.

    Returns:
        A buffer that ends with the end tag (checksum byte 0: "treat as correct").

    Raises:
        EncodingError: the descriptors are too long for PkgLength.

    Source: ACPI 6.5 §6.4.2.9.
    """
    return buffer(b"".join(descriptors) + _END_TAG)
