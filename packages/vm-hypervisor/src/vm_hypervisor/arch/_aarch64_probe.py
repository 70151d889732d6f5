"""The tiny guests with which `probe` measures KVM on AArch64."""

import struct
from contextlib import ExitStack
from typing import Final

import kvm_ioctls as kvm

from vm_hypervisor._errors import HypervisorUnavailableError
from vm_hypervisor.arch._probe_vm import vm_with_memory

CAPABILITIES: Final = (
    "IRQCHIP",
    "IRQFD",
    "IOEVENTFD",
    "IMMEDIATE_EXIT",
    "ARM_PSCI_0_2",
    "ONE_REG",
    "NESTED_STATE",
    "DIRTY_LOG_RING",
    "GUEST_MEMFD",
    "MEMORY_ATTRIBUTES",
)

_CODE, _DEVICE = 0x4000_0000, 0x0900_0000
_X0, _X1, _PC, _PSTATE = 0, 8, 256, 264  # places in struct kvm_regs
_MASKED_EL1H: Final = 0x3C5
_INDEX = 5  # a number that the processor below is not likely to have

# Arm ARM (DDI 0487), C6.2: subs x0, x0, #1; b.ne -4; str w2, [x1]
LOOP: Final = struct.pack("<3I", 0xF100_0400, 0x54FF_FFE1, 0xB900_0022)
# mrs x2, mpidr_el1; str w2, [x1]
_WHO = struct.pack("<2I", 0xD538_00A2, 0xB900_0022)
# str w2, [x1]; b -4
EXIT_LOOP: Final = struct.pack("<2I", 0xB900_0022, 0x17FF_FFFF)


def start_loop(vcpu: kvm.VcpuFd, loops: int) -> None:
    """Set it to the beginning of so many rounds."""
    _set(vcpu, {_PC: _CODE, _X0: loops})


def identity_virtualised(system: kvm.Kvm) -> bool:
    """Tell whether MPIDR_EL1 has the number of the vCPU."""
    with ExitStack() as stack:
        vcpu = guest(stack, system, _WHO, index=_INDEX)
        vcpu.run()
        return reported(vcpu) & 0xFF == _INDEX


def reported(vcpu: kvm.VcpuFd) -> int:
    """Return what a guest's store said.

    Raises:
        HypervisorUnavailableError: it came back with another exit.
    """
    exit_ = vcpu.io.exit()
    if not isinstance(exit_, kvm.MmioWrite) or exit_.addr != _DEVICE:
        raise HypervisorUnavailableError(f"/dev/kvm cannot run a tiny guest: it came back with {exit_!r}")
    return int.from_bytes(exit_.data, "little")


def guest(stack: ExitStack, system: kvm.Kvm, code: bytes, *, index: int = 0) -> kvm.VcpuFd:
    """Return a vCPU that starts at `code`, at EL1 with its MMU off."""
    vm = vm_with_memory(stack, system, _CODE, {_CODE: code})
    vcpu = stack.enter_context(vm.create_vcpu(index))
    vcpu.arm_vcpu_init(vm.arm_preferred_target())
    _set(vcpu, {_PC: _CODE, _PSTATE: _MASKED_EL1H, _X1: _DEVICE})
    return vcpu


def _set(vcpu: kvm.VcpuFd, registers: dict[int, int]) -> None:
    for place, value in registers.items():
        vcpu.set_one_reg(kvm.arm64_core_reg(place), value)
