"""x86-64 ioctls of a VM that a plain boot does not need: filters, Hyper-V, Xen, encrypted memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._arch import only_on
from kvm_ioctls._fd import OwnedFd
from kvm_ioctls._ffi import lib
from kvm_ioctls._wire import packed
from kvm_ioctls._x86_64._raw import command, exactly

__all__ = ("X86VmFeatures",)

_HV_DEASSIGN = 1
_XEN_ATTR = 72


@only_on("x86_64")
class X86VmFeatures(OwnedFd):
    """Mixed into VmFd; every method raises KvmOSError when the kernel refuses."""

    def set_msr_filter(self, ranges: Sequence[kvm.MsrFilterRange], *, default_deny: bool = False) -> None:
        """Choose which MSRs the guest may access at all (KVM_X86_SET_MSR_FILTER).

        What the filter denies raises #GP, or exits when Cap.X86_USER_SPACE_MSR has ``MsrExits.FILTER``.

        Args:
            ranges: At most 16; an access outside all of them has the default.
            default_deny: With no ranges this is impossible.

        Raises:
            ValueError: More than 16 ranges.
        """
        from kvm_ioctls._x86_64._filters import pack_msr_filter  # noqa: PLC0415 - few need it

        data, bitmaps = pack_msr_filter(ranges, default_deny=default_deny)
        self._ioctl(lib.KX_X86_SET_MSR_FILTER, data)
        del bitmaps  # until here the kernel may read them

    def set_pmu_event_filter(self, chosen: kvm.PmuEventFilter) -> None:
        """Choose which performance events the guest may count (KVM_SET_PMU_EVENT_FILTER).

        Raises:
            ValueError: A number does not fit.
        """
        self._ioctl(lib.KX_SET_PMU_EVENT_FILTER, chosen.pack())

    def set_nr_mmu_pages(self, pages: int) -> None:
        """Limit the pages that shadow page tables take (KVM_SET_NR_MMU_PAGES)."""
        self._ioctl_value(lib.KX_SET_NR_MMU_PAGES, pages)

    def get_nr_mmu_pages(self) -> int:
        """Return that limit (KVM_GET_NR_MMU_PAGES); deprecated, and gone from later kernels."""
        return self._ioctl_value(lib.KX_GET_NR_MMU_PAGES)

    def set_pit_reinject(self, reinject: bool) -> None:
        """Choose whether the in-kernel PIT makes up for lost ticks (KVM_REINJECT_CONTROL)."""
        # The argument of this one ioctl is a pointer although its number encodes none.
        self._ioctl(lib.KX_REINJECT_CONTROL, bytearray(struct.pack("<B31x", int(reinject))))

    def set_vm_tsc_khz(self, khz: int) -> None:
        """Set the TSC frequency of vCPUs made later (KVM_SET_TSC_KHZ on a VM, Cap.VM_TSC_CONTROL)."""
        self._ioctl_value(lib.KX_SET_TSC_KHZ, khz)

    def get_vm_tsc_khz(self) -> int:
        """Return the TSC frequency of vCPUs made later (KVM_GET_TSC_KHZ on a VM)."""
        return self._ioctl_value(lib.KX_GET_TSC_KHZ)

    def register_hyperv_eventfd(self, conn_id: int, fd: int) -> None:
        """Write eventfd `fd` when the guest signals a Hyper-V connection (KVM_HYPERV_EVENTFD).

        Raises:
            ValueError: `conn_id` has more than 24 bits.
        """
        self._hyperv_eventfd(conn_id, fd, 0)

    def unregister_hyperv_eventfd(self, conn_id: int) -> None:
        """Undo ``register_hyperv_eventfd``.

        Raises:
            ValueError: `conn_id` has more than 24 bits.
        """
        self._hyperv_eventfd(conn_id, -1, _HV_DEASSIGN)

    def _hyperv_eventfd(self, conn_id: int, fd: int, flags: int) -> None:
        if not 0 <= conn_id < 1 << 24:
            raise ValueError(f"conn_id={conn_id:#x} has more than 24 bits")
        self._ioctl(lib.KX_HYPERV_EVENTFD, packed("eventfd", "<IiI12x", conn_id, fd, flags))

    def memory_encrypt_op(self, data: bytes = b"") -> bytes:
        """Pass a struct kvm_sev_cmd or kvm_tdx_cmd on (KVM_MEMORY_ENCRYPT_OP); return what came back.

        Nothing inside is checked: addresses in it must be valid.

        Raises:
            ValueError: Neither empty, which asks for support, nor 24 bytes.
        """
        return command(self._ioctl, self._ioctl_value, data)

    def register_enc_region(self, address: int, size: int) -> None:
        """Pin host memory for encryption (KVM_MEMORY_ENCRYPT_REG_REGION)."""
        self._ioctl(lib.KX_MEMORY_ENCRYPT_REG_REGION, packed("region", "<QQ", address, size))

    def unregister_enc_region(self, address: int, size: int) -> None:
        """Undo it (KVM_MEMORY_ENCRYPT_UNREG_REGION)."""
        self._ioctl(lib.KX_MEMORY_ENCRYPT_UNREG_REGION, packed("region", "<QQ", address, size))

    def xen_hvm_config(self, flags: int, msr: int = 0) -> None:
        """Let KVM answer as Xen, without hypercall pages of its own (KVM_XEN_HVM_CONFIG, Cap.XEN_HVM)."""
        self._ioctl(lib.KX_XEN_HVM_CONFIG, packed("flags and MSR", "<II48x", flags, msr))

    def xen_hvm_get_attr(self, kind: int) -> bytes:
        """Return the 72 bytes of a struct kvm_xen_hvm_attr (KVM_XEN_HVM_GET_ATTR)."""
        data = packed("attribute", "<H70x", kind)
        self._ioctl(lib.KX_XEN_HVM_GET_ATTR, data)
        return bytes(data)

    def xen_hvm_set_attr(self, data: bytes) -> None:
        """Set a struct kvm_xen_hvm_attr of 72 bytes (KVM_XEN_HVM_SET_ATTR).

        Raises:
            ValueError: Another length.
        """
        self._ioctl(lib.KX_XEN_HVM_SET_ATTR, exactly("kvm_xen_hvm_attr", data, _XEN_ATTR))

    def xen_hvm_evtchn_send(self, port: int, vcpu: int, priority: int = 0xFFFF_FFFF) -> int:
        """Deliver an event channel (KVM_XEN_HVM_EVTCHN_SEND); return what the kernel answers."""
        return self._ioctl(lib.KX_XEN_HVM_EVTCHN_SEND, packed("event channel", "<III", port, vcpu, priority))
