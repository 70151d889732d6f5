"""Small synthetic kernels, and a guest memory that remembers what was written."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable, Sequence

import lz4.block  # type: ignore[import-untyped]
import zstandard
from attrs import frozen

from linux_loader._compression import Compression
from linux_loader._ranges import GuestRange

__all__ = (
    "LINUX_NOTE",
    "RecordingMemory",
    "SegmentSpec",
    "build_bzimage",
    "build_elf",
    "build_image",
    "build_note",
    "build_zboot",
    "pack",
    "pvh_note",
)

_PAGE = 4096


@frozen
class SegmentSpec:
    """A PT_LOAD segment for :func:`build_elf`.

    Attributes:
        paddr: p_paddr.
        data: The bytes in the file.
        mem_size: p_memsz; None for the length of ``data``.
    """

    paddr: int
    data: bytes
    mem_size: int | None = None


def build_note(name: bytes, kind: int, description: bytes, *, align: int = 4) -> bytes:
    """Encode one ELF note.

    Args:
        name: With its final NUL.
        kind: n_type.
        description: The payload.
        align: 4, or 8 for notes of a segment with p_align 8.

    Returns:
        The padded note.
    """
    head = struct.pack("<III", len(name), len(description), kind) + name
    head += bytes(-len(head) % align) + description
    return head + bytes(-len(head) % align)


LINUX_NOTE = build_note(b"Linux\0", 0x100, b"salt")
"""A note as Linux's build leaves it in vmlinux: by it a kernel is taken for Linux."""


def pvh_note(entry: int, *, align: int = 4) -> bytes:
    """The XEN_ELFNOTE_PHYS32_ENTRY note.

    Args:
        entry: 32-bit physical entry point.
        align: As for :func:`build_note`.

    Returns:
        The note.
    """
    return build_note(b"Xen\0", 18, struct.pack("<I", entry), align=align)


def build_elf(
    segments: Sequence[SegmentSpec],
    *,
    entry: int,
    notes: Sequence[bytes] = (),
    machine: int = 62,
    kind: int = 2,
    bits: int = 64,
    note_align: int = 4,
) -> bytes:
    """Build an ELF executable.

    Args:
        segments: Its PT_LOAD segments.
        entry: e_entry.
        notes: One PT_NOTE segment each.
        machine: e_machine.
        kind: e_type.
        bits: 64 or 32.
        note_align: p_align of the note segments.

    Returns:
        The file.
    """
    wide = bits == 64
    ehdr, phdr = ("<16sHHIQQQIHHHHHH", "<IIQQQQQQ") if wide else ("<16sHHIIIIIHHHHHH", "<IIIIIIII")
    head_size, entry_size = struct.calcsize(ehdr), struct.calcsize(phdr)
    table, body = b"", b""
    at = head_size + entry_size * (len(segments) + len(notes))
    at += -at % 8
    start = at
    for what, paddr, data, mem, align in [
        *((1, s.paddr, s.data, len(s.data) if s.mem_size is None else s.mem_size, 0x1000) for s in segments),
        *((4, 0, n, len(n), note_align) for n in notes),
    ]:
        if wide:
            table += struct.pack(phdr, what, 5, at, paddr, paddr, len(data), mem, align)
        else:
            table += struct.pack(phdr, what, at, paddr, paddr, len(data), mem, 5, align)
        padded = data + bytes(-len(data) % 8)
        body += padded
        at += len(padded)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    count = len(segments) + len(notes)
    head = struct.pack(
        ehdr, ident, kind, machine, 1, entry, head_size, 0, 0, head_size, entry_size, count, 0, 0, 0
    )
    return (head + table).ljust(start, b"\0") + body


def _pack_lz4(data: bytes) -> bytes:
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return out


def pack(data: bytes, kind: Compression) -> bytes:
    """Compress a payload as Linux's build does, without the appended size.

    Args:
        data: What to compress.
        kind: Any compression but LZO.

    Returns:
        The stream.

    Raises:
        ValueError: LZO, which no Python library at hand writes.
    """
    packers: dict[Compression, Callable[[bytes], bytes]] = {
        Compression.NONE: bytes,
        Compression.GZIP: lambda d: gzip.compress(d, 1, mtime=0),
        Compression.BZIP2: lambda d: bz2.compress(d, 1),
        Compression.LZMA: lambda d: lzma.compress(d, lzma.FORMAT_ALONE, preset=0),
        Compression.XZ: lambda d: lzma.compress(
            d,
            lzma.FORMAT_XZ,
            lzma.CHECK_CRC32,
            filters=[{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 0}],
        ),
        Compression.LZ4: _pack_lz4,
        Compression.ZSTD: lambda d: zstandard.ZstdCompressor(1, write_content_size=False).compress(d),
    }
    if kind not in packers:
        raise ValueError(f"cannot write {kind.value}")
    return packers[kind](data)


def _payload(vmlinux: bytes, compression: Compression, announced: int | None) -> bytes:
    """The packed kernel with its size, as Linux's build appends it (gzip has it already)."""
    if not vmlinux:
        return b""
    payload = pack(vmlinux, compression)
    size = struct.pack("<I", len(vmlinux) if announced is None else announced)
    if compression is Compression.NONE:
        return payload
    return (payload[:-4] if compression is Compression.GZIP else payload) + size


_SETUP_FIELDS = {  # name: (file offset, struct format, default)
    "setup_sects": (0x1F1, "B", 4),
    "version": (0x206, "<H", 0x020F),
    "loadflags": (0x211, "B", 1),
    "code32_start": (0x214, "<I", 0x10_0000),
    "initrd_addr_max": (0x22C, "<I", 0x7FFF_FFFF),
    "alignment": (0x230, "<I", 0x20_0000),
    "relocatable": (0x234, "B", 1),
    "min_alignment": (0x235, "B", 21),
    "xloadflags": (0x236, "<H", 1),
    "cmdline_size": (0x238, "<I", 2047),
    "pref_address": (0x258, "<Q", 0x100_0000),
    "init_size": (0x260, "<I", 0x10_0000),
}


def build_bzimage(
    vmlinux: bytes = b"",
    *,
    compression: Compression = Compression.ZSTD,
    code: bytes = b"\xf4" * 0x400,
    trailer: bytes = b"",
    announced: int | None = None,
    **fields: int,
) -> bytes:
    """Build a bzImage around a compressed ELF kernel.

    Args:
        vmlinux: The payload; empty for none.
        compression: How it is packed.
        code: Protected-mode code before the payload.
        trailer: Bytes after the code, as a signature.
        announced: The appended size; None for the true one.
        **fields: Setup header fields that differ from protocol 2.15, 64-bit, relocatable: setup_sects,
            version, loadflags, code32_start, initrd_addr_max, alignment, relocatable, min_alignment,
            xloadflags, cmdline_size, pref_address, init_size.

    Returns:
        The file.

    Raises:
        TypeError: An unknown field.
    """
    unknown = fields.keys() - _SETUP_FIELDS.keys()
    if unknown:
        raise TypeError(f"unknown setup header fields {sorted(unknown)}")
    payload = _payload(vmlinux, compression, announced)
    body = code + payload
    body += bytes(-len(body) % 16)
    setup = bytearray(((fields.get("setup_sects", 4) or 4) + 1) * 512)
    setup[0x1EF] = 0xFF
    struct.pack_into("<I", setup, 0x1F4, len(body) // 16)
    struct.pack_into("<HH4s", setup, 0x1FE, 0xAA55, 0x6AEB, b"HdrS")
    for name, (offset, layout, default) in _SETUP_FIELDS.items():
        struct.pack_into(layout, setup, offset, fields.get(name, default))
    struct.pack_into("<II", setup, 0x248, len(code) if payload else 0, len(payload))
    return bytes(setup) + body + trailer


def build_image(
    arch: str,
    code: bytes = b"\0" * 64,
    *,
    text_offset: int = 0,
    image_size: int | None = None,
    flags: int = 0xA,
) -> bytes:
    """Build an arm64 or riscv64 Image.

    Args:
        arch: ``"aarch64"`` or ``"riscv64"``.
        code: What follows the header.
        text_offset: Bytes above a 2 MiB boundary.
        image_size: Bytes of RAM it needs; None for its length.
        flags: Of the header; 0xA is little-endian, 4 KiB pages, anywhere (arm64).

    Returns:
        The file.

    Raises:
        KeyError: Another architecture.
    """
    magic = {"aarch64": bytes(8) + b"ARM\x64", "riscv64": b"RISCV\0\0\0RSC\x05"}[arch]
    size = 64 + len(code) if image_size is None else image_size
    head = struct.pack("<8xQQQ", text_offset, size, flags).ljust(0x30, b"\0") + magic
    return head.ljust(64, b"\0") + code


def build_zboot(image: bytes, compression: Compression = Compression.GZIP) -> bytes:
    """Build an EFI zboot file around an Image, as Linux's build does.

    Args:
        image: The Image.
        compression: How it is packed.

    Returns:
        The file.

    Raises:
        ValueError: As for :func:`pack`.
    """
    payload = pack(image, compression)
    head = struct.pack("<2s2x4sII8x32s", b"MZ", b"zimg", 256, len(payload), compression.value.encode())
    return head.ljust(256, b"\0") + payload + struct.pack("<I", len(image))


class RecordingMemory:
    """Sparse guest memory that records each write; reads of untouched bytes give ``fill``.

    Args:
        ranges: (base, size) that exist; None for all.
        fill: Value of bytes never written.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]] | None = None, *, fill: int = 0) -> None:
        self.ranges = None if ranges is None else tuple(GuestRange(*r) for r in ranges)
        self.written: list[GuestRange] = []
        self._fill = fill
        self._pages: dict[int, bytearray] = {}

    def _check(self, addr: int, size: int) -> None:
        wanted = GuestRange(addr, size)
        if self.ranges is not None and size and not any(r.contains(wanted) for r in self.ranges):
            raise IndexError(f"{wanted} is outside guest memory")

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes and remember the range.

        Args:
            addr: Guest address.
            data: Contiguous bytes.

        Raises:
            IndexError: Outside ``ranges``; nothing is stored.
        """
        view = memoryview(data).cast("B")
        self._check(addr, len(view))
        self.written.append(GuestRange(addr, len(view)))
        at = 0
        while at < len(view):
            page, offset = divmod(addr + at, _PAGE)
            step = min(_PAGE - offset, len(view) - at)
            target = self._pages.setdefault(page, bytearray([self._fill]) * _PAGE)
            target[offset : offset + step] = view[at : at + step]
            at += step

    def read(self, addr: int, size: int) -> bytes:
        """Load bytes.

        Args:
            addr: Guest address.
            size: Number of bytes.

        Returns:
            Exactly ``size`` bytes.

        Raises:
            IndexError: Outside ``ranges``.
        """
        self._check(addr, size)
        first, offset = divmod(addr, _PAGE)
        blank = bytes([self._fill]) * _PAGE
        last = (addr + size + _PAGE - 1) // _PAGE
        joined = b"".join(bytes(self._pages.get(page, blank)) for page in range(first, last))
        return joined[offset : offset + size]
