"""The tiny guests with which `probe` measures KVM on AArch64."""

import struct
from contextlib import ExitStack
from typing import Final

import kvm_ioctls as kvm
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

from vm_hypervisor._errors import HypervisorUnavailableError

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
_LOOP = (0xF100_0400, 0x54FF_FFE1, 0xB900_0022)
# mrs x2, mpidr_el1; str w2, [x1]
_WHO = (0xD538_00A2, 0xB900_0022)
# str w2, [x1]; b -4
_EXIT_LOOP = (0xB900_0022, 0x17FF_FFFF)


def loop_guest(stack: ExitStack, system: kvm.Kvm) -> kvm.VcpuFd:
    """Return a vCPU with a loop of two instructions."""
    return _guest(stack, system, _LOOP)


def start_loop(vcpu: kvm.VcpuFd, loops: int) -> None:
    """Set it to the beginning of so many rounds."""
    _set(vcpu, {_PC: _CODE, _X0: loops})


def check_exit(vcpu: kvm.VcpuFd) -> None:
    """Raise HypervisorUnavailableError when it did not come back with its store."""
    _reported(vcpu)


def exit_guest(stack: ExitStack, system: kvm.Kvm) -> kvm.VcpuFd:
    """Return a vCPU that does nothing but exit."""
    return _guest(stack, system, _EXIT_LOOP)


def identity_virtualised(system: kvm.Kvm) -> bool:
    """Tell whether MPIDR_EL1 has the number of the vCPU."""
    with ExitStack() as stack:
        vcpu = _guest(stack, system, _WHO, index=_INDEX)
        vcpu.run()
        return _reported(vcpu) & 0xFF == _INDEX


def _reported(vcpu: kvm.VcpuFd) -> int:
    exit_ = vcpu.io.exit()
    if not isinstance(exit_, kvm.MmioWrite) or exit_.addr != _DEVICE:
        raise HypervisorUnavailableError(f"/dev/kvm cannot run a tiny guest: it came back with {exit_!r}")
    return int.from_bytes(exit_.data, "little")


def _guest(stack: ExitStack, system: kvm.Kvm, code: tuple[int, ...], *, index: int = 0) -> kvm.VcpuFd:
    """Return a vCPU that starts at `code`, at EL1 with its MMU off."""
    region = GuestRegionMmap.anonymous(_CODE, 1 << 16)
    GuestMemoryMmap([region]).write(_CODE, struct.pack(f"<{len(code)}I", *code))
    vm = stack.enter_context(system.create_vm())
    stack.callback(_keep, region)
    vm.set_user_memory_region(
        0, guest_phys_addr=_CODE, memory_size=region.size, userspace_addr=region.host_address
    )
    vcpu = stack.enter_context(vm.create_vcpu(index))
    vcpu.arm_vcpu_init(vm.arm_preferred_target())
    _set(vcpu, {_PC: _CODE, _PSTATE: _MASKED_EL1H, _X1: _DEVICE})
    return vcpu


def _keep(_region: GuestRegionMmap) -> None:
    """Do nothing, late: the region has to outlive the VM, which the stack closes first."""


def _set(vcpu: kvm.VcpuFd, registers: dict[int, int]) -> None:
    for place, value in registers.items():
        vcpu.set_one_reg(kvm.arm64_core_reg(place), value)
