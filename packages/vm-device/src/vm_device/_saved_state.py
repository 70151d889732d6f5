"""What every saved state must pass before something is made of it."""

from typing import Protocol

from vm_device._errors import SavedStateError


class Saved(Protocol):
    """A saved state: a frozen class with the version of its layout."""

    @property
    def version(self) -> int:
        """The layout's."""
        ...


def check_saved(state: Saved, **masks: int) -> None:
    """Refuse a state of another version than 1, or with bits in a field beyond the mask given by its name.

    Raises:
        SavedStateError: the field, its value and what it may be.
    """
    if state.version != 1:
        raise SavedStateError("version", state.version, "1")
    for field, mask in masks.items():
        value: int = getattr(state, field)
        if value & ~mask:  # a negative number has every high bit
            raise SavedStateError(field, value, f"only bits of {mask:#x}")
