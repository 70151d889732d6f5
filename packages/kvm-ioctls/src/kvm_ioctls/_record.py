"""The exit record that the C decoder fills, read in one crossing."""

from __future__ import annotations

import struct
from functools import partial
from typing import final

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._ffi import CData, check, ffi, lib

__all__ = ("HEAD", "WORDS_AT", "IoRecord")

HEAD = struct.Struct("<IBBBxIIQQ")
"""struct kvmx_exit of csrc/core.h: reason, is_mmio, is_write, size, count, nwords, addr, value."""
WORDS_AT = 40
"""Where its words follow, in bytes."""


@final
class IoRecord:
    """The last port or MMIO exit of a vCPU, without building an object per exit.

    Valid from the return of ``run_raw`` with ``ExitReason.IO`` or ``MMIO`` to the next run. One of these
    exists per vCPU; its attributes always tell the newest exit.
    """

    __slots__ = ("_exit", "_subject", "_vcpu", "_view", "head")

    def __init__(self, vcpu: CData, exit_: CData, subject: str) -> None:
        self._vcpu = vcpu
        self._exit = exit_
        self._subject = subject
        # SAFETY: the view covers exactly one struct kvmx_exit inside the vCPU's C object, which _vcpu
        # keeps alive as long as this record lives.
        self._view = memoryview(ffi.buffer(exit_))
        # (reason, is_mmio, is_write, size, count, words, addr, value), as numbers, without a Python frame.
        self.head = partial(HEAD.unpack_from, self._view)

    def fields(self) -> tuple[bool, bool, int, int, int, int]:
        """Return (is_mmio, is_write, addr, size, count, value) in one step."""
        _, mmio, write, size, count, _, addr, value = self.head()
        return mmio != 0, write != 0, addr, size, count, value

    @property
    def is_mmio(self) -> bool:
        """Whether it is MMIO rather than a port."""
        return bool(self._exit.is_mmio)

    @property
    def is_write(self) -> bool:
        """Whether the guest writes."""
        return bool(self._exit.is_write)

    @property
    def addr(self) -> int:
        """Port number or guest physical address."""
        return int(self._exit.addr)

    @property
    def size(self) -> int:
        """Bytes of one element: 1, 2 or 4 for ports, 1..8 for MMIO."""
        return int(self._exit.size)

    @property
    def count(self) -> int:
        """Elements; more than 1 only for string instructions on ports."""
        return int(self._exit.count)

    @property
    def value(self) -> int:
        """What the guest wrote, as a little-endian number (the first element)."""
        return int(self._exit.value)

    @property
    def data(self) -> bytes:
        """All bytes that the guest wrote.

        Raises:
            KvmOSError: ENODATA when the exit is not a write.
        """
        size = self.size * self.count
        data = bytearray(size)
        # SAFETY: `data` has exactly `size` bytes; C refuses any other length than the exit's.
        ret = lib.kvmx_vcpu_get_data(self._vcpu, ffi.from_buffer(data), size)
        check(ret, "reading the written data", self._subject)
        return bytes(data)

    def set_value(self, value: int) -> None:
        """Answer a read with the low `size` bytes of `value`, for each element.

        Raises:
            KvmOSError: ENODATA when the exit is not a read.
        """
        ret = lib.kvmx_vcpu_set_value(self._vcpu, value & 0xFFFF_FFFF_FFFF_FFFF)
        if ret:
            check(ret, "answering a read", self._subject)

    def exit(self) -> kvm.Exit:
        """Build the typed exit of this record."""
        # Late: 25 classes, of which a loop on `run_raw` and this record never needs one.
        from kvm_ioctls._exits import exit_of  # noqa: PLC0415

        return exit_of(self._view, lambda _size: self.data)
