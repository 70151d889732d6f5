"""Numbers of the VIRTIO 1.2 specification that every device and transport shares."""

import enum

__all__ = ("DeviceId", "Feature", "InterruptBit", "MmioRegister", "Status")


class DeviceId(enum.IntEnum):
    """Virtio device types (VIRTIO 1.2 section 5)."""

    NET = 1
    BLOCK = 2
    CONSOLE = 3
    ENTROPY = 4


class Status(enum.IntFlag):
    """The device status field (VIRTIO 1.2 section 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Feature(enum.IntFlag):
    """Feature bits that belong to the transport and the queues (VIRTIO 1.2 section 6)."""

    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35
    NOTIFICATION_DATA = 1 << 38
    RING_RESET = 1 << 40


class InterruptBit(enum.IntFlag):
    """Bits of InterruptStatus (VIRTIO 1.2 section 4.2.2)."""

    USED_BUFFER = 1
    CONFIG_CHANGE = 2


class MmioRegister(enum.IntEnum):
    """Offsets of the virtio-mmio registers, version 2 (VIRTIO 1.2 section 4.2.2)."""

    MAGIC_VALUE = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SEL = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SEL = 0x024
    QUEUE_SEL = 0x030
    QUEUE_NUM_MAX = 0x034
    QUEUE_NUM = 0x038
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACK = 0x064
    STATUS = 0x070
    QUEUE_DESC_LOW = 0x080
    QUEUE_DESC_HIGH = 0x084
    QUEUE_DRIVER_LOW = 0x090
    QUEUE_DRIVER_HIGH = 0x094
    QUEUE_DEVICE_LOW = 0x0A0
    QUEUE_DEVICE_HIGH = 0x0A4
    SHM_SEL = 0x0AC
    SHM_LEN_LOW = 0x0B0
    SHM_LEN_HIGH = 0x0B4
    SHM_BASE_LOW = 0x0B8
    SHM_BASE_HIGH = 0x0BC
    QUEUE_RESET = 0x0C0
    CONFIG_GENERATION = 0x0FC
    CONFIG = 0x100
