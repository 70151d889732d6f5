"""What a device type is, and what it sees of the world.

A device type is any object that has the shape of `VirtioDevice`: nothing to inherit from. It does not know
its transport. On activation it gets a `DeviceContext` and says there who answers each of its queues.
"""

from collections.abc import Mapping
from typing import Protocol

import virtio_devices  # whose names load when they are used

StateValue = int | str | bytes
"""What a device may put into its saved state under a name."""


class VirtioDevice(Protocol):
    """The shape of every device type.

    All methods but `reset` run on the thread that wrote the register (a vCPU thread) and must not block;
    request handlers run on the device thread. A method that raises puts the device into DEVICE_NEEDS_RESET.
    """

    @property
    def id(self) -> str:
        """The name the user or the VMM gave it ("disk0"); in every log line."""
        ...

    @property
    def device_id(self) -> int:
        """Virtio device type (VIRTIO 1.2 section 5), 1 .. 2^32-1."""
        ...

    @property
    def features(self) -> int:
        """Feature bits of the device type (0..23, 50..63); the transport adds its own."""
        ...

    @property
    def queue_sizes(self) -> tuple[int, ...]:
        """Maximum size of each queue, 1 to 32768; a split ring needs powers of two."""
        ...

    def read_config(self, offset: int, size: int) -> bytes:
        """Bytes of the configuration space; fewer than `size` at its end (the transport pads with zeros)."""
        ...

    def write_config(self, offset: int, data: bytes) -> None:
        """Store into the configuration space; what is not writable is ignored."""
        ...

    def activate(self, context: "virtio_devices.DeviceContext") -> None:
        """The driver is ready: register a handler for each queue with `context.serve_*`."""
        ...

    def reset(self) -> None:
        """Forget everything the driver did; no handler runs now, and none will before the next `activate`."""
        ...

    def describe(self) -> Mapping[str, StateValue]:
        """Properties for the platform description; often empty."""
        ...

    def state(self) -> Mapping[str, StateValue]:
        """What `restore` needs beyond the queues; called while no handler runs."""
        ...

    def restore(self, state: Mapping[str, StateValue]) -> None:
        """Take over what `state` gave, before `activate`."""
        ...

    def close(self) -> None:
        """Release host resources; called once, after the last `reset`."""
        ...
