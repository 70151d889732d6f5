"""arm64 ioctls of a vCPU; its registers have ids (``get_one_reg``)."""

from __future__ import annotations

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._arch import only_on
from kvm_ioctls._ffi import lib
from kvm_ioctls._vcpu_state import VcpuState
from kvm_ioctls._wire import packed

__all__ = ("Arm64Vcpu",)


@only_on("aarch64")
class Arm64Vcpu(VcpuState):
    """Mixed into VcpuFd.

    Every method raises WrongArchitectureError elsewhere, KvmOSError when the kernel refuses and KvmStateError
    when the vCPU is closed, forked or in use by another thread; a refused setter changes nothing.
    """

    def arm_vcpu_init(self, init: kvm.Arm64VcpuInit) -> None:
        """Set target and features and reset the vCPU (KVM_ARM_VCPU_INIT); first of all."""
        self._ioctl(lib.KX_ARM_VCPU_INIT, init.pack())

    def arm_vcpu_finalize(self, feature: int) -> None:
        """Complete a feature after its setup (KVM_ARM_VCPU_FINALIZE), such as 4 for SVE."""
        self._ioctl(lib.KX_ARM_VCPU_FINALIZE, packed("feature", "<i", feature))

    def get_arm_vcpu_events(self) -> kvm.Arm64VcpuEvents:
        """Return pending SError and external abort (KVM_GET_VCPU_EVENTS)."""
        return self._get(lib.KX_GET_VCPU_EVENTS, kvm.Arm64VcpuEvents)

    def set_arm_vcpu_events(self, events: kvm.Arm64VcpuEvents) -> None:
        """Inject SError or external abort (KVM_SET_VCPU_EVENTS)."""
        self._ioctl(lib.KX_SET_VCPU_EVENTS, events.pack())

    def set_arm_guest_debug(self, debug: kvm.Arm64GuestDebug) -> None:
        """Choose which debug events come to the host as Debug exits (KVM_SET_GUEST_DEBUG)."""
        self._ioctl(lib.KX_ARM64_SET_GUEST_DEBUG, debug.pack())
