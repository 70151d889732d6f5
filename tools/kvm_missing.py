"""Why no test executes an ioctl or an exit: for docs/kvm-coverage.md, by architecture.

A capability that no host at hand reports, or the reason in words, of Linux 6.12's code.
"""

from typing import Final

_ONE_VM_TYPE: Final = "`KVM_CAP_VM_TYPES` offers none with private memory"
_NEVER: Final = "nothing in Linux makes it"
_NO_GICV2: Final = "needs a GICv2, or a GICv3 that can be one"

MISSING: Final[dict[str, dict[str, str]]] = {
    "x86_64": {
        "KVM_GET_NR_MMU_PAGES": "Linux has taken it back",
        "KVM_MEMORY_ENCRYPT_OP": _ONE_VM_TYPE,
        "KVM_MEMORY_ENCRYPT_REG_REGION": _ONE_VM_TYPE,
        "KVM_MEMORY_ENCRYPT_UNREG_REGION": _ONE_VM_TYPE,
        "KVM_SET_MEMORY_ATTRIBUTES": _ONE_VM_TYPE,
        "KVM_EXIT_UNKNOWN": "left behind by SGX on VMX alone",
        "KVM_EXIT_EXCEPTION": "VMX alone makes it",
        "KVM_EXIT_NMI": _NEVER,
        "KVM_EXIT_AP_RESET_HOLD": _ONE_VM_TYPE,
        "KVM_EXIT_X86_BUS_LOCK": "KVM_CAP_X86_BUS_LOCK_EXIT",
        "KVM_EXIT_NOTIFY": "KVM_CAP_X86_NOTIFY_VMEXIT",
        "KVM_EXIT_MEMORY_FAULT": _ONE_VM_TYPE,
        "KVM_EXIT_TDX": _ONE_VM_TYPE,
        "KVM_EXIT_SNP_REQ_CERTS": _ONE_VM_TYPE,
    },
    "aarch64": {
        "KVM_CREATE_IRQCHIP": _NO_GICV2,
        "KVM_ARM_SET_DEVICE_ADDR": _NO_GICV2,
        "KVM_ARM_MTE_COPY_TAGS": "KVM_CAP_ARM_MTE",
        "KVM_ARM_VCPU_FINALIZE": "KVM_CAP_ARM_SVE",
        "KVM_SET_MEMORY_ATTRIBUTES": "KVM_CAP_MEMORY_ATTRIBUTES",
        "KVM_CREATE_GUEST_MEMFD": "KVM_CAP_GUEST_MEMFD",
        "KVM_PRE_FAULT_MEMORY": "KVM_CAP_PRE_FAULT_MEMORY",
        "KVM_EXIT_UNKNOWN": _NEVER,
        "KVM_EXIT_EXCEPTION": _NEVER,
        "KVM_EXIT_SHUTDOWN": _NEVER,
        "KVM_EXIT_FAIL_ENTRY": "made of states that KVM's own checks refuse",
        "KVM_EXIT_INTERNAL_ERROR": "made of exits that no processor has",
        "KVM_EXIT_MEMORY_FAULT": "KVM_CAP_MEMORY_FAULT_INFO",
        "KVM_EXIT_ARM_SEA": "KVM_CAP_ARM_SEA_TO_USER",
        "KVM_EXIT_ARM_LDST64B": "a processor with LS64",
    },
}
