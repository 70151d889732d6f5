"""The only module that touches the C extension, and the only one that turns -errno into an exception."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvm_ioctls._core import ffi, lib
from kvm_ioctls._errors import KvmAbiError, KvmOSError

if TYPE_CHECKING:
    from kvm_ioctls._core import CData
else:
    CData = ffi.CData
    """A C pointer or struct."""

__all__ = ("CData", "buffer", "check", "ffi", "ioctl_name", "layout", "lib")

_HINTS = {
    errno.EPERM: "the kernel forbids it (seccomp, LSM, or a capability is missing)",
    errno.EMFILE: "out of file descriptors; raise `ulimit -n`",
}


def ioctl_name(number: int) -> str:
    """Return the KVM name of an ioctl number, for messages."""
    for name in dir(lib):
        if name.startswith("KX_") and getattr(lib, name) == number:
            return "KVM_" + name[3:]
    return f"ioctl {number:#x}"


def check(ret: int, what: int | str, subject: str) -> int:
    """Return a non-negative answer of the core; raise for -errno.

    Raises:
        KvmAbiError: The run page was malformed (-EPROTO).
        KvmOSError: Any other errno.
    """
    if ret >= 0:
        return ret
    name = what if isinstance(what, str) else ioctl_name(what)
    if ret == -errno.EPROTO:
        raise KvmAbiError(f"{name} on {subject}: the run page contradicts the KVM ABI")
    raise KvmOSError(-ret, name, subject, _HINTS.get(-ret, ""))


def buffer(data: bytearray) -> CData:
    """Return a pointer to a bytearray's memory."""
    # SAFETY: the cdata holds the buffer export, so the bytearray can be neither freed nor resized
    # while the pointer lives; every caller passes the size the ioctl number encodes, or more.
    return ffi.from_buffer(data)


def layout() -> dict[tuple[str, str], tuple[int, int]]:
    """Return (offset, size) by (struct, field) as the C compiler sees them; field "" is the struct."""
    table: dict[tuple[str, str], tuple[int, int]] = {}
    names = ffi.new("const char *[2]")
    numbers = ffi.new("uint32_t[2]")
    # SAFETY: the four pointers are distinct elements of two live arrays; C fills them with pointers
    # to static strings.
    while lib.kvmx_layout(len(table), names, names + 1, numbers, numbers + 1) == 0:
        strct, field = (ffi.string(name).decode("ascii") for name in (names[0], names[1]))
        table[strct, field] = (numbers[0], numbers[1])
    return table
