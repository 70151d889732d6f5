"""Numbers of linux/kvm.h that every start meets: the enums of all take 3 ms to build."""

from typing import Final

CAPABILITIES: Final = {
    "IRQCHIP": 0,
    "USER_MEMORY": 3,
    "SET_TSS_ADDR": 4,
    "EXT_CPUID": 7,
    "MP_STATE": 14,
    "DESTROY_MEMORY_REGION_WORKS": 21,
    "IRQ_ROUTING": 25,
    "JOIN_MEMORY_REGIONS_WORKS": 30,
    "IRQFD": 32,
    "PIT2": 33,
    "IOEVENTFD": 36,
    "SET_IDENTITY_MAP_ADDR": 37,
    "ONE_REG": 70,
    "TSC_DEADLINE_TIMER": 72,
    "DEVICE_CTRL": 89,
    "ARM_PSCI_0_2": 102,
    "SPLIT_IRQCHIP": 121,
    "IMMEDIATE_EXIT": 136,
    "GET_MSR_FEATURES": 153,
}
EXIT_IO: Final = 2
EXIT_MMIO: Final = 6
EXIT_INTR: Final = 10
EXIT_IOAPIC_EOI: Final = 26
MEM_LOG_DIRTY_PAGES: Final = 1
MEM_READONLY: Final = 2
