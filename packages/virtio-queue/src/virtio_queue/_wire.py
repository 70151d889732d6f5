"""Headers of requests, declared once: names, widths and byte order of their fields."""

import struct
from typing import Annotated, ClassVar, Literal, Self, dataclass_transform, get_type_hints

import attrs

__all__ = ("U8", "U16", "U32", "U64", "WireStruct")

# The second part is a format of the module struct; Annotated[bytes, "6s"] is a field of six bytes.
U8 = Annotated[int, "B"]
"""A field of `WireStruct`: an unsigned integer of one byte."""
U16 = Annotated[int, "H"]
"""A field of `WireStruct`: an unsigned integer of two bytes, in the struct's byte order."""
U32 = Annotated[int, "I"]
"""A field of `WireStruct`: an unsigned integer of four bytes, in the struct's byte order."""
U64 = Annotated[int, "Q"]
"""A field of `WireStruct`: an unsigned integer of eight bytes, in the struct's byte order."""

_ORDERS = {"little": "<", "big": ">"}


@dataclass_transform(frozen_default=True)
class WireStruct:
    """Base of header structs: a frozen attrs class that knows its bytes.

    Fields are annotated with `U8` to `U64`, or with `Annotated[bytes, "6s"]` and the like; they follow one
    another without padding. `class Header(WireStruct, endian="big")` chooses the byte order; the default is
    little, as VIRTIO 1 devices are. `Reader.read_struct` and `Writer.write_struct` move whole structs.

    Attributes:
        SIZE: Bytes on the wire.

    Raises:
        TypeError: When the class is made: a field without a width, or another byte order.
    """

    SIZE: ClassVar[int] = 0
    _layout: ClassVar[struct.Struct] = struct.Struct("")

    def __init_subclass__(cls, *, endian: Literal["little", "big"] = "little") -> None:
        super().__init_subclass__()
        if endian not in _ORDERS:
            raise TypeError(f"{cls.__name__}: endian is {endian!r}, must be 'little' or 'big'")
        attrs.frozen(slots=False)(cls)
        hints = get_type_hints(cls, include_extras=True)
        formats = []
        for field in attrs.fields(cls):  # type: ignore[arg-type]  # it has just become one
            width = getattr(hints[field.name], "__metadata__", (None,))[0]
            if not isinstance(width, str):
                raise TypeError(f"{cls.__name__}.{field.name} has no width: annotate it with U8 to U64")
            formats.append(width)
        cls._layout = struct.Struct(_ORDERS[endian] + "".join(formats))
        cls.SIZE = cls._layout.size

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The struct that these bytes are.

        Args:
            data: Exactly `SIZE` bytes.

        Raises:
            ValueError: `data` has another length.
        """
        if len(data) != cls.SIZE:
            raise ValueError(f"{cls.__name__} has {cls.SIZE} bytes, not {len(data)}")
        return cls(*cls._layout.unpack(data))

    def to_bytes(self) -> bytes:
        """The bytes of this struct.

        Raises:
            ValueError: A field does not fit its width.
        """
        values = attrs.astuple(self, recurse=False)  # type: ignore[arg-type]
        try:
            return self._layout.pack(*values)
        except struct.error as error:
            raise ValueError(f"{self}: {error}") from error
