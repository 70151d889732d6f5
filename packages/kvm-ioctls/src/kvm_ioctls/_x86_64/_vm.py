"""x86-64 ioctls of a VM: irqchip, PIT, clock, addresses KVM itself needs."""

from __future__ import annotations

import struct

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._arch import only_on
from kvm_ioctls._ffi import lib
from kvm_ioctls._wire import packed
from kvm_ioctls._x86_64._vm_features import X86VmFeatures

__all__ = ("X86Vm",)

_CHIP_BYTES = 512
_PIT_BYTES = 112
_PAGE = 4096


@only_on("x86_64")
class X86Vm(X86VmFeatures):
    """Mixed into VmFd."""

    def set_tss_address(self, address: int) -> None:
        """Give Intel's real-mode emulation three free pages below 4 GiB (KVM_SET_TSS_ADDR).

        Raises:
            ValueError: Not page aligned, or not below 4 GiB.
            KvmOSError: The kernel refused.
        """
        if address % _PAGE or not 0 <= address <= 0x1_0000_0000 - 3 * _PAGE:
            raise ValueError(f"address={address:#x} is not page aligned with three pages below 4 GiB")
        self._ioctl_value(lib.KX_SET_TSS_ADDR, address)

    def set_identity_map_address(self, address: int) -> None:
        """Give KVM a page below 4 GiB for an identity map, before any vCPU (KVM_SET_IDENTITY_MAP_ADDR).

        Raises:
            ValueError: Not page aligned, or not below 4 GiB.
            KvmOSError: EINVAL once a vCPU exists.
        """
        if address % _PAGE or not 0 <= address <= 0x1_0000_0000 - _PAGE:
            raise ValueError(f"address={address:#x} is not a page below 4 GiB")
        self._ioctl(lib.KX_SET_IDENTITY_MAP_ADDR, bytearray(struct.pack("<Q", address)))

    def set_boot_cpu_id(self, vcpu_id: int) -> None:
        """Choose which vCPU is the bootstrap processor; before the first vCPU (KVM_SET_BOOT_CPU_ID).

        Raises:
            KvmOSError: EBUSY once a vCPU exists.
        """
        self._ioctl_value(lib.KX_SET_BOOT_CPU_ID, vcpu_id)

    def get_irqchip(self, chip: kvm.IrqchipId | int) -> bytes:
        """Return the 512 opaque bytes of a chip's state (KVM_GET_IRQCHIP).

        Raises:
            ValueError: `chip` does not fit 32 bits.
            KvmOSError: ENXIO without an in-kernel irqchip.
        """
        data = packed("irqchip", "<II512x", int(chip), 0)
        self._ioctl(lib.KX_GET_IRQCHIP, data)
        return bytes(data[8:])

    def set_irqchip(self, chip: kvm.IrqchipId | int, state: bytes) -> None:
        """Restore a chip's state (KVM_SET_IRQCHIP).

        Raises:
            ValueError: `state` is not 512 bytes, or `chip` does not fit 32 bits.
            KvmOSError: ENXIO without an in-kernel irqchip.
        """
        if len(state) != _CHIP_BYTES:
            raise ValueError(f"irqchip state has {len(state)} bytes, not {_CHIP_BYTES}")
        self._ioctl(lib.KX_SET_IRQCHIP, packed("irqchip", "<II", int(chip), 0) + state)

    def create_pit2(self, *, speaker_dummy: bool = False) -> None:
        """Create the i8254 timer in the kernel; needs the irqchip (KVM_CREATE_PIT2).

        Args:
            speaker_dummy: Also answer port 0x61.

        Raises:
            KvmOSError: EEXIST the second time, ENOENT without an irqchip.
        """
        self._ioctl(lib.KX_CREATE_PIT2, bytearray(struct.pack("<I60x", int(speaker_dummy))))

    def get_pit2(self) -> bytes:
        """Return the 112 opaque bytes of the timer's state (KVM_GET_PIT2).

        Raises:
            KvmOSError: ENXIO without a PIT.
        """
        data = bytearray(_PIT_BYTES)
        self._ioctl(lib.KX_GET_PIT2, data)
        return bytes(data)

    def set_pit2(self, state: bytes) -> None:
        """Restore the timer (KVM_SET_PIT2).

        Raises:
            ValueError: `state` is not 112 bytes.
            KvmOSError: ENXIO without a PIT.
        """
        if len(state) != _PIT_BYTES:
            raise ValueError(f"PIT state has {len(state)} bytes, not {_PIT_BYTES}")
        self._ioctl(lib.KX_SET_PIT2, bytearray(state))

    def get_clock(self) -> kvm.ClockData:
        """Return the VM's kvmclock (KVM_GET_CLOCK).

        Raises:
            KvmOSError: The ioctl failed.
        """
        data = bytearray(kvm.ClockData.wire_size())
        self._ioctl(lib.KX_GET_CLOCK, data)
        return kvm.ClockData.unpack(data)

    def set_clock(self, clock: kvm.ClockData) -> None:
        """Set the VM's kvmclock (KVM_SET_CLOCK); the flags that only the kernel reports must be cleared.

        Raises:
            ValueError: A field does not fit.
            KvmOSError: EINVAL for flags the kernel does not take.
        """
        self._ioctl(lib.KX_SET_CLOCK, clock.pack())
