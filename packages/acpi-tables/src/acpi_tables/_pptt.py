"""The PPTT: which processors share which caches and packages (ACPI 6.3 §5.2.29)."""

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TypeAlias

import attrs

from acpi_tables._errors import EncodingError, TableError
from acpi_tables._header import HEADER, packed, sdt

__all__ = ("CacheKind", "CacheNode", "Pptt", "ProcessorNode")

_REVISION = 2
_PROCESSOR = struct.Struct("<BBHIIII")
_CACHE = struct.Struct("<BBHIIIIBBH")
_PACKAGE, _UID_VALID, _THREAD, _LEAF = 1, 2, 4, 8
_KNOWN_FLAGS = _PACKAGE | _UID_VALID | _THREAD | _LEAF
_ALL_CACHE_FIELDS = 0x7F
_READ_WRITE_ALLOCATE = 2
_MAX_CACHES = (0xFF - _PROCESSOR.size) // 4


class CacheKind(IntEnum):
    """What a cache holds (table 5-153)."""

    DATA = 0
    INSTRUCTION = 1
    UNIFIED = 2


@attrs.frozen(kw_only=True)
class ProcessorNode:
    """A processor, or a group of them: cluster, die, package.

    Attributes:
        parent: position in the table of the group it belongs to; None for the outermost.
        uid: ``_UID`` of the processor device or container; None for a group without one.
        package: a physical package.
        thread: a thread that shares its core with others.
        leaf: a processor, not a group.
        caches: positions of its own caches, the level nearest to it; at most 58.
    """

    parent: int | None = None
    uid: int | None = None
    package: bool = False
    thread: bool = False
    leaf: bool = False
    caches: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class CacheNode:
    """A cache.

    Attributes:
        kind: what it holds.
        size: bytes, 32 bits.
        sets: number of sets, 32 bits.
        ways: associativity, 8 bits.
        line_size: bytes, 16 bits.
        write_through: else write-back.
        next_level: position of the cache behind it; None for the last.
    """

    kind: CacheKind
    size: int
    sets: int
    ways: int
    line_size: int
    write_through: bool = False
    next_level: int | None = None


PpttNode: TypeAlias = ProcessorNode | CacheNode


@attrs.frozen
class Pptt:
    """What the PPTT says.

    Attributes:
        nodes: in order; they name each other by position, which the table holds as byte offsets.
    """

    nodes: tuple[PpttNode, ...]

    def encode(self) -> bytes:
        """Build the table, revision 2.

        Raises:
            EncodingError: a position leads to no node of that kind, a field does not fit, or a processor has
                more than 58 caches.
        """
        offsets, at = [], HEADER.size
        for node in self.nodes:
            offsets.append(at)
            at += _CACHE.size if isinstance(node, CacheNode) else _PROCESSOR.size + 4 * len(node.caches)
        return sdt(b"PPTT", _REVISION, b"".join(self._encoded(node, offsets) for node in self.nodes))

    def _offset(self, field: str, position: int | None, kind: type[PpttNode], offsets: list[int]) -> int:
        if position is None:
            return 0
        if not 0 <= position < len(self.nodes) or not isinstance(self.nodes[position], kind):
            raise EncodingError(field, position, f"the position of a {kind.__name__}")
        return offsets[position]

    def _encoded(self, node: PpttNode, offsets: list[int]) -> bytes:
        if isinstance(node, CacheNode):
            following = self._offset("next_level", node.next_level, CacheNode, offsets)
            attributes = _READ_WRITE_ALLOCATE | node.kind << 2 | node.write_through << 4
            return packed(
                "cache", node.size, _CACHE, 1, _CACHE.size, 0, _ALL_CACHE_FIELDS, following, node.size,
                node.sets, node.ways, attributes, node.line_size,
            )  # fmt: skip
        if len(node.caches) > _MAX_CACHES:
            raise EncodingError("caches of a processor", len(node.caches), f"at most {_MAX_CACHES}")
        parent = self._offset("parent", node.parent, ProcessorNode, offsets)
        caches = [self._offset("caches", cache, CacheNode, offsets) for cache in node.caches]
        flags = node.package | (node.uid is not None) << 1 | node.thread << 2 | node.leaf << 3
        head = packed(
            "processor", node.uid or 0, _PROCESSOR, 0, _PROCESSOR.size + 4 * len(caches), 0, flags, parent,
            node.uid or 0, len(caches),
        )  # fmt: skip
        return head + struct.pack(f"<{len(caches)}I", *caches)

    @classmethod
    def decode(cls, table: bytes, address: int = 0) -> "Pptt":
        """Read a PPTT of revision 2.

        Args:
            table: the whole table.
            address: where it was found, for the error only.

        Returns:
            Its processors and caches.

        Raises:
            TableError: a node is cut short, of an unknown type or length, says something that this class
                cannot, or leads to no node of the right kind.
        """
        return cls(tuple(_decoded(raw, positions, address) for raw, positions in _split(table, address)))


def _split(table: bytes, address: int) -> list[tuple[bytes, Mapping[tuple[int, int], int]]]:
    """Cut into nodes; each comes with what turns (type, byte offset) into a position."""
    positions: dict[tuple[int, int], int] = {}
    found: list[bytes] = []
    at = HEADER.size
    while at < len(table):
        size = table[at + 1] if at + 1 < len(table) else 0
        if size < 2 or at + size > len(table):
            reason = f"node at {at:#x} of {size:#x} bytes, but the table ends at {len(table):#x}"
            raise TableError("PPTT", address, reason)
        positions[table[at], at] = len(found)
        found.append(table[at : at + size])
        at += size
    return [(raw, positions) for raw in found]


def _decoded(raw: bytes, positions: Mapping[tuple[int, int], int], address: int) -> PpttNode:
    match raw[0]:
        case 0 if len(raw) >= _PROCESSOR.size:
            return _processor(raw, positions, address)
        case 1 if len(raw) == _CACHE.size:
            return _cache(raw, positions, address)
    raise TableError("PPTT", address, f"node of type {raw[0]} with {len(raw):#x} bytes")


def _position(kind: int, offset: int, positions: Mapping[tuple[int, int], int], address: int) -> int:
    try:
        return positions[kind, offset]
    except KeyError:
        raise TableError("PPTT", address, f"offset {offset:#x} leads to no node of type {kind}") from None


def _optional(kind: int, offset: int, positions: Mapping[tuple[int, int], int], address: int) -> int | None:
    return _position(kind, offset, positions, address) if offset else None


def _processor(raw: bytes, positions: Mapping[tuple[int, int], int], address: int) -> ProcessorNode:
    *_, flags, parent, uid, count = _PROCESSOR.unpack_from(raw)
    if len(raw) != _PROCESSOR.size + 4 * count or flags & ~_KNOWN_FLAGS or (uid and not flags & _UID_VALID):
        reason = f"processor of {len(raw):#x} bytes with flags {flags:#x}, id {uid:#x} and {count} caches"
        raise TableError("PPTT", address, reason)
    offsets: Sequence[int] = struct.unpack_from(f"<{count}I", raw, _PROCESSOR.size)
    return ProcessorNode(
        parent=_optional(0, parent, positions, address),
        uid=uid if flags & _UID_VALID else None,
        package=bool(flags & _PACKAGE),
        thread=bool(flags & _THREAD),
        leaf=bool(flags & _LEAF),
        caches=tuple(_position(1, offset, positions, address) for offset in offsets),
    )


def _cache(raw: bytes, positions: Mapping[tuple[int, int], int], address: int) -> CacheNode:
    *_, flags, following, size, sets, ways, attributes, line_size = _CACHE.unpack(raw)
    kind = attributes >> 2 & 3
    if flags != _ALL_CACHE_FIELDS or attributes >> 5 or attributes & 3 != _READ_WRITE_ALLOCATE or kind == 3:
        raise TableError("PPTT", address, f"cache with flags {flags:#x} and attributes {attributes:#x}")
    return CacheNode(
        kind=CacheKind(kind),
        size=size,
        sets=sets,
        ways=ways,
        line_size=line_size,
        write_through=bool(attributes & 16),
        next_level=_optional(1, following, positions, address),
    )
