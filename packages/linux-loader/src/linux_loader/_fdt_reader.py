"""Reader of flattened device trees (Devicetree Specification 0.4, chapter 5); every byte is hostile."""

from __future__ import annotations

from itertools import pairwise

from attrs import frozen

from linux_loader._errors import FdtParseError
from linux_loader._fdt_tree import (
    BEGIN_NODE,
    END,
    END_NODE,
    HEADER,
    MAGIC,
    MAX_DEPTH,
    MAX_NAME,
    NO_PHANDLES,
    NODE_NAME,
    NOP,
    PROP,
    PROP_HEAD,
    PROPERTY_NAME,
    RESERVE,
    VERSION,
    WORD,
    Fdt,
    FdtNode,
)
from linux_loader._ranges import ADDRESS_SPACE, GuestRange, align_up

MAX_BLOB = 2 << 20
"""Longest blob that `parse_fdt` reads unless told otherwise: what arm64 Linux maps, 2 MiB."""


def parse_fdt(blob: bytes | bytearray | memoryview, *, limit: int = MAX_BLOB) -> Fdt:
    """Read a device tree blob.

    Args:
        blob: The blob; what follows its own total size is ignored.
        limit: Longest total size that is read, in bytes.

    Returns:
        The tree. Padding, NOP tokens and the order of the strings are lost, nothing else.

    Raises:
        FdtParseError: The blob is truncated, contradicts itself or the specification, nests deeper than
            `MAX_DEPTH`, is longer than ``limit``, or older than version 17 (of 2005).

    Source: Devicetree Specification 0.4, chapter 5.
    """
    header = _read_header(blob, limit)
    data = bytes(memoryview(blob)[: header.total])
    reservations = _reservations(data, header)
    structure = _Structure(data, header)
    return Fdt(structure.tree(), reservations, header.boot_cpu)


@frozen
class _Header:
    total: int
    structure: GuestRange
    strings: GuestRange
    reserved_at: int
    boot_cpu: int


def _read_header(blob: bytes | bytearray | memoryview, limit: int) -> _Header:
    if len(blob) < HEADER.size:
        raise FdtParseError(0, f"{len(blob)} bytes, shorter than the header's {HEADER.size}")
    (
        magic,
        total,
        structure,
        strings,
        reserved,
        version,
        compatible,
        boot_cpu,
        strings_size,
        structure_size,
    ) = HEADER.unpack_from(blob)
    if magic != MAGIC:
        raise FdtParseError(0, f"magic is {magic:#x}, not {MAGIC:#x}")
    if version < VERSION or compatible > VERSION or compatible > version:
        raise FdtParseError(
            20, f"version {version}, compatible with {compatible}; this reader knows {VERSION}"
        )
    if not HEADER.size <= total <= min(len(blob), limit):
        raise FdtParseError(
            4, f"totalsize is {total:#x}; {len(blob):#x} bytes are there, the limit is {limit:#x}"
        )
    if reserved % 8 or reserved < HEADER.size or structure % 4:
        raise FdtParseError(8, f"blocks at {structure:#x} and {reserved:#x}: not aligned, or in the header")
    header = _Header(
        total, GuestRange(structure, structure_size), GuestRange(strings, strings_size), reserved, boot_cpu
    )
    for block in (header.structure, header.strings):
        if block.base < HEADER.size or block.end > total:
            raise FdtParseError(8, f"block {block} is outside the blob's {HEADER.size:#x}..{total:#x}")
    if structure_size % 4:
        raise FdtParseError(36, f"size_dt_struct is {structure_size:#x}, not a multiple of 4")
    return header


def _reservations(data: bytes, header: _Header) -> tuple[GuestRange, ...]:
    found = []
    at = header.reserved_at
    while True:
        if at + RESERVE.size > header.total:
            raise FdtParseError(at, "the list of memory reservations has no end")
        base, size = RESERVE.unpack_from(data, at)
        if base == size == 0:
            break
        if size == 0 or base + size > ADDRESS_SPACE:
            raise FdtParseError(at, f"memory reservation {base:#x} + {size:#x} is empty or leaves 0..2^64")
        found.append(GuestRange(base, size))
        at += RESERVE.size
    for lower, upper in pairwise(sorted(found)):
        if lower.overlaps(upper):
            raise FdtParseError(header.reserved_at, f"memory reservation {upper} overlaps {lower}")
    return tuple(found)


class _Structure:
    """A position in the structure block; every read is checked against the block's end."""

    def __init__(self, data: bytes, header: _Header) -> None:
        self._data = data
        self._at = header.structure.base
        self._end = header.structure.end
        self._strings = data[header.strings.base : header.strings.end]
        self._phandles: set[int] = set()

    def tree(self) -> FdtNode:
        """Read the only tree of the block, and its end."""
        if self._token() != BEGIN_NODE:
            raise self._fail("the structure does not begin with a node")
        root = self._node(1)
        if self._token() != END:
            raise self._fail("the root is not followed by the end")
        if self._at != self._end:
            raise self._fail(f"{self._end - self._at:#x} bytes after the end")
        return root

    def _fail(self, reason: str) -> FdtParseError:
        return FdtParseError(self._at, reason)

    def _take(self, size: int) -> bytes:
        """Take bytes and the padding behind them."""
        if size > self._end - self._at:
            raise self._fail(f"{size:#x} bytes wanted, {self._end - self._at:#x} left in the structure")
        start, self._at = self._at, min(align_up(self._at + size, 4), self._end)
        return self._data[start : start + size]

    def _token(self) -> int:
        while (token := int(WORD.unpack(self._take(4))[0])) == NOP:
            pass
        return token

    def _node(self, depth: int) -> FdtNode:
        if depth > MAX_DEPTH:
            raise self._fail(f"nested deeper than {MAX_DEPTH}")
        name = self._node_name(depth)
        properties: dict[str, bytes] = {}
        children: list[FdtNode] = []
        names: set[str] = set()
        while (token := self._token()) != END_NODE:
            if token == PROP and not children:
                self._property(properties)
            elif token == BEGIN_NODE:
                children.append(self._node(depth + 1))
                if children[-1].name in names:
                    raise self._fail(f"two nodes {children[-1].name!r} under {name or '/'}")
                names.add(children[-1].name)
            else:
                where = "a property after a child" if token == PROP else f"token {token:#x}"
                raise self._fail(f"{where} in node {name or '/'}")
        self._check_phandle(name, properties)
        return FdtNode(name, properties, children)

    def _node_name(self, depth: int) -> str:
        end = self._data.find(b"\0", self._at, min(self._end, self._at + MAX_NAME + 1))
        if end < 0:
            raise self._fail(f"a node's name has no end within {MAX_NAME} bytes")
        name = self._take(end + 1 - self._at)[:-1].decode("latin-1")
        if (depth == 1 and name) or (depth > 1 and not NODE_NAME.match(name)):
            raise self._fail(f"{name!r} is no name of {'the root' if depth == 1 else 'a node'}")
        return name

    def _property(self, properties: dict[str, bytes]) -> None:
        size, name_at = PROP_HEAD.unpack(self._take(PROP_HEAD.size))
        end = self._strings.find(b"\0", name_at, name_at + MAX_NAME + 1)
        if end < 0:
            raise self._fail(f"a property's name at {name_at:#x} of the strings has no end")
        name = self._strings[name_at:end].decode("latin-1")
        if not PROPERTY_NAME.match(name):
            raise self._fail(f"{name!r} is no name of a property")
        if name in properties:
            raise self._fail(f"property {name!r} appears twice")
        properties[name] = self._take(size)

    def _check_phandle(self, name: str, properties: dict[str, bytes]) -> None:
        value = properties.get("phandle")
        if value is None:
            return
        number = WORD.unpack(value)[0] if len(value) == 4 else 0
        if number in NO_PHANDLES or number in self._phandles:
            raise self._fail(f"phandle {value.hex(' ')} of {name or '/'} is impossible or taken")
        self._phandles.add(number)
