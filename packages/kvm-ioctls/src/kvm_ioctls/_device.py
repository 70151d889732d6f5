"""Attributes, of in-kernel devices made by KVM_CREATE_DEVICE and of Kvm, VMs and vCPUs themselves."""

from __future__ import annotations

import errno
from typing import final

from kvm_ioctls._errors import KvmOSError
from kvm_ioctls._fd import OwnedFd
from kvm_ioctls._ffi import ffi, lib
from kvm_ioctls._raw_ioctl import RawIoctl
from kvm_ioctls._wire import packed

__all__ = ("DeviceAttrs", "DeviceFd")

_MOST = 1 << 20  # bytes; the longest attributes that kernels have are some KiB


class DeviceAttrs(RawIoctl):
    """Mixed into whatever has attributes: DeviceFd, Kvm (Cap.SYS_ATTRIBUTES), VmFd and VcpuFd."""

    def _attr(self, number: int, group: int, attr: int, data: bytearray) -> None:
        # SAFETY: the cast yields the address of `data`, which outlives the ioctl in this frame; the
        # kernel reads or writes there as many bytes as the attribute is defined to have, which the
        # caller passes as the length of `data`.
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(data))) if data else 0
        self._ioctl(number, packed("attribute", "<IIQQ", 0, group, attr, address))

    def has_device_attr(self, group: int, attr: int) -> bool:
        """Say whether an attribute is known (KVM_HAS_DEVICE_ATTR).

        Raises:
            ValueError: `group` does not fit 32 bits, or `attr` 64.
            KvmOSError: Any failure but ENXIO, which means no; ENOTTY where the object has no attributes.
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
            ValueError: `group` does not fit 32 bits, or `attr` 64.
            KvmOSError: The kernel refused.
        """
        self._attr(lib.KX_SET_DEVICE_ATTR, group, attr, bytearray(data))

    def get_device_attr(self, group: int, attr: int, size: int) -> bytes:
        """Return `size` bytes of an attribute (KVM_GET_DEVICE_ATTR).

        Args:
            group: 32 bits.
            attr: 64 bits.
            size: As many bytes as the attribute is defined to have, at most 2^20.

        Raises:
            ValueError: A number is out of range.
            KvmOSError: The kernel refused.
        """
        if not 0 <= size <= _MOST:
            raise ValueError(f"size={size} is not in 0..{_MOST}")
        data = bytearray(size)
        self._attr(lib.KX_GET_DEVICE_ATTR, group, attr, data)
        return bytes(data)


@final
class DeviceFd(OwnedFd, DeviceAttrs):
    """A device inside the kernel, such as the VFIO bridge (``DeviceType.VFIO``)."""
