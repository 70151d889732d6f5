"""bzImage: the setup header and what it promises (Documentation/arch/x86/boot.rst, "the boot protocol")."""

from __future__ import annotations

import struct

from attrs import frozen

from linux_loader._bootparams import HEADER_OFFSET
from linux_loader._errors import MalformedImageError, TruncatedImageError, UnsupportedProtocolError
from linux_loader._formats import BZIMAGE_MAGIC_OFFSET
from linux_loader._ranges import align_up
from linux_loader._source import Source

ENTRY64_OFFSET = 0x200
SECTOR = 512

_JUMP_LENGTH_OFFSET = 0x201
_HEADER_MAX_END = 0x290  # boot_params has edd_mbr_sig_buffer there
_LOADED_HIGH = 1 << 0
_XLF_KERNEL_64 = 1 << 0
_XLF_KERNEL_64_VERSION = 0x020C
_DEFAULT_INITRD_MAX = 0x37FF_FFFF
_DEFAULT_CMDLINE_SIZE = 255

# setup_sects .. kernel_info_offset, byte for byte struct setup_header of <asm/bootparam.h>
_HEADER = struct.Struct("<BHIHHHHHIHIHHBBHIIIIHBBIIIBBHIIQIIQQIII")
# fmt: off
_FIELDS = (
    "setup_sects", "root_flags", "syssize", "ram_size", "vid_mode", "root_dev", "boot_flag", "jump",
    "header", "version", "realmode_swtch", "start_sys_seg", "kernel_version", "type_of_loader", "loadflags",
    "setup_move_size", "code32_start", "ramdisk_image", "ramdisk_size", "bootsect_kludge", "heap_end_ptr",
    "ext_loader_ver", "ext_loader_type", "cmd_line_ptr", "initrd_addr_max", "kernel_alignment",
    "relocatable_kernel", "min_alignment", "xloadflags", "cmdline_size", "hardware_subarch",
    "hardware_subarch_data", "payload_offset", "payload_length", "setup_data", "pref_address", "init_size",
    "handover_offset", "kernel_info_offset",
)
# fmt: on


@frozen
class SetupHeader:
    """The fields of the setup header that decide how a bzImage is loaded.

    A field that the kernel's protocol version does not have yet holds the value the specification prescribes.

    Attributes:
        raw: The header as it goes into the zero page at 0x1F1.
        version: Protocol version, 0x020F for 2.15.
        setup_size: Bytes of real-mode code; protected-mode code follows.
        code_size: Bytes of protected-mode code.
        is_64bit: The kernel has the 64-bit entry (xloadflags bit 0).
        relocatable: It may be loaded at any multiple of ``alignment``.
        alignment: kernel_alignment in bytes, a power of two.
        min_alignment: The least alignment that still boots, in bytes.
        pref_address: Where it likes to run.
        init_size: Bytes of RAM it needs from where it runs, before it reads the memory map.
        initrd_addr_max: Highest address of the initrd's last byte.
        cmdline_max: Longest command line in bytes, the NUL not counted.
        payload_offset: Start of the compressed kernel, relative to the protected-mode code; 0 when unknown.
        payload_length: Its length in bytes.
    """

    raw: bytes
    version: int
    setup_size: int
    code_size: int
    is_64bit: bool
    relocatable: bool
    alignment: int
    min_alignment: int
    pref_address: int
    init_size: int
    initrd_addr_max: int
    cmdline_max: int
    payload_offset: int
    payload_length: int


def _raw_header(source: Source) -> bytes:
    """The header bytes that exist in this version; the jump at 0x200 spans exactly to its end."""
    length = source.slice(_JUMP_LENGTH_OFFSET, 1, "bzImage setup header")[0]
    end = min(BZIMAGE_MAGIC_OFFSET + length, _HEADER_MAX_END)
    return bytes(source.slice(HEADER_OFFSET, end - HEADER_OFFSET, "bzImage setup header"))


def _check_fields(values: dict[str, int]) -> None:
    if values["boot_flag"] != 0xAA55:
        raise MalformedImageError(
            "bzImage header", field="boot_flag", value=values["boot_flag"], rule="must be 0xaa55"
        )
    if values["version"] < 0x0200:
        raise MalformedImageError(
            "bzImage header", field="version", value=values["version"], rule="must be >= 0x200"
        )
    if not values["loadflags"] & _LOADED_HIGH:
        rule = "bit 0 (LOADED_HIGH) must be set: a zImage that loads below 1 MiB is not supported"
        raise MalformedImageError("bzImage header", field="loadflags", value=values["loadflags"], rule=rule)


def _alignments(values: dict[str, int]) -> tuple[int, int]:
    alignment = values["kernel_alignment"] or 1
    if alignment & (alignment - 1) or values["min_alignment"] > 31:
        rule = f"must be a power of two (min_alignment is {values['min_alignment']}, at most 31)"
        raise MalformedImageError("bzImage header", field="kernel_alignment", value=alignment, rule=rule)
    least = 1 << values["min_alignment"] if values["min_alignment"] else alignment
    return alignment, min(alignment, least)


def _code_size(source: Source, values: dict[str, int], setup_size: int) -> int:
    """Protected-mode bytes, counted in 16-byte units; what follows (a signature) is not code."""
    size = values["syssize"] * 16
    if values["version"] < 0x0204:  # the field's upper half is something else there
        size = (values["syssize"] & 0xFFFF) * 16
    available = source.size - setup_size
    if size > align_up(max(available, 0), 16):
        raise TruncatedImageError(
            "bzImage protected-mode code", offset=setup_size, needed=size, available=source.size
        )
    if size == 0:
        raise MalformedImageError(
            "bzImage header", field="syssize", value=0, rule="there is no kernel in the file"
        )
    return min(size, available)


def _check_payload(header: SetupHeader) -> None:
    end = header.payload_offset + header.payload_length
    if end > header.code_size:
        rule = f"with payload_length past the end of the protected-mode code ({header.code_size:#x} bytes)"
        raise MalformedImageError(
            "bzImage header", field="payload_offset", value=header.payload_offset, rule=rule
        )


def _blank_newer_fields(values: dict[str, int]) -> None:
    """Set what this protocol version does not define to the specification's defaults."""
    for since, defaults in (
        (0x0203, {"initrd_addr_max": _DEFAULT_INITRD_MAX}),
        (0x0205, {"kernel_alignment": 0, "relocatable_kernel": 0}),
        (0x0206, {"cmdline_size": _DEFAULT_CMDLINE_SIZE}),
        (0x0208, {"payload_offset": 0, "payload_length": 0}),
        (0x020A, {"pref_address": 0x10_0000, "init_size": 0, "min_alignment": 0}),
        (_XLF_KERNEL_64_VERSION, {"xloadflags": 0}),
    ):
        if values["version"] < since:
            values.update(defaults)


def parse_setup_header(source: Source) -> SetupHeader:
    """Check a bzImage's header.

    Args:
        source: A file for which :func:`is_bzimage` is true.

    Returns:
        The checked header; code and payload lie inside the file.

    Raises:
        TruncatedImageError: The file ends before the header or the code does.
        MalformedImageError: A field is impossible.
    """
    raw = _raw_header(source)
    unpacked = _HEADER.unpack(raw.ljust(_HEADER.size, b"\0")[: _HEADER.size])
    values = dict(zip(_FIELDS, unpacked, strict=True))
    _check_fields(values)
    _blank_newer_fields(values)
    setup_size = ((values["setup_sects"] or 4) + 1) * SECTOR
    alignment, min_alignment = _alignments(values)
    header = SetupHeader(
        raw=raw,
        version=values["version"],
        setup_size=setup_size,
        code_size=_code_size(source, values, setup_size),
        is_64bit=bool(values["xloadflags"] & _XLF_KERNEL_64),
        relocatable=bool(values["relocatable_kernel"]),
        alignment=alignment,
        min_alignment=min_alignment,
        pref_address=values["pref_address"],
        init_size=values["init_size"],
        initrd_addr_max=values["initrd_addr_max"],
        cmdline_max=values["cmdline_size"],
        payload_offset=values["payload_offset"],
        payload_length=values["payload_length"],
    )
    _check_payload(header)
    return header


def check_entry64(header: SetupHeader) -> None:
    """Refuse a bzImage without a 64-bit entry point.

    Raises:
        UnsupportedProtocolError: Before protocol 2.12, xloadflags bit 0 clear, or too short for the entry.
    """
    if not header.is_64bit:
        shown = f"protocol {header.version >> 8}.{header.version & 0xFF:02}"
        reason = f"xloadflags bit 0 (XLF_KERNEL_64) is clear or absent ({shown})"
        cure = "it is a 32-bit or very old kernel; give a 64-bit one of Linux 3.8 or later"
        raise UnsupportedProtocolError("the 64-bit boot protocol", reason=reason, cure=cure)
    if header.code_size <= ENTRY64_OFFSET:
        reason = (
            f"the protected-mode code has {header.code_size:#x} bytes, the entry is at {ENTRY64_OFFSET:#x}"
        )
        raise UnsupportedProtocolError("the 64-bit boot protocol", reason=reason, cure="the file is damaged")
