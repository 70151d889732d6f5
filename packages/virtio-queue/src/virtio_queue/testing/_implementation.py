"""What a trial needs of an implementation, and what it makes use of where it is there."""

from typing import Protocol, runtime_checkable

from vmm_memory import GuestMemory

from virtio_queue._place import RingPlace
from virtio_queue._protocol import VirtQueue
from virtio_queue._state import QueueState


class QueueClass(Protocol):
    """A class of queues, such as `virtio_queue.Queue`."""

    def __call__(self, max_size: int, /) -> VirtQueue:
        """A fresh queue."""

    def from_state(self, state: QueueState, mem: GuestMemory | None = None) -> VirtQueue:
        """A restored queue."""


@runtime_checkable
class ResettableRing(Protocol):
    """What a queue for VIRTIO_F_RING_RESET has besides `VirtQueue`; a trial asks no other queue for it."""

    def reset_ring(self) -> None:
        """Back to a fresh ring with the same features: see `virtio_queue.Queue.reset_ring`."""


@runtime_checkable
class MovableRing(Protocol):
    """What a queue has besides `VirtQueue` whose ring can go to another backend; likewise."""

    def detach(self) -> RingPlace:
        """Hand the ring out: see `virtio_queue.Queue.detach`."""

    def attach(self, place: RingPlace, mem: GuestMemory | None = None, /) -> None:
        """Go on with a ring: see `virtio_queue.Queue.attach`."""
