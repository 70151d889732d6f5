"""In-kernel devices made by KVM_CREATE_DEVICE."""

from __future__ import annotations

import errno
import struct
from typing import final

from kvm_ioctls._errors import KvmOSError
from kvm_ioctls._fd import OwnedFd
from kvm_ioctls._ffi import ffi, lib

__all__ = ("DeviceFd",)

_ATTR = struct.Struct("<IIQQ")


@final
class DeviceFd(OwnedFd):
    """A device inside the kernel, such as the VFIO bridge (type 4)."""

    def _attr(self, number: int, group: int, attr: int, data: bytearray) -> None:
        # SAFETY: the cast yields the address of `data`, which outlives the ioctl in this frame; the
        # kernel reads or writes there as many bytes as the attribute is defined to have, which the
        # caller passes as the length of `data`.
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(data))) if data else 0
        self._ioctl(number, bytearray(_ATTR.pack(0, group, attr, address)))

    def has_device_attr(self, group: int, attr: int) -> bool:
        """Say whether the device knows an attribute (KVM_HAS_DEVICE_ATTR).

        Raises:
            KvmOSError: Any failure but ENXIO, which means no.
        """
        try:
            self._attr(lib.KX_HAS_DEVICE_ATTR, group, attr, bytearray())
        except KvmOSError as err:
            if err.errno == errno.ENXIO:
                return False
            raise
        return True

    def set_device_attr(self, group: int, attr: int, data: bytes) -> None:
        """Set an attribute (KVM_SET_DEVICE_ATTR); `data` must be as long as the attribute is defined.

        Raises:
            KvmOSError: The kernel refused.
        """
        self._attr(lib.KX_SET_DEVICE_ATTR, group, attr, bytearray(data))

    def get_device_attr(self, group: int, attr: int, size: int) -> bytes:
        """Return `size` bytes of an attribute (KVM_GET_DEVICE_ATTR).

        Raises:
            KvmOSError: The kernel refused.
        """
        data = bytearray(size)
        self._attr(lib.KX_GET_DEVICE_ATTR, group, attr, data)
        return bytes(data)
