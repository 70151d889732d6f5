"""A virtio device of your own, tested against every driver: honest, odd and hostile, split and packed rings.

.venv/bin/python -m pytest examples/own_device.py
"""

from virtio_queue import VirtQueue
from virtio_queue.testing.stateful import device_machine
from vmm_memory import GuestMemory


class Mirror:
    """Answers each request with its bytes, turned around."""

    def __call__(self, queue: VirtQueue, memory: GuestMemory) -> bool:
        """Work until nothing is available; return whether to interrupt the driver."""
        more = True
        while more:
            queue.disable_notification(memory)
            while (chain := queue.pop(memory)) is not None:  # DriverError: the driver broke a rule
                writer = chain.writer()
                writer.write(chain.reader().read_all()[::-1][: writer.available])
                queue.add_used(memory, chain.head, writer.consumed)
            more = queue.enable_notification(memory)
        return queue.needs_notification(memory)


def answer(request: bytes, room: int) -> bytes:
    """What the device has to write, given the bytes of a request and the room for the answer."""
    return request[::-1][:room]


TestMirror = device_machine(Mirror, answer=answer).TestCase
