"""How values compare and print: once for all, not generated for each class."""

import attrs

__all__ = ("Value",)


@attrs.frozen(eq=False, repr=False)
class Value:
    """Base of attrs classes that compare, hash and print as attrs would have it.

    What attrs generates, Python compiles anew for each class whenever a process starts, and these methods
    are more than half of it. So the values that a machine starts with have them from here, with
    ``@attrs.frozen(eq=False, repr=False)``, or with ``repr=False`` alone beside ``order=True``.
    """

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(
            getattr(self, field.name) == getattr(other, field.name)
            for field in attrs.fields(self.__class__)
            if field.eq
        )

    def __hash__(self) -> int:
        fields = attrs.fields(self.__class__)
        hashed = (field.name for field in fields if (field.eq if field.hash is None else field.hash))
        return hash((self.__class__, *(getattr(self, name) for name in hashed)))

    def __repr__(self) -> str:
        shown = (field.name for field in attrs.fields(self.__class__) if field.repr)
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{self.__class__.__qualname__.rpartition('>.')[2]}({values})"
