"""The ELF parser, with pyelftools as the second opinion."""

import contextlib
import io
import struct

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import ForeignArchitectureError, ImageError, KernelImage, LoaderError, MalformedImageError
from linux_loader.testing import LINUX_NOTE, SegmentSpec, build_elf, build_note, pvh_note

BASE = 0x100_0000
ONE = [SegmentSpec(BASE, b"\xf4" * 64, 0x1000)]


def parse(data):
    """The ELF description of a file."""
    return KernelImage.from_bytes(data).elf


def patched(data, offset, layout, value):
    """The file with one field changed."""
    out = bytearray(data)
    struct.pack_into(layout, out, offset, value)
    return bytes(out)


def test_fixture_against_pyelftools(vmlinux):
    """Segments and entry equal what pyelftools reads."""
    info = parse(vmlinux)
    oracle = ELFFile(io.BytesIO(vmlinux))
    loads = [s for s in oracle.iter_segments() if s["p_type"] == "PT_LOAD"]
    assert [(s.offset, s.file_size, s.memory.base, s.memory.size) for s in info.segments] == [
        (s["p_offset"], s["p_filesz"], s["p_paddr"], s["p_memsz"]) for s in loads
    ]
    assert info.entry == oracle["e_entry"]
    assert info.is_linux
    assert info.pvh_entry == BASE + 0x30
    assert (info.memory.base, info.memory.end) == (BASE, 0x120_0000 + 2048)


segment_lists = st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 64)), min_size=1, max_size=5).map(
    lambda items: [
        SegmentSpec(BASE + i * 0x1000, data, len(data) + extra) for i, (data, extra) in enumerate(items)
    ]
)


@given(segment_lists, st.sampled_from([32, 64]), st.booleans())
def test_any_built_file_against_pyelftools(segments, bits, with_note):
    """Whatever the builder can make, both parsers read alike."""
    data = build_elf(
        segments,
        entry=BASE,
        bits=bits,
        machine=62 if bits == 64 else 3,
        notes=[LINUX_NOTE] if with_note else [],
    )
    wanted = [
        s for s in ELFFile(io.BytesIO(data)).iter_segments() if s["p_type"] == "PT_LOAD" and s["p_memsz"]
    ]
    if not wanted:
        with pytest.raises(ImageError, match="no PT_LOAD segment"):
            parse(data)
        return
    info = parse(data)
    assert [(s.memory.base, s.file_size) for s in info.segments] == [
        (s["p_paddr"], s["p_filesz"]) for s in wanted
    ]
    assert (info.is_64bit, info.is_linux, info.pvh_entry) == (bits == 64, with_note, None)


@pytest.mark.parametrize("align", [4, 8])
def test_notes_with_both_alignments(align):
    """The PVH note is found behind other notes, in segments of either alignment."""
    other = build_note(b"GNU\0", 5, b"abcdefghijkl", align=align)
    data = build_elf(ONE, entry=BASE, notes=[other + pvh_note(BASE + 4, align=align)], note_align=align)
    assert parse(data).pvh_entry == BASE + 4


def test_a_later_note_segment_does_not_erase_the_entry():
    """A PT_NOTE without the Xen note after one that has it changes nothing."""
    data = build_elf(ONE, entry=BASE, notes=[pvh_note(BASE), build_note(b"GNU\0", 3, b"id")])
    assert parse(data).pvh_entry == BASE


@pytest.mark.parametrize(
    ("machine", "bits", "name"),
    [
        (183, 64, "AArch64"),
        (243, 64, "RISC-V"),
        (21, 64, "64-bit PowerPC"),
        (62, 32, "x32"),
        (3, 64, "i386"),
        (999, 64, "unknown"),
    ],
)
def test_foreign_machines(machine, bits, name):
    """Another processor's kernel is named."""
    with pytest.raises(ForeignArchitectureError, match=rf"{name}.*e_machine {machine}.*x86-64"):
        parse(build_elf(ONE, entry=BASE, machine=machine, bits=bits))


def test_big_endian():
    """A big-endian file is foreign, whatever else it says."""
    with pytest.raises(ForeignArchitectureError, match="big-endian"):
        parse(patched(build_elf(ONE, entry=BASE), 5, "B", 2))


@pytest.mark.parametrize(
    ("offset", "layout", "value", "match"),
    [
        (4, "B", 9, r"EI_CLASS\] is 0x9, must be 1 or 2"),
        (5, "B", 0, r"EI_DATA\] is 0x0"),
        (6, "B", 7, r"EI_VERSION\] is 0x7"),
        (16, "<H", 1, "e_type is 0x1, a relocatable object such as a kernel module"),
        (54, "<H", 32, "e_phentsize is 0x20, must be 0x38"),
        (56, "<H", 0, "e_phnum is 0x0, must be 1..512"),
        (56, "<H", 0xFFFF, "e_phnum is 0xffff"),
        (64 + 32, "<Q", 0x2000, r"p_filesz is 0x2000, more than p_memsz \(0x1000\)"),
        (64 + 24, "<Q", 2**64 - 0x800, r"wraps around 2\^64"),
    ],
)
def test_bad_fields(offset, layout, value, match):
    """Each impossible field is named with its value and the rule."""
    with pytest.raises(MalformedImageError, match=match):
        parse(patched(build_elf(ONE, entry=BASE), offset, layout, value))


def test_segment_past_the_end():
    """A segment outside the file is a truncated file."""
    with pytest.raises(ImageError, match="PT_LOAD segment needs 64 bytes at file offset 0xfffffffffffffff0"):
        parse(patched(build_elf(ONE, entry=BASE), 64 + 8, "<Q", 2**64 - 16))


def test_overlapping_segments():
    """Two segments at one address are refused."""
    data = build_elf([SegmentSpec(BASE, b"a" * 64), SegmentSpec(BASE + 63, b"b")], entry=BASE)
    with pytest.raises(
        MalformedImageError, match=r"p_paddr is 0x100003f, inside the segment 0x1000000..0x1000040"
    ):
        parse(data)


@pytest.mark.parametrize(
    ("note", "match"),
    [
        (build_note(b"Xen\0", 18, b"\1"), "n_descsz is 0x1, must be 4 or 8"),
        (build_note(b"Xen\0", 18, struct.pack("<Q", 2**32)), "must lie below 4 GiB"),
        (pvh_note(0x5000), "PVH entry is 0x5000, inside no loaded segment"),
        (struct.pack("<III", 4, 2**31, 18) + b"Xen\0", "past the end of the note segment"),
        (struct.pack("<III", 2**32 - 1, 2**32 - 1, 18), "past the end of the note segment"),
    ],
)
def test_bad_notes(note, match):
    """Notes are read within their segment and the entry must be loaded."""
    with pytest.raises(MalformedImageError, match=match):
        parse(build_elf(ONE, entry=BASE, notes=[note]))


def test_huge_note_segment():
    """A note segment over 1 MiB is refused instead of searched."""
    with pytest.raises(MalformedImageError, match="p_filesz is 0x100004, more than the 0x100000 bytes"):
        parse(build_elf(ONE, entry=BASE, notes=[bytes((1 << 20) + 4)]))


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8), st.integers(0, 300))
def test_mutated_files(vmlinux, changes, cut):
    """A damaged ELF file parses or raises LoaderError."""
    data = bytearray(vmlinux[: len(vmlinux) - cut * 20])
    for at, value in changes:
        data[at % len(data)] = value
    with contextlib.suppress(LoaderError):
        assert KernelImage.from_bytes(bytes(data)).format in ("elf", "bzimage")
