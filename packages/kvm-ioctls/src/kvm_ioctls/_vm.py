"""The VM file descriptor: memory slots, vCPUs, event fds, devices."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import final

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._aarch64._vm import Arm64Vm
from kvm_ioctls._device import DeviceFd
from kvm_ioctls._errors import KvmOSError
from kvm_ioctls._ffi import ffi, lib
from kvm_ioctls._numbers import CAP_NESTED_STATE, CAP_XSAVE2
from kvm_ioctls._vcpu import VcpuFd
from kvm_ioctls._vm_memory import VmMemory
from kvm_ioctls._wire import pack_enable_cap, packed
from kvm_ioctls._x86_64._vm import X86Vm

__all__ = ("VmFd",)

_PAGE = 4096
_DEASSIGN, _RESAMPLE = 1, 2
_IO_DATAMATCH, _IO_PIO, _IO_DEASSIGN = 1, 2, 4
_CREATE_DEVICE_TEST = 1
_MSI_DEVID = 1


@final
class VmFd(X86Vm, Arm64Vm, VmMemory):
    """A virtual machine; made by ``Kvm.create_vm``.

    The kernel keeps the VM alive while a vCPU or device of it is open, whatever is closed first.
    """

    def __init__(self, fd: int, run_size: int) -> None:
        super().__init__(fd, f"VM fd {fd}")
        self._run_size = run_size
        self._slot_pages: dict[int, int] = {}

    def check_extension(self, cap: kvm.Cap | int) -> int:
        """Return this VM's answer for a capability; 0 means absent (KVM_CHECK_EXTENSION).

        Raises:
            KvmOSError: The ioctl failed.
        """
        return self._ioctl_value(lib.KX_CHECK_EXTENSION, int(cap))

    def set_user_memory_region(
        self,
        slot: int,
        *,
        guest_phys_addr: int,
        memory_size: int,
        userspace_addr: int,
        flags: kvm.MemFlags | int = 0,
    ) -> None:
        """Create, move, re-flag or (size 0) delete a memory slot (KVM_SET_USER_MEMORY_REGION).

        The caller keeps the host memory mapped until the slot is deleted or the VM and all its vCPUs
        are gone.

        Args:
            slot: Slot id below ``get_nr_memslots()``; bits 16 and up choose an address space.
            guest_phys_addr: Guest physical start, page aligned.
            memory_size: Bytes, page aligned; 0 deletes.
            userspace_addr: Host virtual start, page aligned.
            flags: ``MemFlags``.

        Raises:
            ValueError: Something is not page aligned or does not fit.
            KvmOSError: The kernel refused (EEXIST: overlap; EINVAL: see its documentation); unchanged.
        """
        self._check_region(guest_phys_addr, memory_size, userspace_addr)
        values = (slot, int(flags), guest_phys_addr, memory_size, userspace_addr)
        self._ioctl(lib.KX_SET_USER_MEMORY_REGION, packed("memory region", "<IIQQQ", *values))
        self._slot_pages[slot] = memory_size // _PAGE

    def set_user_memory_region2(
        self,
        slot: int,
        *,
        guest_phys_addr: int,
        memory_size: int,
        userspace_addr: int,
        flags: kvm.MemFlags | int = 0,
        guest_memfd: int = 0,
        guest_memfd_offset: int = 0,
    ) -> None:
        """As ``set_user_memory_region``, with a guest_memfd (KVM_SET_USER_MEMORY_REGION2, Linux 6.8).

        Raises:
            ValueError: Something is not page aligned or does not fit.
            KvmOSError: The kernel refused, ENOTTY when it is too old (Cap.USER_MEMORY2); unchanged.
        """
        self._check_region(guest_phys_addr, memory_size, userspace_addr)
        values = (
            slot,
            int(flags),
            guest_phys_addr,
            memory_size,
            userspace_addr,
            guest_memfd_offset,
            guest_memfd,
        )
        self._ioctl(lib.KX_SET_USER_MEMORY_REGION2, packed("memory region", "<IIQQQQI116x", *values))
        self._slot_pages[slot] = memory_size // _PAGE

    @staticmethod
    def _check_region(guest_phys_addr: int, memory_size: int, userspace_addr: int) -> None:
        named = {
            "guest_phys_addr": guest_phys_addr,
            "memory_size": memory_size,
            "userspace_addr": userspace_addr,
        }
        for name, value in named.items():
            if value < 0 or value % _PAGE:
                raise ValueError(f"{name}={value:#x} is not a multiple of the page size {_PAGE:#x}")

    def create_vcpu(self, vcpu_id: int) -> VcpuFd:
        """Create a vCPU (KVM_CREATE_VCPU) and map its run page.

        Args:
            vcpu_id: The APIC id, below ``Kvm.get_max_vcpu_id()``; each once per VM.

        Raises:
            KvmOSError: The kernel refused (EEXIST: the id is taken); nothing was created.
            KvmStateError: The process uses the kick signal otherwise.
        """
        fd = self._ioctl_value(lib.KX_CREATE_VCPU, vcpu_id)
        sizes = self.check_extension(CAP_XSAVE2), self.check_extension(CAP_NESTED_STATE)
        return VcpuFd(fd, vcpu_id, self._run_size, *sizes)

    def get_dirty_log(self, slot: int, memory_size: int) -> bytes:
        """Return a slot's dirty bitmap: bit n of the little-endian bitmap is page n (KVM_GET_DIRTY_LOG).

        Reading clears the log, unless manual protection (cap 168) is on.

        Args:
            slot: A slot with ``MemFlags.LOG_DIRTY_PAGES``.
            memory_size: Bytes of the slot, as it was set; the bitmap has a bit per page, rounded up to 64.

        Raises:
            ValueError: The slot has another size.
            KvmOSError: ENOENT when the slot does not log.
        """
        pages = self._slot_pages.get(slot, 0)
        if memory_size != pages * _PAGE:
            raise ValueError(f"memory_size={memory_size:#x}, but slot {slot} has {pages * _PAGE:#x} bytes")
        bitmap = bytearray(8 * -(-pages // 64))
        # SAFETY: the kernel writes ceil(pages of the slot / 64) words; this object sets every slot and so
        # knows its pages; `bitmap` lives in this frame.
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(bitmap)))
        self._ioctl(lib.KX_GET_DIRTY_LOG, packed("dirty log", "<IIQ", slot, 0, address))
        return bytes(bitmap)

    def clear_dirty_log(self, slot: int, first_page: int, num_pages: int, bitmap: bytes) -> None:
        """Clear the pages set in `bitmap` and protect them again (KVM_CLEAR_DIRTY_LOG, manual protection).

        Args:
            slot: The slot.
            first_page: A multiple of 64.
            num_pages: A multiple of 64, unless it reaches the slot's end.
            bitmap: At least num_pages bits.

        Raises:
            ValueError: `bitmap` is too short.
            KvmOSError: The kernel refused.
        """
        words = 8 * -(-num_pages // 64)
        if len(bitmap) < words:
            raise ValueError(f"bitmap has {len(bitmap)} bytes, {num_pages} pages need {words}")
        copy = bytearray(bitmap)
        # SAFETY: the kernel reads ceil(num_pages / 64) words, checked above; `copy` lives in this frame.
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(copy)))
        values = (slot, num_pages, first_page, address)
        self._ioctl(lib.KX_CLEAR_DIRTY_LOG, packed("dirty log", "<IIQQ", *values))

    def create_irq_chip(self) -> None:
        """Create the interrupt controller of old in the kernel; before the first vCPU (KVM_CREATE_IRQCHIP).

        On x86-64 PICs, I/O APIC and local APICs. On arm64 a GICv2; ``create_device`` makes later ones.

        Raises:
            KvmOSError: EEXIST the second time; on arm64 ENODEV where the host's GIC cannot be a GICv2; EINVAL
                on riscv64, which has none.
        """
        self._ioctl_value(lib.KX_CREATE_IRQCHIP)

    def register_irqfd(self, fd: int, gsi: int) -> None:
        """Make each write to eventfd `fd` raise `gsi` as an edge (KVM_IRQFD).

        Raises:
            KvmOSError: EBUSY when the pair exists, EINVAL without an irqchip.
        """
        self._irqfd(fd, gsi, 0, 0)

    def register_irqfd_with_resample(self, fd: int, resamplefd: int, gsi: int) -> None:
        """Make `fd` assert level interrupt `gsi`; at EOI it is deasserted and `resamplefd` written.

        Raises:
            KvmOSError: The kernel refused.
        """
        self._irqfd(fd, gsi, _RESAMPLE, resamplefd)

    def unregister_irqfd(self, fd: int, gsi: int) -> None:
        """Undo either registration; waits until no injection is under way.

        Raises:
            KvmOSError: The kernel refused.
        """
        self._irqfd(fd, gsi, _DEASSIGN, 0)

    def _irqfd(self, fd: int, gsi: int, flags: int, resamplefd: int) -> None:
        self._ioctl(lib.KX_IRQFD, packed("irqfd", "<IIII16x", fd, gsi, flags, resamplefd))

    def register_ioevent(
        self, fd: int, addr: int, *, length: int = 0, datamatch: int | None = None, pio: bool = False
    ) -> None:
        """Write 1 to eventfd `fd` at each guest write, without leaving the kernel (KVM_IOEVENTFD).

        Args:
            fd: The eventfd.
            addr: Guest physical address, or port with `pio`.
            length: Bytes of the write: 1, 2, 4, 8, or 0 for any.
            datamatch: Only writes of this value count; needs a length.
            pio: A port rather than memory.

        Raises:
            ValueError: `length` is none of these, or the data does not fit it.
            KvmOSError: EEXIST when an equal one is registered.
        """
        self._ioeventfd(fd, addr, length, datamatch, _IO_PIO if pio else 0)

    def unregister_ioevent(
        self, fd: int, addr: int, *, length: int = 0, datamatch: int | None = None, pio: bool = False
    ) -> None:
        """Undo ``register_ioevent`` with the same arguments.

        Raises:
            ValueError: As there.
            KvmOSError: ENOENT when there is none.
        """
        self._ioeventfd(fd, addr, length, datamatch, _IO_DEASSIGN | (_IO_PIO if pio else 0))

    def _ioeventfd(self, fd: int, addr: int, length: int, datamatch: int | None, flags: int) -> None:
        if length not in (0, 1, 2, 4, 8):
            raise ValueError(f"length={length} is not 0, 1, 2, 4 or 8")
        if datamatch is not None:
            if not 0 <= datamatch < 1 << (8 * length):
                raise ValueError(f"datamatch={datamatch:#x} does not fit a write of {length} bytes")
            flags |= _IO_DATAMATCH
        values = (datamatch or 0, addr, length, fd, flags)
        self._ioctl(lib.KX_IOEVENTFD, packed("ioeventfd", "<QQIiI36x", *values))

    def set_irq_line(self, gsi: int, active: bool) -> None:
        """Set the level of an interrupt line (KVM_IRQ_LINE).

        Raises:
            KvmOSError: ENXIO without an irqchip.
        """
        self._ioctl(lib.KX_IRQ_LINE, packed("irq line", "<II", gsi, int(active)))

    def signal_msi(self, address: int, data: int, *, devid: int | None = None) -> bool:
        """Deliver a message now; False when the guest blocks it (KVM_SIGNAL_MSI).

        Args:
            address: 64 bits.
            data: 32 bits.
            devid: Of the sender, where the interrupt controller tells devices apart (Cap.MSI_DEVID).

        Raises:
            KvmOSError: EINVAL without an irqchip or for an address that is none.
        """
        flags = 0 if devid is None else _MSI_DEVID
        values = (address & 0xFFFF_FFFF, address >> 32, data, flags, devid or 0)
        return self._ioctl(lib.KX_SIGNAL_MSI, packed("MSI", "<IIIII12x", *values)) > 0

    def set_gsi_routing(self, routes: Iterable[kvm.IrqRoute]) -> None:
        """Replace the whole table of GSI routes (KVM_SET_GSI_ROUTING).

        Raises:
            ValueError: A route's number does not fit.
            KvmOSError: EINVAL when the kernel refuses a route; the old table stays.
        """
        from kvm_ioctls._routing import pack_routes  # noqa: PLC0415 - few machines change their routes

        self._ioctl(lib.KX_SET_GSI_ROUTING, pack_routes(routes))

    def enable_cap(self, cap: kvm.Cap | int, args: Sequence[int] = (), *, flags: int = 0) -> None:
        """Switch a capability of the VM on (KVM_ENABLE_CAP), such as SPLIT_IRQCHIP with the pin count.

        Raises:
            ValueError: More than four arguments.
            KvmOSError: The kernel refused.
        """
        self._ioctl(lib.KX_ENABLE_CAP, pack_enable_cap(int(cap), args, flags))

    def create_device(self, device_type: int) -> DeviceFd:
        """Create an in-kernel device (KVM_CREATE_DEVICE), such as 4 for VFIO.

        Raises:
            KvmOSError: ENODEV when the kernel has no such type.
        """
        data = packed("device", "<III", device_type, 0, 0)
        self._ioctl(lib.KX_CREATE_DEVICE, data)
        fd = struct.unpack_from("<I", data, 4)[0]
        return DeviceFd(fd, f"KVM device type {device_type} fd {fd}")

    def has_device(self, device_type: int) -> bool:
        """Say whether ``create_device`` knows a type, without creating one."""
        try:
            self._ioctl(lib.KX_CREATE_DEVICE, packed("device", "<III", device_type, 0, _CREATE_DEVICE_TEST))
        except KvmOSError:
            return False
        return True
