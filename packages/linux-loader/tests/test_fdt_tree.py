"""Device trees: written, read back, and judged by dtc and by libfdt."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linux_loader import FdtBuildError, GuestRange
from linux_loader.fdt import MAX_DEPTH, MAX_NAME, Fdt, FdtNode, parse_fdt, strings, u32s, u64s
from vmm_testhost.pytest_plugin import LONG

NAMES = st.text("abcxyz019,._+-", min_size=1, max_size=12)
UNITS = st.none() | st.text("0123456789abcdef,", min_size=1, max_size=9)
PROPERTIES = st.dictionaries(
    st.text("abc#?,._+-01", min_size=1, max_size=14) | st.sampled_from(["reg", "#size-cells", "size-cells"]),
    st.binary(max_size=70) | st.lists(st.integers(0, 0xFFFF_FFFF), max_size=4).map(lambda v: u32s(*v)),
    max_size=5,
)


def _unique(nodes):
    return list({node.name: node for node in nodes}.values())


def _node(children):
    names = st.builds(lambda name, unit: name if unit is None else f"{name}@{unit}", NAMES, UNITS)
    return st.builds(FdtNode, names, PROPERTIES, st.lists(children, max_size=4).map(_unique))


NODES = st.recursive(st.builds(FdtNode, NAMES, PROPERTIES), _node, max_leaves=12)


@st.composite
def trees(draw):
    """Trees with reservations and phandles."""
    children = _unique(draw(st.lists(NODES, max_size=4)))
    numbers = draw(st.lists(st.integers(1, 0xFFFF_FFFE), max_size=len(children), unique=True))
    children = [
        child.updated({"phandle": u32s(number)}) for child, number in zip(children, numbers, strict=False)
    ] + children[len(numbers) :]
    edges = sorted(draw(st.sets(st.integers(0, 1 << 64), max_size=6)))
    reserved = [
        GuestRange(a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=False) if b - a < 1 << 64
    ]
    root = FdtNode("", draw(PROPERTIES), children)
    return Fdt(root, tuple(draw(st.permutations(reserved))), draw(st.integers(0, 0xFFFF_FFFF)))


def test_a_small_tree_byte_by_byte():
    """The layout of section 5: header, reservations, structure, strings, each where the header says."""
    node = FdtNode("cpu@0", {"size-cells": u32s(7)})
    blob = Fdt(FdtNode("", {"#size-cells": b"\x01"}, [node]), (GuestRange(16, 32),), 5).encode()
    assert blob[:40].hex(" ", 4) == (
        "d00dfeed 00000094 00000048 00000088 00000028 00000011 00000010 00000005 0000000c 00000040"
    )
    assert blob[40:72] == (16).to_bytes(8, "big") + (32).to_bytes(8, "big") + bytes(16)
    # "size-cells" is the tail of "#size-cells": it stands at offset 1 of the strings block.
    assert blob[72:136].hex(" ", 4) == (
        "00000001 00000000 00000003 00000001 00000000 01000000 00000001 63707540 30000000 "
        "00000003 00000004 00000001 00000007 00000002 00000002 00000009"
    )
    assert blob[136:] == b"#size-cells\0"


@given(trees())
@example(Fdt(FdtNode("")))
def test_what_is_written_reads_back(tree):
    """Names, values, their order, reservations and the boot processor."""
    found = parse_fdt(tree.encode())
    assert found == tree
    assert _plain(found.root) == _plain(tree.root)  # order of properties too


def _plain(node):
    return node.name, list(node.properties.items()), [_plain(child) for child in node.children]


@settings(max_examples=500 if LONG else 40, deadline=None)
@given(tree=trees())
def test_dtc_reads_what_is_written(dtc, tree):
    """The reference compiler takes our blob apart and makes one of its own, which says the same."""
    assert parse_fdt(dtc(tree.encode(), "dtb", "dtb")) == tree


@settings(max_examples=250 if LONG else 15, deadline=None)
@given(tree=trees())
def test_source_that_dtc_prints_compiles_to_the_same_tree(dtc, tree):
    """Blob to source and back through dtc: property types do not change a byte."""
    again = parse_fdt(dtc(dtc(tree.encode(), "dtb", "dts"), "dts", "dtb"))
    assert _plain(again.root) == _plain(tree.root)
    assert again.reservations == tree.reservations


@given(tree=trees())
def test_libfdt_sees_the_same_tree(libfdt_tree, tree):
    """Linux's own library walks our blob."""
    assert libfdt_tree(tree.encode()) == _plain(tree.root)


def test_values():
    """Each property type of section 2.2.4, written and read."""
    node = FdtNode(
        "n", {"u": u32s(1, 0xFFFF_FFFF), "q": u64s(1 << 40), "s": strings("a", "", "\u00e9"), "e": b""}
    )
    assert node.properties["u"] == bytes.fromhex("00000001ffffffff")
    assert (node.u32s("u"), node.u64s("q"), node.strings("s")) == (
        (1, 0xFFFF_FFFF),
        (1 << 40,),
        ("a", "", "\u00e9"),
    )
    assert node.u32s("e") == ()
    with pytest.raises(ValueError, match="u of 8 bytes is no string list"):
        node.strings("u")
    with pytest.raises(ValueError, match="s of 6 bytes is no list of 4-byte numbers"):
        node.u32s("s")
    with pytest.raises(KeyError, match="absent"):
        node.u64s("absent")


def test_lookup_and_change():
    """By path, by phandle, and copies with a change."""
    leaf = FdtNode("gic@8000000", {"phandle": u32s(3)})
    tree = Fdt(FdtNode("", {}, [FdtNode("soc", {}, [leaf]), FdtNode("chosen", {"a": b"1", "b": b"2"})]))
    assert tree.node("/soc/gic@8000000") is tree.by_phandle(3) is leaf
    assert tree.node("/") is tree.root
    with pytest.raises(KeyError, match="gic"):
        tree.node("/soc/gic")
    with pytest.raises(KeyError, match="4"):
        tree.by_phandle(4)
    chosen = tree.node("/chosen").updated({"a": b"3", "c": b""})
    assert list(chosen.properties.items()) == [("a", b"3"), ("b", b"2"), ("c", b"")]
    assert [node.name for node in tree.root.with_child(chosen).children] == ["soc", "chosen"]
    assert tree.root.with_child(chosen).child("chosen") is chosen
    assert tree.root.with_child(leaf).children[-1] is leaf


def _deep(depth):
    node = FdtNode("leaf")
    for _ in range(depth - 2):
        node = FdtNode("n", {}, [node])
    return FdtNode("", {}, [node])


def test_limits_are_reached():
    """The deepest tree and the longest names that are allowed."""
    tree = Fdt(_deep(MAX_DEPTH).updated({"p" * MAX_NAME: b"x"}).with_child(FdtNode("q" * MAX_NAME)))
    assert parse_fdt(tree.encode()) == tree


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (Fdt(FdtNode("name")), "root node cannot be name: its name is empty"),
        (Fdt(_deep(MAX_DEPTH + 1)), "depth 65: at most 64"),
        (Fdt(FdtNode("", {}, [FdtNode("")])), "node name cannot be ''"),
        (Fdt(FdtNode("", {}, [FdtNode("a b")])), "node name cannot be 'a b'"),
        (Fdt(FdtNode("", {}, [FdtNode("a@1@2")])), "node name cannot be 'a@1@2'"),
        (Fdt(FdtNode("", {}, [FdtNode("a\n")])), "node name cannot be"),
        (Fdt(FdtNode("", {}, [FdtNode("n" * (MAX_NAME + 1))])), "node name cannot be"),
        (
            Fdt(FdtNode("", {}, [FdtNode("a"), FdtNode("b"), FdtNode("a")])),
            "node / cannot be a: two children",
        ),
        (Fdt(FdtNode("", {"a/b": b""})), "property name in / cannot be 'a/b'"),
        (Fdt(FdtNode("", {"": b""})), "property name in / cannot be ''"),
        (Fdt(FdtNode("", {"phandle": u32s(0)})), "phandle of  cannot be 00000000"),
        (Fdt(FdtNode("", {"phandle": b"\0\1"})), "must be 1..0xfffffffe in four bytes"),
        (
            Fdt(FdtNode("", {"phandle": u32s(1)}, [FdtNode("a", {"phandle": u32s(1)})])),
            "phandle of a cannot be 00000001: belongs to another node",
        ),
        (Fdt(FdtNode(""), (GuestRange(16, 0),)), "reservation cannot be"),
        (Fdt(FdtNode(""), (GuestRange(1, (1 << 64) - 1), GuestRange(0, 2))), "overlaps"),
        (Fdt(FdtNode(""), (GuestRange(1, 1 << 64),)), "leave 0..2\\^64"),
        (Fdt(FdtNode(""), (GuestRange(0, 1 << 64),)), "shorter than 2\\^64"),
        (Fdt(FdtNode(""), (), 1 << 32), "boot_cpu cannot be 0x100000000"),
    ],
)
def test_what_the_format_forbids_is_refused(tree, message):
    """The message names the part, the value and the rule."""
    with pytest.raises(FdtBuildError, match=message):
        tree.encode()


@pytest.mark.parametrize(
    "build", [lambda: u32s(1 << 32), lambda: u64s(-1), lambda: strings("a\0b"), lambda: strings("\ud800")]
)
def test_values_that_do_not_fit_are_refused(build):
    """No cell is cut, no string ends early."""
    with pytest.raises(FdtBuildError, match="cannot be"):
        build()
