"""Saved state of a virtio-mmio device."""

import attrs

from virtio_devices._host_state import HostState

__all__ = ("MmioState",)


@attrs.frozen(kw_only=True)
class MmioState:
    """Saved state of a virtio-mmio device, version 1.

    Attributes:
        version: layout of this class, 1.
        host: what is independent of the transport.
        selectors: device feature page, driver feature page, queue, shared memory region.
        interrupt_status: bits not yet acknowledged.
    """

    host: HostState
    selectors: tuple[int, int, int, int]
    interrupt_status: int
    version: int = 1
