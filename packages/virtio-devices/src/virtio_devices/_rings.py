"""Which ring features a transport offers for a device."""

import attrs
from vm_device import Value

from virtio_devices._spec import Feature

__all__ = ("RingOptions",)


@attrs.frozen(eq=False, repr=False)
class RingOptions(Value):
    """What a driver may negotiate about the rings; the names and defaults are QEMU's.

    Attributes:
        packed: VIRTIO_F_RING_PACKED, one ring of descriptors that both sides write, in place of three.
        event_idx: VIRTIO_F_EVENT_IDX, each side names the entry at which it wants to be notified.
        indirect_desc: VIRTIO_F_INDIRECT_DESC, tables of descriptors outside the ring.
        in_order: VIRTIO_F_IN_ORDER, requests are answered in the order in which they came. The devices of
            this package do so; offer it for a device of your own only if it does.
        notification_data: VIRTIO_F_NOTIFICATION_DATA, a notification says how far the driver has come. Those
            that say so do not match an ioeventfd: each is an exit.
        queue_reset: VIRTIO_F_RING_RESET, one queue can be reset alone.
    """

    packed: bool = False
    event_idx: bool = True
    indirect_desc: bool = True
    in_order: bool = False
    notification_data: bool = False
    queue_reset: bool = True

    @property
    def features(self) -> Feature:
        """The bits to offer."""
        chosen = Feature(0)
        for name, bit in _BITS.items():
            if getattr(self, name):
                chosen |= bit
        return chosen


_BITS = {
    "packed": Feature.RING_PACKED,
    "event_idx": Feature.EVENT_IDX,
    "indirect_desc": Feature.INDIRECT_DESC,
    "in_order": Feature.IN_ORDER,
    "notification_data": Feature.NOTIFICATION_DATA,
    "queue_reset": Feature.RING_RESET,
}
