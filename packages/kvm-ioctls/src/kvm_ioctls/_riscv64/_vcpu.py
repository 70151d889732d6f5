"""riscv64 ioctls of a vCPU; its registers have ids (``get_one_reg``)."""

from __future__ import annotations

import struct

from kvm_ioctls._arch import only_on
from kvm_ioctls._ffi import lib
from kvm_ioctls._vcpu_state import VcpuState
from kvm_ioctls._wire import packed

__all__ = ("Riscv64Vcpu",)

_SET, _UNSET = 0xFFFF_FFFF, 0xFFFF_FFFE


@only_on("riscv64")
class Riscv64Vcpu(VcpuState):
    """Mixed into VcpuFd; errors as those of its other methods, WrongArchitectureError elsewhere."""

    def riscv_interrupt(self, active: bool) -> None:
        """Set the supervisor's external interrupt line (KVM_INTERRUPT), with no AIA in the kernel."""
        self._ioctl(lib.KX_INTERRUPT, bytearray(struct.pack("<I", _SET if active else _UNSET)))

    def set_riscv_guest_debug(self, control: int) -> None:
        """Choose whether EBREAK comes to the host as a Debug exit (KVM_SET_GUEST_DEBUG): bit 0 ENABLE."""
        self._ioctl(lib.KX_RISCV64_SET_GUEST_DEBUG, packed("debug control", "<II", control, 0))
