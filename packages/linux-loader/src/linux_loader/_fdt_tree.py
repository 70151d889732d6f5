"""The device tree as values, and its flattened form (Devicetree Specification 0.4, chapters 2 and 5)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

from attrs import evolve, field, frozen

from linux_loader._errors import FdtBuildError
from linux_loader._ranges import ADDRESS_SPACE, GuestRange

MAX_DEPTH = 64
"""Deepest nesting of nodes that is written or read; the root has depth 1."""
MAX_NAME = 255
"""Longest name of a node or a property, in characters."""
MAGIC = 0xD00D_FEED
VERSION = 17
COMPATIBLE_VERSION = 16
BEGIN_NODE, END_NODE, PROP, NOP, END = 1, 2, 3, 4, 9
HEADER = struct.Struct(">10I")
RESERVE = struct.Struct(">QQ")
PROP_HEAD = struct.Struct(">II")
WORD = struct.Struct(">I")

NODE_NAME = re.compile(r"[0-9A-Za-z,._+-]+(@[0-9A-Za-z,._+-]+)?\Z")
PROPERTY_NAME = re.compile(r"[0-9A-Za-z,._+?#-]+\Z")
NO_PHANDLES = (0, 0xFFFF_FFFF)


def u32s(*values: int) -> bytes:
    """Encode a property of 32-bit cells.

    Args:
        values: Each 0 .. 2**32 - 1.

    Returns:
        Four bytes each, big-endian (section 2.2.4).

    Raises:
        FdtBuildError: A value does not fit.
    """
    return _numbers("I", 32, values)


def u64s(*values: int) -> bytes:
    """Encode a property of 64-bit numbers, two cells each.

    Args:
        values: Each 0 .. 2**64 - 1.

    Returns:
        Eight bytes each, big-endian (section 2.2.4).

    Raises:
        FdtBuildError: A value does not fit.
    """
    return _numbers("Q", 64, values)


def strings(*values: str) -> bytes:
    """Encode a string list, as of ``compatible``.

    Args:
        values: Text without NUL.

    Returns:
        Each in UTF-8 with a final NUL (section 2.2.4).

    Raises:
        FdtBuildError: A value holds NUL, or cannot be encoded.
    """
    for value in values:
        if "\0" in value:
            raise FdtBuildError("string", repr(value), "NUL ends a string, so none may hold it")
    try:
        return b"".join(value.encode() + b"\0" for value in values)
    except UnicodeEncodeError as error:
        raise FdtBuildError("string", repr(values), str(error)) from None


def _numbers(letter: str, bits: int, values: Sequence[int]) -> bytes:
    for value in values:
        if not 0 <= value < 1 << bits:
            raise FdtBuildError("cell", hex(value), f"must be 0..2^{bits} - 1")
    return struct.pack(f">{len(values)}{letter}", *values)


def _properties(given: Mapping[str, bytes]) -> Mapping[str, bytes]:
    return MappingProxyType({name: bytes(value) for name, value in given.items()})


def _children(given: Sequence[FdtNode]) -> tuple[FdtNode, ...]:
    return tuple(given)


@frozen
class FdtNode:
    """A node: name, properties, children; it is checked when it is written, and never changes.

    Attributes:
        name: With its unit address, such as ``"cpu@0"``; empty for the root alone.
        properties: Name to value as bytes, in order; make values with `u32s`, `u64s`, `strings`, or ``b""``.
        children: In order; no two of one name.
    """

    name: str
    properties: Mapping[str, bytes] = field(factory=dict, converter=_properties, hash=False)
    children: tuple[FdtNode, ...] = field(default=(), converter=_children)

    def child(self, name: str) -> FdtNode:
        """Return the child of exactly that name; KeyError when there is none."""
        for node in self.children:
            if node.name == name:
                return node
        raise KeyError(name)

    def u32s(self, name: str) -> tuple[int, ...]:
        """Read a property of cells; KeyError without it, ValueError unless its length is a multiple of 4."""
        return self._unpacked(name, "I", 4)

    def u64s(self, name: str) -> tuple[int, ...]:
        """Read a property of cell pairs; KeyError without it, ValueError unless of a multiple of 8 bytes."""
        return self._unpacked(name, "Q", 8)

    def strings(self, name: str) -> tuple[str, ...]:
        """Read a string list; KeyError without it, ValueError unless it ends in NUL and is UTF-8."""
        value = self.properties[name]
        if value[-1:] != b"\0":
            raise ValueError(f"{self.name}: {name} of {len(value)} bytes is no string list: no final NUL")
        return tuple(part.decode() for part in value[:-1].split(b"\0"))

    def _unpacked(self, name: str, letter: str, width: int) -> tuple[int, ...]:
        value = self.properties[name]
        if len(value) % width:
            raise ValueError(f"{self.name}: {name} of {len(value)} bytes is no list of {width}-byte numbers")
        return struct.unpack(f">{len(value) // width}{letter}", value)

    def updated(self, properties: Mapping[str, bytes]) -> FdtNode:
        """Return a copy with these properties set; others keep their place and value."""
        return evolve(self, properties={**self.properties, **properties})

    def with_child(self, child: FdtNode) -> FdtNode:
        """Return a copy with the child of that name replaced, or the child added at the end."""
        names = [node.name for node in self.children]
        if child.name not in names:
            return evolve(self, children=(*self.children, child))
        at = names.index(child.name)
        return evolve(self, children=(*self.children[:at], child, *self.children[at + 1 :]))


@frozen
class Fdt:
    """A flattened device tree: what a blob says.

    Attributes:
        root: The root node, whose name is empty.
        reservations: Ranges of memory that the client must leave alone: not empty, disjoint, in this order.
        boot_cpu: Physical id of the processor that boots, 0 .. 2**32 - 1.
    """

    root: FdtNode
    reservations: tuple[GuestRange, ...] = ()
    boot_cpu: int = 0

    def node(self, path: str) -> FdtNode:
        """Return the node at an absolute path such as ``"/cpus/cpu@0"``; KeyError names the missing part."""
        found = self.root
        for name in filter(None, path.split("/")):
            found = found.child(name)
        return found

    def by_phandle(self, phandle: int) -> FdtNode:
        """Return the node that has this phandle; KeyError when none has."""
        wanted = WORD.pack(phandle)
        for node in walk(self.root):
            if node.properties.get("phandle") == wanted:
                return node
        raise KeyError(phandle)

    def encode(self) -> bytes:
        """Flatten the tree, version 17.

        Returns:
            The blob: header, reservations, structure, strings. Equal names share their bytes, and a name
            that ends another shares its tail.

        Raises:
            FdtBuildError: A name, a phandle, a reservation or the boot processor breaks the specification,
                names repeat, or nodes nest deeper than `MAX_DEPTH`.

        Source: Devicetree Specification 0.4, sections 5.2 to 5.5.
        """
        if self.root.name:
            raise FdtBuildError("root node", self.root.name, "its name is empty")
        _check_phandles(self.root)
        reserved = _encode_reservations(self.reservations)
        names = _Strings()
        structure = bytearray()
        _write_node(structure, names, self.root, 1)
        structure += WORD.pack(END)
        structure_at = HEADER.size + len(reserved)
        strings_at = structure_at + len(structure)
        if not 0 <= self.boot_cpu < 1 << 32:
            raise FdtBuildError("boot_cpu", hex(self.boot_cpu), "must be 0..0xffffffff")
        total = strings_at + len(names.block)
        if total >= 1 << 31:
            raise FdtBuildError("blob", f"{total} bytes", "must be shorter than 2^31")
        head = HEADER.pack(
            MAGIC, total, structure_at, strings_at, HEADER.size, VERSION, COMPATIBLE_VERSION,
            self.boot_cpu, len(names.block), len(structure),
        )  # fmt: skip
        return head + reserved + bytes(structure) + bytes(names.block)


def walk(node: FdtNode) -> Iterator[FdtNode]:
    """Yield a node and all below it, parents first."""
    yield node
    for child in node.children:
        yield from walk(child)


class _Strings:
    """The strings block as it grows; a name is stored once, or found as the tail of another."""

    def __init__(self) -> None:
        self.block = bytearray()
        self._known: dict[str, int] = {}

    def offset(self, name: str) -> int:
        """Return where the name stands, adding it if need be."""
        if name not in self._known:
            encoded = name.encode("ascii") + b"\0"
            at = self.block.find(encoded)
            if at < 0:
                at = len(self.block)
                self.block += encoded
            self._known[name] = at
        return self._known[name]


def _encode_reservations(ranges: Sequence[GuestRange]) -> bytes:
    for reserved in ranges:
        if reserved.size < 1 or reserved.base < 0 or reserved.end > ADDRESS_SPACE:
            raise FdtBuildError("reservation", str(reserved), "must not be empty or leave 0..2^64")
    for lower, upper in pairwise(sorted(ranges)):
        if lower.overlaps(upper):
            raise FdtBuildError("reservation", str(upper), f"overlaps {lower}")
    try:
        return b"".join(RESERVE.pack(r.base, r.size) for r in ranges) + RESERVE.pack(0, 0)
    except struct.error:  # all 2^64 bytes
        raise FdtBuildError("reservation", str(list(map(str, ranges))), "must be shorter than 2^64") from None


def _check_phandles(root: FdtNode) -> None:
    seen: set[bytes] = set()
    for node in walk(root):
        value = node.properties.get("phandle")
        if value is None:
            continue
        if len(value) != 4 or WORD.unpack(value)[0] in NO_PHANDLES:
            raise FdtBuildError(f"phandle of {node.name}", value.hex(), "must be 1..0xfffffffe in four bytes")
        if value in seen:
            raise FdtBuildError(f"phandle of {node.name}", value.hex(), "belongs to another node already")
        seen.add(value)


def _check_node(node: FdtNode, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise FdtBuildError(f"node {node.name}", f"depth {depth}", f"at most {MAX_DEPTH}")
    if depth > 1 and not (NODE_NAME.match(node.name) and len(node.name) <= MAX_NAME):
        rule = f"1..{MAX_NAME} of 0-9 A-Z a-z , . _ + -, perhaps with @ and a unit address of the same"
        raise FdtBuildError("node name", repr(node.name), rule)
    names = [child.name for child in node.children]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FdtBuildError(f"node {node.name or '/'}", twice, "two children of one name")
    for name, value in node.properties.items():
        if not (PROPERTY_NAME.match(name) and len(name) <= MAX_NAME):
            rule = f"1..{MAX_NAME} of 0-9 A-Z a-z , . _ + ? # -"
            raise FdtBuildError(f"property name in {node.name or '/'}", repr(name), rule)
        if len(value) >= 1 << 31:
            raise FdtBuildError(f"property {name}", f"{len(value)} bytes", "must be shorter than 2^31")


def _write_node(out: bytearray, names: _Strings, node: FdtNode, depth: int) -> None:
    _check_node(node, depth)
    name = node.name.encode("ascii")
    out += WORD.pack(BEGIN_NODE) + name + bytes(4 - len(name) % 4)
    for key, value in node.properties.items():
        out += WORD.pack(PROP) + PROP_HEAD.pack(len(value), names.offset(key))
        out += value + bytes(-len(value) % 4)
    for child in node.children:
        _write_node(out, names, child, depth + 1)
    out += WORD.pack(END_NODE)
