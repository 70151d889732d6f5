"""Beyond memory slots: dirty rings, private memory, zones whose writes need no exit, statistics."""

from __future__ import annotations

import struct
from abc import abstractmethod

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._device import DeviceAttrs
from kvm_ioctls._ffi import lib
from kvm_ioctls._wire import check_u64

__all__ = ("VmMemory",)

_U64 = 1 << 64


class VmMemory(DeviceAttrs):
    """Mixed into VmFd."""

    _subject: str

    @abstractmethod
    def check_extension(self, cap: kvm.Cap | int) -> int:
        """Return this VM's answer for a capability."""

    def dirty_ring_cap(self) -> tuple[kvm.Cap, int] | None:
        """Return the capability to enable for dirty rings and the most bytes of one; None without.

        ``enable_cap(cap, [size])`` before the first vCPU, `size` a power of two of at least a page.
        """
        for cap in (kvm.Cap.DIRTY_LOG_RING_ACQ_REL, kvm.Cap.DIRTY_LOG_RING):
            if size := self.check_extension(cap):
                return cap, size
        return None

    def reset_dirty_rings(self) -> int:
        """Watch the harvested pages of all vCPUs again; return how many (KVM_RESET_DIRTY_RINGS).

        Raises:
            KvmOSError: EINVAL when rings were not enabled.
        """
        return self._ioctl_value(lib.KX_RESET_DIRTY_RINGS)

    def set_memory_attributes(self, address: int, size: int, attributes: kvm.MemoryAttributes | int) -> None:
        """Make a page-aligned range of guest memory private or shared (KVM_SET_MEMORY_ATTRIBUTES).

        Raises:
            ValueError: A number does not fit 64 bits.
            KvmOSError: ENOTTY before Linux 6.8, EINVAL for what Cap.MEMORY_ATTRIBUTES does not offer.
        """
        check_u64(address=address, size=size, attributes=int(attributes))
        data = bytearray(struct.pack("<QQQQ", address, size, int(attributes), 0))
        self._ioctl(lib.KX_SET_MEMORY_ATTRIBUTES, data)

    def create_guest_memfd(self, size: int, flags: kvm.GuestMemfdFlags | int = 0) -> int:
        """Return a new file for private memory, which the caller closes (KVM_CREATE_GUEST_MEMFD).

        Raises:
            ValueError: A number does not fit 64 bits.
            KvmOSError: ENOTTY before Linux 6.8, EINVAL when this kind of VM has none.
        """
        check_u64(size=size, flags=int(flags))
        return self._ioctl(lib.KX_CREATE_GUEST_MEMFD, bytearray(struct.pack("<QQ48x", size, int(flags))))

    def register_coalesced_mmio(self, addr: int, size: int, *, pio: bool = False) -> None:
        """Put the guest's writes to a zone into a ring instead of an exit each (KVM_REGISTER_COALESCED_MMIO).

        Raises:
            ValueError: The zone does not fit.
            KvmOSError: The kernel refused.
        """
        self._ioctl(lib.KX_REGISTER_COALESCED_MMIO, self._zone(addr, size, pio=pio))

    def unregister_coalesced_mmio(self, addr: int, size: int, *, pio: bool = False) -> None:
        """Undo every registration inside a zone (KVM_UNREGISTER_COALESCED_MMIO).

        Raises:
            ValueError: The zone does not fit.
            KvmOSError: The kernel refused.
        """
        self._ioctl(lib.KX_UNREGISTER_COALESCED_MMIO, self._zone(addr, size, pio=pio))

    @staticmethod
    def _zone(addr: int, size: int, *, pio: bool) -> bytearray:
        if not 0 <= addr < _U64 or not 0 < size < 1 << 32:
            raise ValueError(f"addr={addr:#x}, size={size:#x} is no zone of at most 4 GiB")
        return bytearray(struct.pack("<QII", addr, size, int(pio)))

    def irq_line_status(self, gsi: int, active: bool) -> int:
        """As ``set_irq_line``, and say what came of it (KVM_IRQ_LINE_STATUS).

        Returns:
            How many CPUs it went to, 0 if it was pending already, negative if it was masked.

        Raises:
            ValueError: `gsi` does not fit 32 bits.
            KvmOSError: ENXIO without an irqchip.
        """
        if not 0 <= gsi < 1 << 32:
            raise ValueError(f"gsi={gsi} does not fit 32 bits")
        data = bytearray(struct.pack("<II", gsi, int(active)))
        self._ioctl(lib.KX_IRQ_LINE_STATUS, data)
        status: int = struct.unpack_from("<i", data)[0]
        return status

    def get_stats_fd(self) -> kvm.StatsFd:
        """Open the kernel's statistics of this VM (KVM_GET_STATS_FD, Cap.BINARY_STATS_FD).

        Raises:
            KvmOSError: The kernel refused.
        """
        return kvm.StatsFd(self._ioctl_value(lib.KX_GET_STATS_FD), self._subject)
