"""Step 4: a virtio device of your own, and a driver for it, without any guest."""

import os
from collections.abc import Mapping

from virtio_devices import DeviceContext, DeviceId, StateValue, VirtioMmio
from virtio_devices.testing import LineProbe, MmioDriver
from virtio_queue import DescriptorChain
from vmm_memory import GuestMemory, GuestMemoryMmap, GuestRegionMmap


class Entropy:
    """A source of random bytes (VIRTIO 1.2 section 5.4): one queue, of buffers to fill."""

    id, device_id, features, queue_sizes = "entropy0", int(DeviceId.ENTROPY), 0, (8,)

    def __init__(self) -> None:
        self.given = b""

    def activate(self, context: DeviceContext) -> None:
        """The driver is ready: answer queue 0."""
        context.serve_chains(0, self.fill)

    def fill(self, memory: GuestMemory, chain: DescriptorChain) -> int:
        """Answer one request, on the device's thread; return how many bytes were written."""
        writer = chain.writer()
        data = os.urandom(min(writer.available, 4096))  # the guest may ask for 4 GiB; it gets a page
        writer.write(data)
        self.given = (self.given + data)[-(1 << 16) :]  # what a guest does must not grow us without bound
        return len(data)

    def reset(self) -> None:
        """The driver starts over: nothing to forget."""

    def read_config(self, offset: int, size: int) -> bytes:
        """There is no configuration space: nothing to read."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """Nothing to write either."""

    def describe(self) -> Mapping[str, StateValue]:
        """No properties for the platform."""
        return {}

    def state(self) -> Mapping[str, StateValue]:
        """Nothing to save: random bytes must not be given twice."""
        return {}

    def restore(self, state: Mapping[str, StateValue]) -> None:
        """Nothing to take over."""

    def close(self) -> None:
        """Nothing to give back."""


def main() -> None:
    """Play the guest: bring the device up through its registers, ask twice, compare."""
    memory = GuestMemoryMmap([GuestRegionMmap.memfd(0, 1 << 20)])
    line, device = LineProbe(), Entropy()
    with VirtioMmio(device, base=0, interrupt=line, memory=memory) as transport:
        driver = MmioDriver(transport, memory, line, area=(0x1000, 0x8000))
        driver.initialise()
        first = driver.request(writable=[16]).data[0]
        second = driver.request(writable=[8, 24]).data
    print(f"{len(first)} bytes, then {[len(part) for part in second]}")
    print("as given:", first + b"".join(second) == device.given)


if __name__ == "__main__":
    main()
