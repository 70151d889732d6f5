"""arm64 ioctls of a VM."""

from __future__ import annotations

import struct

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._arch import only_on
from kvm_ioctls._device import DeviceAttrs
from kvm_ioctls._ffi import ffi, lib
from kvm_ioctls._wire import check_u64, packed

__all__ = ("Arm64Vm",)

_MASKS = 3 * 8 * 8  # feature-id space: op1 in {0, 1, 3}, crm 0..7, op2 0..7
_GRANULE = 16  # bytes of memory that share a tag
_TOO_LONG = 1 << 31  # for one call, in bytes of memory
_TO_GUEST, _FROM_GUEST = 0, 1


@only_on("aarch64")
class Arm64Vm(DeviceAttrs):
    """Mixed into VmFd; every method raises WrongArchitectureError elsewhere."""

    def arm_preferred_target(self) -> kvm.Arm64VcpuInit:
        """Return the target of this host, with no feature set (KVM_ARM_PREFERRED_TARGET).

        Raises:
            KvmOSError: ENODEV when the host has none.
        """
        data = bytearray(kvm.Arm64VcpuInit.wire_size())
        self._ioctl(lib.KX_ARM_PREFERRED_TARGET, data)
        return kvm.Arm64VcpuInit.unpack(data)

    def arm_set_counter_offset(self, offset: int) -> None:
        """Set virtual and physical counter to the host's minus `offset` (KVM_ARM_SET_COUNTER_OFFSET).

        Raises:
            ValueError: Not in 64 bits.
            KvmOSError: EBUSY while a vCPU runs.
        """
        check_u64(offset=offset)
        self._ioctl(lib.KX_ARM_SET_COUNTER_OFFSET, bytearray(struct.pack("<QQ", offset, 0)))

    def arm_get_reg_writable_masks(self) -> tuple[int, ...]:
        """Return the writable bits of each feature-id register (KVM_ARM_GET_REG_WRITABLE_MASKS).

        Returns:
            192 masks by ((op1 less 1 if it is 3) << 6 | crm << 3 | op2).

        Raises:
            KvmOSError: ENOTTY before Linux 6.7.
        """
        masks = bytearray(8 * _MASKS)
        # SAFETY: the kernel writes 192 masks of 8 bytes; `masks` lives in this frame.
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(masks)))
        self._ioctl(lib.KX_ARM_GET_REG_WRITABLE_MASKS, bytearray(struct.pack("<QI52x", address, 0)))
        return struct.unpack(f"<{_MASKS}Q", masks)

    def arm_get_mte_tags(self, guest_ipa: int, length: int) -> bytes:
        """Return the memory tags of a page-aligned range, a byte each 16 bytes (KVM_ARM_MTE_COPY_TAGS).

        Raises:
            ValueError: `length` is not a multiple of 16 below 2 GiB, or part of the range has no tags.
            KvmOSError: The kernel refused.
        """
        if not 0 <= length < _TOO_LONG or length % _GRANULE:
            raise ValueError(f"length={length:#x} is not a multiple of {_GRANULE} in 0..{_TOO_LONG - 1:#x}")
        tags = bytearray(length // _GRANULE)
        self._copy_tags(guest_ipa, length, tags, _FROM_GUEST)
        return bytes(tags)

    def arm_set_mte_tags(self, guest_ipa: int, tags: bytes) -> None:
        """Set the memory tags of a page-aligned range, a byte each 16 bytes (KVM_ARM_MTE_COPY_TAGS).

        Raises:
            ValueError: Part of the range has no tags; what lies before it has its new ones.
            KvmOSError: The kernel refused.
        """
        self._copy_tags(guest_ipa, _GRANULE * len(tags), bytearray(tags), _TO_GUEST)

    def _copy_tags(self, guest_ipa: int, length: int, tags: bytearray, direction: int) -> None:
        # SAFETY: the kernel copies length / 16 bytes, which is the length of `tags`; it lives in this frame.
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(tags)))
        data = packed("memory tags", "<QQQQ16x", guest_ipa, length, address, direction)
        done = self._ioctl(lib.KX_ARM_MTE_COPY_TAGS, data)
        if done != length:
            raise ValueError(
                f"guest_ipa={guest_ipa:#x}: {done:#x} of {length:#x} bytes have tags; "
                "the range leaves tagged memory"
            )

    def arm_set_smccc_filter(self, base: int, count: int, action: kvm.SmcccAction | int) -> None:
        """Choose who answers `count` SMCCC functions from `base` (attribute of group 0, Linux 6.4).

        Raises:
            ValueError: A number does not fit.
            KvmOSError: EEXIST when ranges overlap, EBUSY once a vCPU ran.
        """
        if not 0 <= base < 1 << 32 or not 0 < count < 1 << 32:
            raise ValueError(f"base={base:#x}, count={count} is no range of 32-bit functions")
        self.set_device_attr(0, 0, bytes(packed("SMCCC filter", "<IIB15x", base, count, int(action))))
