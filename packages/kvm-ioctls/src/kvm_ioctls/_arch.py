"""Which architecture this host is, and the guard of the methods that exist on one only.

Everything imports everywhere; a method of another architecture's kernel says so when it is called.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TypeVar

from kvm_ioctls._errors import WrongArchitectureError

__all__ = ("HOST_ARCH", "only_on")

HOST_ARCH = os.uname().machine
"""As `uname -m` gives it: x86_64, aarch64, riscv64."""

C = TypeVar("C")


def only_on(arch: str, host: str = HOST_ARCH) -> Callable[[type[C]], type[C]]:
    """Make every public method of a class refuse to work on another host; on its own, change nothing."""

    def _mark(cls: type[C]) -> type[C]:
        if host != arch:
            for name, value in list(vars(cls).items()):
                if callable(value) and not name.startswith("_"):
                    setattr(cls, name, _refusal(value, arch, host))
        return cls

    return _mark


def _refusal(method: Callable[..., object], arch: str, host: str) -> Callable[..., object]:
    @functools.wraps(method)
    def _refuse(*_args: object, **_kwargs: object) -> object:
        raise WrongArchitectureError(method.__name__, arch, host)

    return _refuse
