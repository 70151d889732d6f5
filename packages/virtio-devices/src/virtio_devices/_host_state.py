"""Queue registers, and the saved state of a device behind any transport."""

from collections.abc import Mapping

import attrs
from virtio_queue import QueueState

from virtio_devices._device import StateValue
from virtio_devices._errors import SavedStateError
from virtio_devices._spec import Feature

# What was negotiated, and what a queue that is ready says of it.
_NEGOTIATED = {
    "packed": Feature.RING_PACKED,
    "event_idx": Feature.EVENT_IDX,
    "indirect": Feature.INDIRECT_DESC,
}
_WIDTHS = {"size": 16, "desc_table": 64, "avail_ring": 64, "used_ring": 64}


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


def _check_width(field: str, value: int, bits: int) -> None:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise SavedStateError(field, value, f"an integer of {bits} bits")


def check_host_state(state: HostState, *, device_id: int, sizes: tuple[int, ...], offered: int) -> None:
    """Refuse a state that this device cannot have been in.

    Args:
        state: from anywhere.
        device_id: type of the device that is to take it over.
        sizes: the most entries of each of its queues.
        offered: the features it offers.

    Raises:
        SavedStateError: names the field.
    """
    for field, bits in (("status", 8), ("driver_features", 64), ("config_generation", 32)):
        _check_width(field, getattr(state, field), bits)
    checks = (
        ("version", state.version, 1),
        ("device_id", state.device_id, device_id),
        ("queues", tuple(queue.max_size for queue in state.queues), sizes),
        ("registers", len(state.registers), len(sizes)),
        ("driver_features", state.driver_features & ~offered, 0),
    )
    for field, value, limit in checks:
        if value != limit:
            raise SavedStateError(field, value, repr(limit))
    for index, registers in enumerate(state.registers):
        if len(registers) != len(_WIDTHS):
            raise SavedStateError(f"registers[{index}]", registers, f"{len(_WIDTHS)} numbers")
        for (name, bits), number in zip(_WIDTHS.items(), registers, strict=True):
            _check_width(f"registers[{index}].{name}", number, bits)
    for index, queue in enumerate(state.queues):
        for name, feature in _NEGOTIATED.items():
            wanted = bool(state.driver_features & feature)
            if queue.ready and getattr(queue, name) != wanted:
                rule = f"{wanted}, as driver_features={state.driver_features:#x} say"
                raise SavedStateError(f"queues[{index}].{name}", getattr(queue, name), rule)
