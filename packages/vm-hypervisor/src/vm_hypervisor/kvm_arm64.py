"""KVM on AArch64: a VM with PSCI, a GICv3 and its ITS."""

import errno
import itertools
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import kvm_ioctls as kvm
from vm_device import Interrupt

from vm_hypervisor._errors import UnsupportedFeatureError
from vm_hypervisor._irq import GsiRoutes, IrqLine, KvmResampledLine
from vm_hypervisor._kvm_core import KvmHypervisorCore, KvmVcpuCore, KvmVmCore
from vm_hypervisor._protocols import Irqchip, ResampledLine
from vm_hypervisor.arch import aarch64

if TYPE_CHECKING:
    from vm_hypervisor._protocols import Hypervisor, Vcpu, Vm

__all__ = ("KvmArm64Hypervisor", "KvmArm64Vcpu", "KvmArm64Vm")

_REQUIRED: Final = (
    *("IMMEDIATE_EXIT", "USER_MEMORY", "DESTROY_MEMORY_REGION_WORKS", "JOIN_MEMORY_REGIONS_WORKS"),
    *("IRQCHIP", "IRQ_ROUTING", "IRQFD", "IOEVENTFD", "ONE_REG", "MP_STATE", "DEVICE_CTRL", "ARM_PSCI_0_2"),
)
_POWER_OFF, _PSCI_0_2 = 1 << 0, 1 << 2
# Documentation/virt/kvm/devices/arm-vgic-v3.rst, arm-vgic-its.rst
_ADDRESS, _LINES, _CONTROL = 0, 3, 4
_DISTRIBUTOR, _REDISTRIBUTORS, _ITS = 2, 3, 4
_INIT = 0
_X0, _PC, _PSTATE = 0, 256, 264  # places in struct kvm_regs
_MPIDR_EL1: Final = (3, 0, 0, 0, 5)
_AFFINITY: Final = 0xFF_00FF_FFFF  # Aff3, Aff2 to Aff0; the rest are flags


class KvmArm64Hypervisor(KvmHypervisorCore):
    """KVM of an AArch64 host."""

    def create_vm(self, *, irqchip: Irqchip = Irqchip.KERNEL) -> "KvmArm64Vm":
        """Create a VM, which gets its GIC by `KvmArm64Vm.create_gic`.

        Args:
            irqchip: KERNEL; there is no other on AArch64.

        Raises:
            UnsupportedFeatureError: SPLIT was asked for, or this KVM lacks a capability, which is named.
            kvm_ioctls.KvmOSError: KVM refused.
        """
        if irqchip is not Irqchip.KERNEL:
            raise UnsupportedFeatureError(f"irqchip {irqchip.value}: an AArch64 VM has its GIC in the kernel")
        self._require(_REQUIRED)
        return KvmArm64Vm(self._kvm.create_vm())


class KvmArm64Vm(KvmVmCore):
    """One VM on KVM, AArch64."""

    _devices_have_ids = True

    def __init__(self, vm: kvm.VmFd) -> None:
        """Take over `vm`."""
        super().__init__(vm, GsiRoutes(vm, ()))
        self._gic: aarch64.Gic | None = None
        self._chips: list[kvm.DeviceFd] = []

    def create_vcpu(self, index: int) -> "KvmArm64Vcpu":
        """Create vCPU `index` with PSCI (KVM_ARM_VCPU_INIT); all but the first are switched off.

        Raises:
            ValueError: it exists, or the VM has its GIC already.
        """
        if index in self._vcpus:
            raise ValueError(f"vCPU {index} exists already")
        if self._gic is not None:
            raise ValueError(
                f"vCPU {index} comes after the GIC, which knows the number of its redistributors"
            )
        init = self._vm.arm_preferred_target()
        features = _PSCI_0_2 | (_POWER_OFF if index else 0)
        init.features = (init.features[0] | features, *init.features[1:])
        fd = self._vm.create_vcpu(index)
        try:
            fd.arm_vcpu_init(init)
        except BaseException:
            fd.close()
            raise
        vcpu = KvmArm64Vcpu(self, fd, index)
        self._vcpus[index] = vcpu
        return vcpu

    def create_gic(self, gic: aarch64.Gic) -> None:
        """Create a GICv3, and its ITS; see `arch.aarch64.Arm64Vm`. On an error the VM is of no use."""
        if self._gic is not None:
            raise ValueError("the VM has its GIC already")
        _check_layout(gic, len(self._vcpus))
        chip = self._chip(kvm.DeviceType.ARM_VGIC_V3, "GICv3")
        _set(chip, _LINES, 0, "<I", aarch64.FIRST_SPI + gic.lines)
        _set(chip, _ADDRESS, _DISTRIBUTOR, "<Q", gic.distributor)
        _set(chip, _ADDRESS, _REDISTRIBUTORS, "<Q", gic.redistributors)
        chip.set_device_attr(_CONTROL, _INIT, b"")
        if gic.its is not None:
            its = self._chip(kvm.DeviceType.ARM_VGIC_ITS, "ITS")
            _set(its, _ADDRESS, _ITS, "<Q", gic.its)
            its.set_device_attr(_CONTROL, _INIT, b"")
        # As KVM itself has set them up: line n is shared interrupt n.
        fixed = (kvm.IrqchipRoute(line, 0, line) for line in range(gic.lines))
        self._routes = GsiRoutes(self._vm, fixed, pins=gic.lines)
        self._gic = gic

    def _chip(self, kind: kvm.DeviceType, name: str) -> kvm.DeviceFd:
        try:
            chip = self._vm.create_device(kind)
        except kvm.KvmOSError as error:
            if error.errno != errno.ENODEV:
                raise
            raise UnsupportedFeatureError(f"this host's KVM has no {name} for its guests") from None
        self._chips.append(chip)
        return chip

    def irq_line(self, gsi: int) -> Interrupt:
        """Return the line of shared interrupt `gsi`, the same object each time; from any thread."""
        self._check_line(gsi)
        number = kvm.arm_irq(kvm.ArmIrqType.SPI, aarch64.FIRST_SPI + gsi)
        return self._line(gsi, lambda: IrqLine(self._vm, gsi, number))

    def resampled_line(self, gsi: int) -> ResampledLine:
        """Return a new source of shared interrupt `gsi`; see `Vm.resampled_line`."""
        self._check_line(gsi)
        return self._source(lambda undo: KvmResampledLine(self._vm, gsi, undo))

    def _check_line(self, gsi: int) -> None:
        lines = 0 if self._gic is None else self._gic.lines
        if not 0 <= gsi < lines:
            raise ValueError(f"gsi {gsi} is not within 0 … {lines - 1}" if lines else "the VM has no GIC yet")

    def close(self) -> None:
        """Take the irqfds away and close the VM."""
        self._close_lines()
        for chip in self._chips:
            chip.close()
        self._vm.close()


class KvmArm64Vcpu(KvmVcpuCore):
    """One vCPU on KVM, AArch64."""

    @property
    def affinity(self) -> int:
        """The affinity fields of MPIDR_EL1."""
        return self._fd.get_one_reg(kvm.arm64_sys_reg(*_MPIDR_EL1)) & _AFFINITY

    def set_entry_state(self, entry: aarch64.EntryState) -> None:
        """Set X0, PC and PSTATE; X1 to X3 are zero."""
        core = {_X0: entry.x0, 8: 0, 16: 0, 24: 0, _PC: entry.pc, _PSTATE: entry.pstate}
        for place, value in core.items():
            self._fd.set_one_reg(kvm.arm64_core_reg(place), value)

    def registers(self) -> tuple[tuple[int, int], ...]:
        """Return (id, value) of every register (KVM_GET_REG_LIST, KVM_GET_ONE_REG)."""
        return tuple((reg, self._fd.get_one_reg(reg)) for reg in self._fd.get_reg_list())

    def set_registers(self, values: Iterable[tuple[int, int]]) -> None:
        """Write those of the registers that differ (KVM_SET_ONE_REG)."""
        for reg, value in values:
            if self._fd.get_one_reg(reg) != value:
                self._fd.set_one_reg(reg, value)


def _set(chip: kvm.DeviceFd, group: int, attr: int, layout: str, value: int) -> None:
    chip.set_device_attr(group, attr, struct.pack(layout, value))


def _check_layout(gic: aarch64.Gic, vcpus: int) -> None:
    parts = [
        ("distributor", gic.distributor, aarch64.DISTRIBUTOR_SIZE),
        ("redistributors", gic.redistributors, vcpus * aarch64.REDISTRIBUTOR_SIZE),
    ]
    if gic.its is not None:
        parts.append(("its", gic.its, aarch64.ITS_SIZE))
    parts.sort(key=lambda part: part[1])
    for (name, base, size), (other, start, _) in itertools.pairwise(parts):
        if base + size > start:
            raise ValueError(f"{name} {base:#x} + {size:#x} ({vcpus} vCPUs) reaches into {other} {start:#x}")


if TYPE_CHECKING:  # `make lint` shows by these that the classes are what the Protocols ask for
    _HYPERVISOR: type[Hypervisor] = KvmArm64Hypervisor
    _VM: type[Vm] = KvmArm64Vm
    _ARM64_VM: type[aarch64.Arm64Vm] = KvmArm64Vm
    _VCPU: type[Vcpu] = KvmArm64Vcpu
    _ARM64_VCPU: type[aarch64.Arm64Vcpu] = KvmArm64Vcpu
