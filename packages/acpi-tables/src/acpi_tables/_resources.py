"""Resource descriptors (ACPI 6.5 §6.4), each as plain bytes, and the template that holds them."""

import struct
from collections.abc import Sequence
from enum import IntEnum

from acpi_tables._errors import AmlParseError, EncodingError
from acpi_tables._header import packed
from acpi_tables._terms import Aml, buffer

__all__ = (
    "SpaceKind",
    "address_space",
    "dma",
    "end_dependent",
    "fixed_ports",
    "interrupt",
    "io_ports",
    "irq",
    "memory32",
    "memory32_fixed",
    "register",
    "resource_template",
    "split_resources",
    "start_dependent",
    "vendor",
)

_END_TAG = b"\x79\x00"
_MEMORY32 = struct.Struct("<BHBIIII")
_REGISTER = struct.Struct("<BHBBBBQ")
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


def irq(lines: Sequence[int], *, edge: bool = True, active_low: bool = False, shared: bool = False) -> bytes:
    """Build ``IRQ(Edge | Level, ActiveHigh | ActiveLow, Exclusive | Shared) {lines}``.

    Args:
        lines: ISA interrupts, 0 .. 15 each; the device uses one of them.
        edge: edge triggered, else level.
        active_low: active low, else high.
        shared: whether other devices may use it too.

    Returns:
        4 descriptor bytes.

    Raises:
        EncodingError: no line, or one outside 0 .. 15.

    Source: ACPI 6.5 §6.4.2.1.
    """
    return struct.pack("<BHB", 0x23, _mask("IRQ", lines, 16), edge | active_low << 3 | shared << 4)


def dma(channels: Sequence[int], *, speed: int = 0, bus_master: bool = False, transfer: int = 0) -> bytes:
    """Build ``DMA(…) {channels}``.

    Args:
        channels: 0 .. 7 each.
        speed: 0 compatibility, 1 type A, 2 type B, 3 type F.
        bus_master: whether the device is one.
        transfer: 0 of 8 bits, 1 of 8 and 16, 2 of 16.

    Returns:
        3 descriptor bytes.

    Raises:
        EncodingError: no channel, or a value outside its range.

    Source: ACPI 6.5 §6.4.2.2.
    """
    if not 0 <= speed <= 3 or not 0 <= transfer <= 2:
        raise EncodingError("DMA mode", (speed, transfer), "a speed of 0 to 3 and a transfer of 0 to 2")
    return bytes((0x2A, _mask("DMA channel", channels, 8), transfer | bus_master << 2 | speed << 5))


def _mask(what: str, bits: Sequence[int], count: int) -> int:
    if not bits or not all(0 <= bit < count for bit in bits):
        raise EncodingError(what, tuple(bits), f"one or more of 0 to {count - 1}")
    return sum(1 << bit for bit in set(bits))


def fixed_ports(base: int, size: int) -> bytes:
    """Build ``FixedIO(base, size)``; EncodingError outside ports 0 .. 0x3ff, or for more than 255 of them."""
    _window("fixed I/O port base", base, size, 10)
    if size > 0xFF:
        raise EncodingError("fixed I/O port count", size, "at most 0xff")
    return struct.pack("<BHB", 0x4B, base, size)


def start_dependent(compatibility: int = 1, performance: int = 1) -> bytes:
    """Build ``StartDependentFn(compatibility, performance)``: a choice begins; 0 best .. 2 worst."""
    if not 0 <= compatibility <= 2 or not 0 <= performance <= 2:
        raise EncodingError("priority of a choice", (compatibility, performance), "0, 1 or 2 each")
    return bytes((0x31, compatibility | performance << 2))


def end_dependent() -> bytes:
    """Build ``EndDependentFn()``, after the last choice."""
    return b"\x38"


def memory32(low: int, high: int, alignment: int, size: int, *, writable: bool = True) -> bytes:
    """Build ``Memory32(ReadWrite | ReadOnly, low, high, alignment, size)``: a window of choices.

    Args:
        low: least base address.
        high: greatest base address, at least ``low``.
        alignment: of the base; 0 for none.
        size: bytes. All of 32 bits.
        writable: whether the range can be written.

    Returns:
        20 descriptor bytes.

    Raises:
        EncodingError: a value leaves 32 bits, or ``high`` lies below ``low``.

    Source: ACPI 6.5 §6.4.3.3.
    """
    if high < low:
        raise EncodingError("Memory32 high", high, f"at least {low:#x}, its low")
    return packed("Memory32 low", low, _MEMORY32, 0x85, 17, writable, low, high, alignment, size)


def register(space: int, address: int, bits: int, *, offset: int = 0, access: int = 0) -> bytes:
    """Build ``Register(space, bits, offset, address, access)``: a generic register.

    Args:
        space: address space, 0 memory, 1 ports, 0x7f fixed hardware; 8 bits.
        address: 64 bits.
        bits: width, 8 bits.
        offset: of its first bit, 8 bits.
        access: width of accesses: 0 any, 1 to 4 of 1, 2, 4, 8 bytes.

    Returns:
        15 descriptor bytes.

    Raises:
        EncodingError: a value does not fit.

    Source: ACPI 6.5 §6.4.3.7.
    """
    if not 0 <= access <= 4:
        raise EncodingError("register access", access, "0 to 4")
    return packed("register address", address, _REGISTER, 0x82, 12, space, bits, offset, access, address)


def vendor(data: bytes) -> bytes:
    """Build ``VendorLong() {data}``, or ``VendorShort`` for up to 7 bytes; EncodingError beyond 65535."""
    if len(data) > 0xFFFF:
        raise EncodingError("vendor data", len(data), "at most 0xffff bytes")
    head = bytes((0x70 | len(data),)) if len(data) <= 7 else struct.pack("<BH", 0x84, len(data))
    return head + data


def split_resources(template: bytes) -> tuple[bytes, ...]:
    """Take a resource template apart.

    Args:
        template: the value of a ``_CRS``, which anybody may have written.

    Returns:
        Each descriptor, as the functions of this module build them, without the end tag.

    Raises:
        AmlParseError: a descriptor is cut short, or there is no end tag, or one with a wrong checksum.

    Source: ACPI 6.5 §6.4.
    """
    found: list[bytes] = []
    at = 0
    while at < len(template):
        tag = template[at]
        head = template[at + 1 : at + 3]
        size = 3 + int.from_bytes(head, "little") if tag & 0x80 else 1 + (tag & 7)
        if at + size > len(template) or (tag & 0x80 and len(head) < 2):
            raise AmlParseError(at, f"resource descriptor {tag:#x} of {size:#x} bytes leaves the template")
        if tag == _END_TAG[0]:
            if template[at + 1] and sum(template[: at + 2]) & 0xFF:
                raise AmlParseError(at, f"checksum {template[at + 1]:#x} of the resource template is wrong")
            return tuple(found)
        found.append(template[at : at + size])
        at += size
    raise AmlParseError(at, "the resource template has no end tag")


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
