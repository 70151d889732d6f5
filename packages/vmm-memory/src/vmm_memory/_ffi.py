"""The only door to the C core: everything else in the package imports ffi and lib from here."""

from __future__ import annotations

import os
from typing import TypeAlias

from . import _core
from ._core import ffi, lib
from ._errors import MappingError

__all__ = ("CData", "address_of", "check", "ffi", "lib")

CData: TypeAlias = "_core.CData"
"""A C pointer or struct."""


def check(rc: int, action: str) -> None:
    """Turn the -errno of a C call that manages mappings into an exception.

    Args:
        rc: What C returned: 0 or -errno.
        action: What was attempted, with its numbers, for the message.

    Raises:
        MappingError: rc is negative; errno is -rc.
    """
    if rc < 0:
        raise MappingError(-rc, f"{action}: {os.strerror(-rc)}")


def address_of(pointer: CData) -> int:
    """The number in a C pointer, for code that speaks of host addresses."""
    # SAFETY: only the number leaves; whoever uses it must keep the pointer's owner alive.
    return int(ffi.cast("uintptr_t", pointer))
