"""What the Rust crate kvm-ioctls 0.24 wraps, by architecture: each has a method here, on the same ones."""

import functools
import inspect
import re
from pathlib import Path

import pytest
from kvm_ioctls import DeviceFd, Kvm, VcpuFd, VmFd

X, A, R = "x86_64", "aarch64", "riscv64"
ALL, CLASSES = (X, A, R), {"Kvm": Kvm, "Vm": VmFd, "Vcpu": VcpuFd, "Device": DeviceFd}
# On which of the three: ioctl and method of ours, one for each of the crate's; KVM_RUN is in C.
CRATE = {
    ALL: """
        GET_API_VERSION Kvm.get_api_version; CHECK_EXTENSION Kvm.check_extension; CREATE_VM Kvm.create_vm;
        GET_VCPU_MMAP_SIZE Kvm.get_vcpu_mmap_size; CHECK_EXTENSION Vm.check_extension;
        SET_USER_MEMORY_REGION Vm.set_user_memory_region; SET_USER_MEMORY_REGION2 Vm.set_user_memory_region2;
        CREATE_GUEST_MEMFD Vm.create_guest_memfd; CREATE_VCPU Vm.create_vcpu; GET_DIRTY_LOG Vm.get_dirty_log;
        IOEVENTFD Vm.register_ioevent; IOEVENTFD Vm.unregister_ioevent;
        REGISTER_COALESCED_MMIO Vm.register_coalesced_mmio;
        UNREGISTER_COALESCED_MMIO Vm.unregister_coalesced_mmio; CREATE_DEVICE Vm.create_device;
        IRQFD Vm.register_irqfd; IRQFD Vm.register_irqfd_with_resample; IRQFD Vm.unregister_irqfd;
        IRQ_LINE Vm.set_irq_line; SIGNAL_MSI Vm.signal_msi; SET_GSI_ROUTING Vm.set_gsi_routing;
        GET_MP_STATE Vcpu.get_mp_state; SET_MP_STATE Vcpu.set_mp_state;
        HAS_DEVICE_ATTR Device.has_device_attr; SET_DEVICE_ATTR Device.set_device_attr;
        GET_DEVICE_ATTR Device.get_device_attr; RUN Vcpu.run
    """,
    (X, A): """
        SET_MEMORY_ATTRIBUTES Vm.set_memory_attributes; CREATE_IRQCHIP Vm.create_irq_chip
    """,
    (A, R): """
        GET_ONE_REG Vcpu.get_one_reg; SET_ONE_REG Vcpu.set_one_reg; GET_REG_LIST Vcpu.get_reg_list
    """,
    (A,): """
        ARM_PREFERRED_TARGET Vm.arm_preferred_target; SET_DEVICE_ATTR Vm.set_device_attr;
        HAS_DEVICE_ATTR Vm.has_device_attr; ARM_VCPU_INIT Vcpu.arm_vcpu_init;
        ARM_VCPU_FINALIZE Vcpu.arm_vcpu_finalize; SET_DEVICE_ATTR Vcpu.set_device_attr;
        HAS_DEVICE_ATTR Vcpu.has_device_attr; GET_VCPU_EVENTS Vcpu.get_arm_vcpu_events;
        SET_VCPU_EVENTS Vcpu.set_arm_vcpu_events; ARM64_SET_GUEST_DEBUG Vcpu.set_arm_guest_debug
    """,
    (X,): """
        GET_SUPPORTED_CPUID Kvm.get_supported_cpuid; GET_EMULATED_CPUID Kvm.get_emulated_cpuid;
        GET_MSR_INDEX_LIST Kvm.get_msr_index_list; GET_MSR_FEATURE_INDEX_LIST Kvm.get_msr_feature_index_list;
        GET_MSRS Kvm.get_msrs; ENABLE_CAP Vm.enable_cap; SET_TSS_ADDR Vm.set_tss_address;
        SET_IDENTITY_MAP_ADDR Vm.set_identity_map_address; GET_IRQCHIP Vm.get_irqchip;
        SET_IRQCHIP Vm.set_irqchip; CREATE_PIT2 Vm.create_pit2; GET_PIT2 Vm.get_pit2; SET_PIT2 Vm.set_pit2;
        GET_CLOCK Vm.get_clock; SET_CLOCK Vm.set_clock; X86_SET_MSR_FILTER Vm.set_msr_filter;
        MEMORY_ENCRYPT_OP Vm.memory_encrypt_op; MEMORY_ENCRYPT_REG_REGION Vm.register_enc_region;
        MEMORY_ENCRYPT_UNREG_REGION Vm.unregister_enc_region; GET_REGS Vcpu.get_regs; SET_REGS Vcpu.set_regs;
        GET_SREGS Vcpu.get_sregs; SET_SREGS Vcpu.set_sregs; GET_FPU Vcpu.get_fpu; SET_FPU Vcpu.set_fpu;
        GET_LAPIC Vcpu.get_lapic; SET_LAPIC Vcpu.set_lapic; GET_CPUID2 Vcpu.get_cpuid2;
        SET_CPUID2 Vcpu.set_cpuid2; GET_MSRS Vcpu.get_msrs; SET_MSRS Vcpu.set_msrs; GET_XSAVE Vcpu.get_xsave;
        GET_XSAVE2 Vcpu.get_xsave; SET_XSAVE Vcpu.set_xsave; GET_XCRS Vcpu.get_xcrs; SET_XCRS Vcpu.set_xcrs;
        GET_DEBUGREGS Vcpu.get_debug_regs; SET_DEBUGREGS Vcpu.set_debug_regs;
        GET_VCPU_EVENTS Vcpu.get_vcpu_events; SET_VCPU_EVENTS Vcpu.set_vcpu_events;
        SET_GUEST_DEBUG Vcpu.set_guest_debug; ENABLE_CAP Vcpu.enable_cap; KVMCLOCK_CTRL Vcpu.kvmclock_ctrl;
        GET_TSC_KHZ Vcpu.get_tsc_khz; SET_TSC_KHZ Vcpu.set_tsc_khz; TRANSLATE Vcpu.translate; SMI Vcpu.smi;
        NMI Vcpu.nmi; GET_NESTED_STATE Vcpu.get_nested_state; SET_NESTED_STATE Vcpu.set_nested_state
    """,
}
ROWS = [
    (*row.split(), arches) for arches, text in CRATE.items() for row in text.replace("\n", " ").split(";")
]


def test_nothing_of_the_crate_is_left_out():
    """It declares 79 ioctls; one of them has another struct on arm64."""
    assert len({ioctl.removeprefix("ARM64_") for ioctl, _, _ in ROWS}) == 79


@functools.cache
def sources(folder):
    """All code of one folder."""
    return "".join(path.read_text() for path in folder.glob("*.py"))


@pytest.mark.parametrize(("ioctl", "method", "arches"), ROWS)
def test_each_has_a_method_where_the_crate_has_one(ioctl, method, arches):
    """A method of the class, not kept for another architecture, and the number in the code beside it."""
    kind, _, name = method.partition(".")
    file = Path(inspect.getfile(inspect.unwrap(getattr(CLASSES[kind], name))))
    own = file.parent.name.removeprefix("_")

    assert set(arches) <= ({own} if own in ALL else set(ALL))
    assert ioctl == "RUN" or re.search(rf"\blib\.KX_{ioctl}\b", sources(file.parent))
