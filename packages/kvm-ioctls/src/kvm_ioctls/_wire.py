"""From ABI structs to Python objects and back, out of one table: the attrs fields of the class itself.

Each field names its struct code in metadata; padding is a field-less gap written as ``gap=`` after it.
tests/test_wire.py compares every offset with what the C compiler says of csrc/kvm_abi.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence, Sized
from typing import Any, ClassVar, Self, TypeVar, cast

import attrs

W = TypeVar("W", bound="Wire")
Z = TypeVar("Z", bound=Sized)

__all__ = (
    "Wire",
    "array",
    "check_u64",
    "nested",
    "pack_enable_cap",
    "packed",
    "raw",
    "u8",
    "u16",
    "u32",
    "u64",
)

_LAST_U64 = 0xFFFF_FFFF_FFFF_FFFF


def _field(code: str, default: object, count: int = 1, gap: int = 0, abi: str = "") -> Any:  # noqa: ANN401
    return attrs.field(default=default, metadata={"code": code, "count": count, "gap": gap, "abi": abi})


def u8(default: int = 0, *, gap: int = 0, abi: str = "") -> int:
    """Declare an unsigned byte, followed by `gap` bytes of padding."""
    return cast("int", _field("B", default, gap=gap, abi=abi))


def u16(default: int = 0, *, gap: int = 0, abi: str = "") -> int:
    """Declare a 16-bit unsigned field."""
    return cast("int", _field("H", default, gap=gap, abi=abi))


def u32(default: int = 0, *, gap: int = 0, abi: str = "") -> int:
    """Declare a 32-bit unsigned field."""
    return cast("int", _field("I", default, gap=gap, abi=abi))


def u64(default: int = 0, *, gap: int = 0, abi: str = "") -> int:
    """Declare a 64-bit unsigned field."""
    return cast("int", _field("Q", default, gap=gap, abi=abi))


def array(count: int, *, gap: int = 0, code: str = "Q") -> tuple[int, ...]:
    """Declare `count` unsigned numbers, of 64 bits unless `code` is another letter of the struct module."""
    return cast("tuple[int, ...]", _field(code, (0,) * count, count=count, gap=gap))


def raw(size: int, *, gap: int = 0) -> bytes:
    """Declare `size` opaque bytes."""
    return cast("bytes", _field(f"{size}s", bytes(size), gap=gap))


def nested(kind: type[W]) -> W:
    """Declare an embedded struct."""
    made: W = attrs.field(factory=kind, metadata={"kind": kind})
    return made


def check_u64(**values: int) -> None:
    """Refuse numbers that a 64-bit field cannot hold, each by its name.

    Raises:
        ValueError: One is not in 0..2^64-1.
    """
    for name, value in values.items():
        if not 0 <= value <= _LAST_U64:
            raise ValueError(f"{name}={value:#x} is not in 0..{_LAST_U64:#x}")


def packed(what: str, layout: str, *values: int) -> bytearray:
    """Return a caller's numbers as the struct module lays them out.

    Raises:
        ValueError: One does not fit; `what` they are and all of them are shown.
    """
    try:
        return bytearray(struct.pack(layout, *values))
    except struct.error as err:
        raise ValueError(f"{what} {values}: {err}") from None


def pack_enable_cap(cap: int, args: Sequence[int], flags: int) -> bytearray:
    """Return a struct kvm_enable_cap.

    Raises:
        ValueError: More than four arguments, or a number does not fit.
    """
    if len(args) > 4:
        raise ValueError(f"{len(args)} arguments for capability {cap}, at most 4 exist")
    return packed("capability", "<II4Q64x", cap, flags, *(*args, 0, 0, 0, 0)[:4])


class _Codec:
    """Compiled plan of one Wire class."""

    code: str
    values: int

    def __init__(self, cls: type[Wire]) -> None:
        self.offsets: dict[str, tuple[int, int]] = {}
        self.lengths: dict[str, int] = {}  # in bytes; struct would cut or fill up what is not as long
        self.steps: list[tuple[str, int, type[Wire] | None]] = []
        code = "<"
        for field in attrs.fields(cls):
            start = struct.calcsize(code)
            kind = field.metadata.get("kind")
            if kind is not None:
                inner = _codec(kind)
                code += inner.code
                self.steps.append((field.name, inner.values, kind))
            else:
                count = field.metadata["count"]
                code += field.metadata["code"] * count
                self.steps.append((field.name, count, None))
            self.lengths[field.name] = struct.calcsize(code) - start
            self.offsets[field.metadata.get("abi") or field.name] = (start, self.lengths[field.name])
            code += "x" * field.metadata.get("gap", 0)
        self.code = code[1:]
        self.values = sum(step[1] for step in self.steps)
        self.struct = struct.Struct(code)

    def flatten(self, obj: Wire) -> Iterator[object]:
        """Yield the numbers of an object and of those inside it, in the ABI's order."""
        for name, count, kind in self.steps:
            value = getattr(obj, name)
            if kind is not None:
                yield from _codec(kind).flatten(value)
            elif count > 1:
                yield from _exactly(name, value, count, "numbers")
            elif isinstance(value, bytes | bytearray):
                yield _exactly(name, value, self.lengths[name], "bytes")
            else:
                yield value

    def build(self, cls: type[W], values: tuple[Any, ...], at: int = 0) -> W:
        """Make an object of the numbers from position `at`."""
        args: list[object] = []
        for _, count, kind in self.steps:
            if kind is not None:
                args.append(_codec(kind).build(kind, values, at))
            else:
                args.append(values[at] if count == 1 else values[at : at + count])
            at += count
        return cls(*args)


def _exactly(name: str, value: Z, count: int, what: str) -> Z:
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} {what}, the ABI has {count}")
    return value


_codecs: dict[type[Wire], _Codec] = {}


def _codec(cls: type[Wire]) -> _Codec:
    codec = _codecs.get(cls)
    if codec is None:
        codec = _codecs[cls] = _Codec(cls)
    return codec


@attrs.define(eq=False, repr=False)
class Wire:
    """Base of the register and state classes: packs to and from the kernel's own layout.

    They compare and print as attrs would have it. The methods are here, once, because those that attrs
    compiles for each class are most of what a class costs at start-up.
    """

    ABI: ClassVar[str] = ""
    """The kernel's name of the struct, without `kvm_` and with its architecture where several have one."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return attrs.astuple(self, recurse=False) == attrs.astuple(other, recurse=False)

    __hash__ = None  # type: ignore[assignment]  # they can be changed

    def __repr__(self) -> str:
        values = (f"{field.name}={getattr(self, field.name)!r}" for field in attrs.fields(type(self)))
        return f"{type(self).__name__}({', '.join(values)})"

    @classmethod
    def wire_size(cls) -> int:
        """Return the size of the kernel's struct in bytes."""
        return _codec(cls).struct.size

    @classmethod
    def wire_offsets(cls) -> dict[str, tuple[int, int]]:
        """Return (offset, size) in bytes of each field by its kernel name."""
        return dict(_codec(cls).offsets)

    def pack(self) -> bytearray:
        """Return the kernel's form of this object.

        Raises:
            ValueError: A field holds a number its width cannot, or bytes of the wrong length.
        """
        codec = _codec(type(self))
        try:
            return bytearray(codec.struct.pack(*codec.flatten(self)))
        except struct.error as err:
            raise ValueError(f"{type(self).__name__}: {err} in {self}") from None

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Build the object from the kernel's form at `offset`.

        Raises:
            ValueError: `data` ends before the struct does, or `offset` is negative.
        """
        codec = _codec(cls)
        if offset < 0 or len(data) - offset < codec.struct.size:
            raise ValueError(
                f"{cls.__name__} needs {codec.struct.size} bytes at {offset}, there are {len(data) - offset}"
            )
        return codec.build(cls, codec.struct.unpack_from(data, offset))
