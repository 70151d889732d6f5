"""x86-64 ioctls of a vCPU that a plain boot does not need: machine checks, nested state, Hyper-V, Xen."""

from __future__ import annotations

import struct

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._arch import only_on
from kvm_ioctls._errors import UnsupportedError
from kvm_ioctls._ffi import CData, buffer, lib
from kvm_ioctls._numbers import CAP_NESTED_STATE
from kvm_ioctls._vcpu_state import VcpuState
from kvm_ioctls._wire import check_u64, packed
from kvm_ioctls._x86_64._raw import command, exactly
from kvm_ioctls._x86_64._state import CpuidEntry, Regs, Sregs
from kvm_ioctls._x86_64._system import MAX_CPUID, read_cpuid

__all__ = ("X86VcpuFeatures",)

_XEN_ATTR = 72
_NESTED_HEAD = 128


@only_on("x86_64")
class X86VcpuFeatures(VcpuState):
    """Mixed into VcpuFd; errors as those of its other methods."""

    _nested_size: int
    _vcpu: CData

    def setup_mce(self, mcg_cap: int) -> None:
        """Give the vCPU machine-check banks (KVM_X86_SETUP_MCE): IA32_MCG_CAP, within ``Kvm.get_mce_cap``."""
        self._ioctl(lib.KX_X86_SETUP_MCE, packed("mcg_cap", "<Q", mcg_cap))

    def set_mce(self, error: kvm.MachineCheck) -> None:
        """Inject a machine check (KVM_X86_SET_MCE)."""
        self._ioctl(lib.KX_X86_SET_MCE, error.pack())

    def get_supported_hv_cpuid(self) -> list[CpuidEntry]:
        """Return the Hyper-V leaves of this vCPU (KVM_GET_SUPPORTED_HV_CPUID, Cap.HYPERV_CPUID)."""
        return read_cpuid(self._ioctl, lib.KX_GET_SUPPORTED_HV_CPUID, MAX_CPUID)

    def get_nested_state(self) -> bytes:
        """Return the state of nested virtualisation, a head of 128 bytes first (KVM_GET_NESTED_STATE).

        Raises:
            UnsupportedError: The host has no nested virtualisation.
        """
        if self._nested_size < _NESTED_HEAD:
            name = f"NESTED_STATE ({CAP_NESTED_STATE})"
            raise UnsupportedError(
                f"{self._subject}: the host lacks capability {name}; load kvm_intel or kvm_amd with nested=1"
            )
        data = bytearray(self._nested_size)
        struct.pack_into("<I", data, 4, self._nested_size)
        self._ioctl(lib.KX_GET_NESTED_STATE, data)
        return bytes(data[: struct.unpack_from("<I", data, 4)[0]])

    def set_nested_state(self, state: bytes) -> None:
        """Restore what ``get_nested_state`` gave (KVM_SET_NESTED_STATE).

        Raises:
            ValueError: `state` is shorter than its head, or than it says itself.
        """
        if len(state) < _NESTED_HEAD or struct.unpack_from("<I", state, 4)[0] > len(state):
            raise ValueError(f"nested state of {len(state)} bytes is cut off")
        self._ioctl(lib.KX_SET_NESTED_STATE, bytearray(state))

    def set_tpr_access_reporting(self, enabled: bool) -> None:
        """Choose whether accesses to the TPR come as TprAccess (KVM_TPR_ACCESS_REPORTING, Cap.VAPIC)."""
        self._ioctl(lib.KX_TPR_ACCESS_REPORTING, bytearray(struct.pack("<I36x", int(enabled))))

    def set_vapic_addr(self, address: int) -> None:
        """Set the guest physical address of the virtual APIC page (KVM_SET_VAPIC_ADDR); 0 for none."""
        self._ioctl(lib.KX_SET_VAPIC_ADDR, packed("address", "<Q", address))

    def memory_encrypt_op(self, data: bytes = b"") -> bytes:
        """Pass a struct kvm_tdx_cmd on (KVM_MEMORY_ENCRYPT_OP on a vCPU); return what came back.

        Raises:
            ValueError: Neither empty nor 24 bytes.
        """
        return command(self._ioctl, self._ioctl_value, data)

    def xen_vcpu_get_attr(self, kind: int) -> bytes:
        """Return the 72 bytes of a struct kvm_xen_vcpu_attr (KVM_XEN_VCPU_GET_ATTR)."""
        data = packed("attribute", "<H70x", kind)
        self._ioctl(lib.KX_XEN_VCPU_GET_ATTR, data)
        return bytes(data)

    def xen_vcpu_set_attr(self, data: bytes) -> None:
        """Set a struct kvm_xen_vcpu_attr of 72 bytes (KVM_XEN_VCPU_SET_ATTR).

        Raises:
            ValueError: Another length.
        """
        self._ioctl(lib.KX_XEN_VCPU_SET_ATTR, exactly("kvm_xen_vcpu_attr", data, _XEN_ATTR))

    def set_sync_fields(self, valid: kvm.SyncFields | int, dirty: kvm.SyncFields | int = 0) -> None:
        """Choose what the next runs copy to the run page at an exit, and what the next one loads from it.

        Cap.SYNC_REGS says what there is. The kernel clears `dirty` after it has loaded it.

        Raises:
            ValueError: A number does not fit 64 bits.
        """
        check_u64(valid=int(valid), dirty=int(dirty))
        ret = lib.kvmx_vcpu_sync_masks(self._vcpu, int(valid), int(dirty))
        if ret:
            self._fail(ret, "set_sync_fields")

    def get_sync_regs(self) -> kvm.SyncRegs:
        """Return what the last exit left in the run page; only the valid fields mean anything."""
        data = bytearray(Regs.wire_size() + Sregs.wire_size() + kvm.VcpuEvents.wire_size())
        ret = lib.kvmx_vcpu_sync_copy(self._vcpu, 0, 0, buffer(data), len(data))
        if ret:
            self._fail(ret, "get_sync_regs")
        at = Regs.wire_size()
        return kvm.SyncRegs(
            Regs.unpack(data), Sregs.unpack(data, at), kvm.VcpuEvents.unpack(data, at + Sregs.wire_size())
        )

    def put_sync_regs(self, state: kvm.SyncRegs) -> None:
        """Put state into the run page; ``set_sync_fields`` says which of it the next run loads."""
        data = state.regs.pack() + state.sregs.pack() + state.events.pack()
        ret = lib.kvmx_vcpu_sync_copy(self._vcpu, 1, 0, buffer(data), len(data))
        if ret:
            self._fail(ret, "put_sync_regs")
