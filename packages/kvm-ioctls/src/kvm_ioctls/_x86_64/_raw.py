"""Structs that pass through as bytes, with nothing but their length known."""

from __future__ import annotations

from collections.abc import Callable

from kvm_ioctls._ffi import lib

__all__ = ("command", "exactly")

_COMMAND = 24


def exactly(name: str, data: bytes, size: int) -> bytearray:
    """Return a copy of `data`.

    Raises:
        ValueError: It is not `size` bytes.
    """
    if len(data) != size:
        raise ValueError(f"{name} has {len(data)} bytes, not {size}")
    return bytearray(data)


def command(ioctl: Callable[[int, bytearray], int], empty: Callable[[int, int], int], data: bytes) -> bytes:
    """Make a KVM_MEMORY_ENCRYPT_OP; `data` as ``memory_encrypt_op`` takes it."""
    if not data:
        empty(lib.KX_MEMORY_ENCRYPT_OP, 0)
        return b""
    buffer = exactly("the command", data, _COMMAND)
    ioctl(lib.KX_MEMORY_ENCRYPT_OP, buffer)
    return bytes(buffer)
