"""The reader of device tree blobs, against libfdt and hostile bytes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import FdtParseError, GuestRange
from linux_loader.fdt import Fdt, FdtNode, parse_fdt, u32s

TREE = Fdt(
    FdtNode(
        "",
        {"compatible": b"linux,dummy\0", "#address-cells": u32s(2)},
        [
            FdtNode(
                "cpus", {"#size-cells": u32s(0)}, [FdtNode("cpu@0", {"reg": u32s(0), "phandle": u32s(1)})]
            ),
            FdtNode("memory@80000000", {"device_type": b"memory\0", "reg": u32s(0, 1 << 31, 0, 1 << 28)}),
            FdtNode("chosen"),
        ],
    ),
    (GuestRange(0x8000_0000, 0x1000), GuestRange(0x9000_0000, 0x1000)),
)
BLOB = TREE.encode()
STRUCTURE, STRINGS = struct.unpack_from(">II", BLOB, 8)


def plain(node):
    """A tree as tuples, properties in order."""
    return node.name, list(node.properties.items()), [plain(child) for child in node.children]


@given(st.binary(max_size=400))
def test_arbitrary_bytes(data):
    """Random bytes are refused, with the documented error."""
    with pytest.raises(FdtParseError):
        parse_fdt(data)
    with pytest.raises(FdtParseError):
        parse_fdt(BLOB[:STRUCTURE] + data + bytes(8))


@given(
    changes=st.lists(st.tuples(st.integers(0, len(BLOB) - 1), st.integers(0, 255)), min_size=1, max_size=6)
)
def test_a_mutated_blob_is_refused_or_read_as_libfdt_reads_it(libfdt_tree, changes):
    """What we accept, libfdt accepts, and sees the same tree."""
    data = bytearray(BLOB)
    for at, value in changes:
        data[at] = value
    try:
        found = parse_fdt(data)
    except FdtParseError:
        return
    assert libfdt_tree(bytes(data)) == plain(found.root)
    assert parse_fdt(found.encode()) == found


@given(st.integers(0, len(BLOB) - 1))
def test_every_cut_is_noticed(size):
    """No prefix of a blob is a blob."""
    with pytest.raises(FdtParseError):
        parse_fdt(BLOB[:size])


def put(at, *words):
    """The blob with other words at an offset."""
    data = bytearray(BLOB)
    struct.pack_into(f">{len(words)}I", data, at, *words)
    return bytes(data)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "byte 0x0: 0 bytes, shorter than the header's 40"),
        (put(0, 0xD00D_FEEE), "magic is 0xd00dfeee"),
        (put(4, len(BLOB) + 1), "totalsize is"),
        (put(4, 39), "totalsize is 0x27"),
        (put(8, STRUCTURE + 2), "not aligned, or in the header"),
        (put(8, 36), "outside the blob's"),
        (put(12, 1 << 31), "block 0x80000000"),
        (put(16, 44), "not aligned, or in the header"),
        (put(16, 0), "not aligned, or in the header"),
        (put(20, 16), "version 16, compatible with 16"),
        (put(24, 18), "version 17, compatible with 18"),
        (put(36, 7), "size_dt_struct is 0x7"),
        (put(16, len(BLOB) // 8 * 8), "list of memory reservations has no end"),
        (put(48, 0, 0), "is empty or leaves"),
        (put(40, 0, 0x8FFF_FFFF, 0, 0x1000), "overlaps"),
        (put(STRUCTURE, 2), "does not begin with a node"),
        (put(STRUCTURE + 4, 0x6100_0000), "'a' is no name of the root"),
        (put(STRUCTURE + 8, 7), "token 0x7 in node /"),
        (put(STRUCTURE + 12, 0xFFFF_FFF0), "bytes wanted"),
        (put(STRUCTURE + 16, 0xFFFF_FFF0), "name at 0xfffffff0 of the strings has no end"),
        (put(STRINGS, 0x2020_2020), "is no name of a property"),
        (put(STRINGS - 4, 4), "0x4 bytes wanted, 0x0 left"),
        (put(STRINGS - 4, 2), "not followed by the end"),
    ],
)
def test_contradictions_are_named(blob, message):
    """The error says where and what."""
    with pytest.raises(FdtParseError, match=message):
        parse_fdt(blob)


def structure(*words):
    """A blob of raw structure words, with the strings of the sample."""
    body = struct.pack(f">{len(words)}I", *words)
    names = BLOB[STRINGS:]
    head = struct.pack(
        ">10I",
        0xD00D_FEED,
        56 + len(body) + len(names),
        56,
        56 + len(body),
        40,
        17,
        16,
        0,
        len(names),
        len(body),
    )
    return head + bytes(16) + body + names


A, ROOT, PHANDLE = 0x6100_0000, (1, 0), BLOB[STRINGS:].index(b"phandle")


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (structure(*ROOT, 2, 9, 4), "0x4 bytes after the end"),
        (structure(*ROOT, 2), "0x4 bytes wanted, 0x0 left"),
        (structure(*ROOT, 1, A, 2, 1, A, 2, 2, 9), "two nodes 'a' under /"),
        (structure(*ROOT, 1, A, 2, 3, 0, 0, 2, 9), "a property after a child in node /"),
        (structure(*ROOT, 3, 0, 0, 3, 0, 0, 2, 9), "property 'compatible' appears twice"),
        (structure(*ROOT, 1, 0, 2, 2, 9), "'' is no name of a node"),
        (structure(*ROOT, 1, 0x2F00_0000, 2, 2, 9), "'/' is no name of a node"),
        (structure(*ROOT, 3, 4, PHANDLE, 0, 2, 9), "phandle 00 00 00 00 of / is impossible"),
        (structure(*ROOT, 3, 3, PHANDLE, 1 << 8, 2, 9), "phandle 00 00 01 of / is impossible"),
        (structure(*ROOT, 1, A, 3, 4, PHANDLE, 7, 2, 3, 4, PHANDLE, 7, 2, 9), "a property after"),
        (structure(*ROOT, *[1, A] * 70, *[2] * 71, 9), "nested deeper than 64"),
        (structure(1, *[0x6161_6161] * 80), "has no end within 255"),
        (
            structure(
                *ROOT, *[1, 0x6100_0000, 3, 4, PHANDLE, 7, 2, 1, 0x6200_0000, 3, 4, PHANDLE, 7, 2], 2, 9
            ),
            "or taken",
        ),
    ],
)
def test_structures_that_break_the_rules(blob, message):
    """Section 5.4: nesting, order, names, and phandles."""
    with pytest.raises(FdtParseError, match=message):
        parse_fdt(blob)


def test_what_a_reader_must_skip():
    """NOP tokens between others, bytes after the blob, free room between the blocks."""
    blob = structure(4, 1, 0, 4, 3, 0, 0, 4, 4, 1, A, 4, 2, 4, 2, 4, 9)
    assert plain(parse_fdt(blob + b"more").root) == ("", [("compatible", b"")], [("a", [], [])])


def test_the_limit_is_the_callers():
    """Two MiB unless told otherwise: what Linux maps on arm64."""
    big = Fdt(FdtNode("", {"data": bytes(2 << 20)})).encode()
    with pytest.raises(FdtParseError, match="the limit is 0x200000"):
        parse_fdt(big)
    assert len(parse_fdt(big, limit=len(big)).root.properties["data"]) == 2 << 20
