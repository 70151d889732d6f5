"""Queue registers, and the saved state of a device behind any transport."""

from collections.abc import Mapping

import attrs
from virtio_queue import QueueState

from virtio_devices._device import StateValue


@attrs.define
class QueueRegisters:
    """What the driver wrote about a queue before it made it ready; hostile until `Queue` has checked it."""

    size: int
    desc_table: int = 0
    avail_ring: int = 0
    used_ring: int = 0


@attrs.frozen(kw_only=True)
class HostState:
    """Saved state of a device behind any transport, version 1.

    Attributes:
        version: layout of this class, 1.
        device_id: virtio device type, to refuse another device's state.
        status: device status without NEEDS_RESET.
        needs_reset: whether the device waits for a reset.
        driver_features: feature bits the driver accepted.
        config_generation: value of the generation counter.
        registers: per queue (size, desc_table, avail_ring, used_ring) as last written.
        queues: per queue its ring state.
        device: what the device type saved.
    """

    device_id: int
    status: int
    needs_reset: bool
    driver_features: int
    config_generation: int
    registers: tuple[tuple[int, int, int, int], ...]
    queues: tuple[QueueState, ...]
    device: Mapping[str, StateValue]
    version: int = 1
