"""ELF kernels: the segments to load and the two ways in.

Formats: System V ABI "gABI" chapters 4 and 5; PVH note XEN_ELFNOTE_PHYS32_ENTRY of Xen ``public/elfnote.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from attrs import frozen
from vm_device import Value

from linux_loader._errors import (
    ForeignArchitectureError,
    ImageError,
    MalformedImageError,
    TruncatedImageError,
)
from linux_loader._ranges import ADDRESS_SPACE, GuestRange, align_up
from linux_loader._source import Source

_EM_386 = 3
_EM_X86_64 = 62
_MACHINES = {
    0: "no machine at all", 2: "SPARC", 4: "Motorola 68000", 8: "MIPS", 15: "PA-RISC", 20: "PowerPC",
    21: "64-bit PowerPC", 22: "s390", 40: "32-bit ARM", 42: "SuperH", 43: "SPARC V9", 50: "Itanium",
    183: "AArch64", 189: "MicroBlaze", 195: "ARC", 243: "RISC-V", 247: "BPF", 252: "C-SKY", 258: "LoongArch",
}  # fmt: skip
_ET_EXEC = 2
_ET_DYN = 3
_TYPES = {0: "no file type", 1: "a relocatable object such as a kernel module", 4: "a core dump"}
_PT_LOAD = 1
_PT_NOTE = 4

_EHDR32 = struct.Struct("<16xHHIIIIIHHHHHH")
_EHDR64 = struct.Struct("<16xHHIQQQIHHHHHH")
_PHDR32 = struct.Struct("<IIIIIIII")
_PHDR64 = struct.Struct("<IIQQQQQQ")
_NHDR = struct.Struct("<III")

_XEN_NAME = b"Xen\0"
_XEN_PHYS32_ENTRY = 18
_LINUX_NAME = b"Linux\0"

# A vmlinux has 5 program headers and a few KiB of notes.
MAX_PROGRAM_HEADERS = 512
MAX_NOTE_BYTES = 1 << 20


@frozen(eq=False, repr=False)
class ElfSegment(Value):
    """One PT_LOAD segment: ``file_size`` bytes from the file, then zeros up to ``memory.size``.

    Attributes:
        offset: Where its bytes are in the file.
        file_size: How many there are.
        memory: Physical addresses it occupies (p_paddr, p_memsz).
    """

    offset: int
    file_size: int
    memory: GuestRange


@frozen(eq=False, repr=False)
class ElfInfo(Value):
    """What the loader needs of an ELF kernel.

    Attributes:
        is_64bit: ELFCLASS64 for x86-64; False is a 32-bit i386 file, which only PVH can start.
        entry: e_entry, which Linux keeps as the physical address of its 64-bit entry.
        segments: The non-empty PT_LOAD segments, sorted by address and disjoint.
        pvh_entry: Physical address of the 32-bit PVH entry, or None without the note.
        is_linux: A note by "Linux" is present, hence e_entry follows the 64-bit boot protocol.
    """

    is_64bit: bool
    entry: int
    segments: tuple[ElfSegment, ...]
    pvh_entry: int | None
    is_linux: bool

    @property
    def memory(self) -> GuestRange:
        """From the lowest to the highest address of all segments."""
        base = self.segments[0].memory.base
        return GuestRange(base, self.segments[-1].memory.end - base)


class _ProgramHeader(NamedTuple):
    kind: int
    offset: int
    paddr: int
    file_size: int
    mem_size: int
    align: int = 4


def _check_identity(ident: memoryview) -> bool:
    """Check e_ident; returns whether the file is 64-bit."""
    elf_class, order, version = ident[4], ident[5], ident[6]
    if order == 2:
        raise ForeignArchitectureError("a big-endian processor (ELF e_ident[EI_DATA] is 2)")
    if elf_class not in (1, 2):
        raise MalformedImageError(
            "ELF header", field="e_ident[EI_CLASS]", value=elf_class, rule="must be 1 or 2"
        )
    if order != 1:
        raise MalformedImageError("ELF header", field="e_ident[EI_DATA]", value=order, rule="must be 1 or 2")
    if version != 1:
        raise MalformedImageError("ELF header", field="e_ident[EI_VERSION]", value=version, rule="must be 1")
    return elf_class == 2


def _check_machine(machine: int, kind: int, *, is_64bit: bool) -> None:
    if (machine, is_64bit) not in ((_EM_X86_64, True), (_EM_386, False)):
        named = {_EM_X86_64: "32-bit x32", _EM_386: "i386 in a 64-bit file"}.get(
            machine, _MACHINES.get(machine)
        )
        raise ForeignArchitectureError(f"{named or 'an unknown processor'} (ELF e_machine {machine})")
    if kind not in (_ET_EXEC, _ET_DYN):
        what = _TYPES.get(kind, "an unknown file type")
        raise MalformedImageError(
            "ELF header", field="e_type", value=kind, rule=f"{what}; a kernel has 2 or 3"
        )


def _program_headers(source: Source, table: int, count: int, *, is_64bit: bool) -> Iterator[_ProgramHeader]:
    layout = _PHDR64 if is_64bit else _PHDR32
    raw = source.slice(table, count * layout.size, "ELF program header table")
    for entry in layout.iter_unpack(raw):
        if is_64bit:
            kind, _, offset, _, paddr, filesz, memsz, align = entry
        else:
            kind, offset, _, paddr, filesz, memsz, _, align = entry
        yield _ProgramHeader(kind, offset, paddr, filesz, memsz, align)


def _segment(source: Source, header: _ProgramHeader) -> ElfSegment:
    if header.file_size > header.mem_size:
        rule = f"more than p_memsz ({header.mem_size:#x})"
        raise MalformedImageError("ELF PT_LOAD segment", field="p_filesz", value=header.file_size, rule=rule)
    if header.paddr + header.mem_size > ADDRESS_SPACE:
        rule = f"which with p_memsz {header.mem_size:#x} wraps around 2^64"
        raise MalformedImageError("ELF PT_LOAD segment", field="p_paddr", value=header.paddr, rule=rule)
    if header.offset + header.file_size > source.size:
        raise TruncatedImageError(
            "ELF PT_LOAD segment", offset=header.offset, needed=header.file_size, available=source.size
        )
    return ElfSegment(header.offset, header.file_size, GuestRange(header.paddr, header.mem_size))


def _check_disjoint(segments: list[ElfSegment]) -> None:
    for lower, upper in pairwise(segments):
        if lower.memory.overlaps(upper.memory):
            rule = f"inside the segment {lower.memory}"
            raise MalformedImageError(
                "ELF PT_LOAD segment", field="p_paddr", value=upper.memory.base, rule=rule
            )


def _notes(source: Source, header: _ProgramHeader) -> Iterator[tuple[bytes, int, memoryview]]:
    """Yield (name, type, description); each step consumes at least the 12 bytes of a note header."""
    if header.file_size > MAX_NOTE_BYTES:
        rule = f"more than the {MAX_NOTE_BYTES:#x} bytes this loader reads"
        raise MalformedImageError("ELF PT_NOTE segment", field="p_filesz", value=header.file_size, rule=rule)
    data = source.slice(header.offset, header.file_size, "ELF PT_NOTE segment")
    align = 8 if header.align == 8 else 4
    at = 0
    while at + _NHDR.size <= len(data):
        name_size, desc_size, kind = _NHDR.unpack_from(data, at)
        name_at = at + _NHDR.size
        desc_at = align_up(name_at + name_size, align)
        if desc_at + desc_size > len(data):
            rule = f"past the end of the note segment ({len(data):#x} bytes)"
            raise MalformedImageError(
                "ELF note", field="n_namesz + n_descsz", value=name_size + desc_size, rule=rule
            )
        yield bytes(data[name_at : name_at + min(name_size, 16)]), kind, data[desc_at : desc_at + desc_size]
        at = align_up(desc_at + desc_size, align)


def _pvh_entry(description: memoryview) -> int:
    if len(description) not in (4, 8):
        rule = "must be 4 or 8 bytes"
        raise MalformedImageError("PVH note", field="n_descsz", value=len(description), rule=rule)
    entry = int.from_bytes(description, "little")
    if entry >= 1 << 32:
        raise MalformedImageError("PVH note", field="entry", value=entry, rule="must lie below 4 GiB")
    return entry


def _scan_notes(source: Source, headers: list[_ProgramHeader]) -> tuple[int | None, bool]:
    pvh: int | None = None
    is_linux = False
    for header in headers:
        for name, kind, description in _notes(source, header):
            is_linux |= name == _LINUX_NAME
            if pvh is None and name == _XEN_NAME and kind == _XEN_PHYS32_ENTRY:
                pvh = _pvh_entry(description)
    return pvh, is_linux


def _check_entry(name: str, entry: int, segments: tuple[ElfSegment, ...]) -> None:
    if not any(s.memory.contains(GuestRange(entry, 1)) for s in segments):
        rule = "inside no loaded segment: it must be a physical address of the kernel"
        raise MalformedImageError("ELF kernel", field=name, value=entry, rule=rule)


def _check_table(entry_size: int, count: int, *, is_64bit: bool) -> None:
    wanted = _PHDR64.size if is_64bit else _PHDR32.size
    if not 0 < count <= MAX_PROGRAM_HEADERS:
        rule = f"must be 1..{MAX_PROGRAM_HEADERS}"
        raise MalformedImageError("ELF header", field="e_phnum", value=count, rule=rule)
    if entry_size != wanted:
        raise MalformedImageError(
            "ELF header", field="e_phentsize", value=entry_size, rule=f"must be {wanted:#x}"
        )


def parse_elf(source: Source) -> ElfInfo:
    """Check an ELF file and list what to load.

    Args:
        source: A file that begins with the ELF magic number.

    Returns:
        The checked description; every range lies inside the file.

    Raises:
        ImageError: Truncated, malformed, or of another architecture.
    """
    is_64bit = _check_identity(source.slice(0, 16, "ELF identification"))
    header = source.unpack(_EHDR64 if is_64bit else _EHDR32, 0, "ELF header")
    kind, machine, _, entry, table, _, _, _, entry_size, count = header[:10]
    _check_machine(machine, kind, is_64bit=is_64bit)
    _check_table(entry_size, count, is_64bit=is_64bit)
    headers = list(_program_headers(source, table, count, is_64bit=is_64bit))
    found = [_segment(source, h) for h in headers if h.kind == _PT_LOAD and h.mem_size]
    if not found:
        raise ImageError(f"ELF file has no PT_LOAD segment among {count}: nothing to load", what="ELF file")
    found.sort(key=lambda s: s.memory)
    _check_disjoint(found)
    segments = tuple(found)
    pvh, is_linux = _scan_notes(source, [h for h in headers if h.kind == _PT_NOTE])
    if pvh is not None:
        _check_entry("PVH entry", pvh, segments)
    return ElfInfo(is_64bit, entry, segments, pvh, is_linux)


def check_elf_entry(info: ElfInfo) -> None:
    """Refuse an ``e_entry`` outside the loaded segments, needed only when it is about to be used."""
    _check_entry("e_entry", info.entry, info.segments)
