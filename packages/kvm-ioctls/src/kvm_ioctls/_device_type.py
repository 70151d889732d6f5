"""The kinds of in-kernel devices."""

from enum import IntEnum

__all__ = ("DeviceType",)


class DeviceType(IntEnum):
    """What ``VmFd.create_device`` can make, as the kernel and the architecture have it."""

    FSL_MPIC_20 = 1
    FSL_MPIC_42 = 2
    XICS = 3
    VFIO = 4
    ARM_VGIC_V2 = 5
    FLIC = 6
    ARM_VGIC_V3 = 7
    ARM_VGIC_ITS = 8
    XIVE = 9
    ARM_PV_TIME = 10
    RISCV_AIA = 11
    LOONGARCH_IPI = 12
    LOONGARCH_EIOINTC = 13
    LOONGARCH_PCHPIC = 14
    LOONGARCH_DMSINTC = 15
    ARM_VGIC_V5 = 16
