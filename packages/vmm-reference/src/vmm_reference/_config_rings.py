"""What every virtio device's option says of its rings, in QEMU's names."""

from typing import Final

import attrs
from vm_device import Value

from vmm_reference._grammar import Options, parse_toggle

RING_KEYS: Final = {
    "packed": "offer packed rings as well as split ones",
    "event_idx": "let the driver say which entry to notify it of (default on)",
    "indirect_desc": "let it use tables outside the ring (default on)",
    "in_order": "tell it that requests are answered in order",
    "notification_data": "let its notifications say how far it is; each is an exit",
    "queue_reset": "let it reset one queue alone (default on)",
}


@attrs.frozen(eq=False, repr=False)
class RingConfig(Value):
    """Which ring features a device offers, in the fields and defaults of `virtio_devices.RingOptions`.

    `packed`, `event_idx`, `indirect_desc`, `in_order`, `notification_data`, `queue_reset`: the VIRTIO feature
    bits of those names (RING_PACKED, …).
    """

    packed: bool = False
    event_idx: bool = True
    indirect_desc: bool = True
    in_order: bool = False
    notification_data: bool = False
    queue_reset: bool = True

    @classmethod
    def take(cls, options: Options) -> "RingConfig":
        """Take the ring keys out of a device's options; raises `ConfigError`."""
        return cls(
            **{
                field.name: options.take(field.name, parse_toggle, default=field.default)
                for field in attrs.fields(cls)
            }
        )

    def words(self) -> str:
        """The keys that differ from the defaults, each after a comma, as `take` reads them."""
        changed = attrs.asdict(self, filter=lambda field, value: value != field.default)
        return "".join(f",{name}={'on' if value else 'off'}" for name, value in changed.items())
