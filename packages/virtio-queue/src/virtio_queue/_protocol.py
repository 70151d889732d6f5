"""What devices and transports need of a virtqueue, whatever its ring format and implementation."""

from typing import Protocol

from vmm_memory import GuestMemory

from virtio_queue._batch import ChainBatch
from virtio_queue._chain import DescriptorChain
from virtio_queue._counters import QueueCounters
from virtio_queue._state import QueueState


class VirtQueue(Protocol):
    """The device side of a virtqueue. `Queue` and `virtio_queue.testing.TwinQueue` are implementations.

    The transport sets the registers from what the guest writes, each as wide as the register and otherwise
    unchecked: `is_valid` and every operation check them together. One thread at a time.
    Methods document their guarantees at `Queue`.

    Attributes:
        size: Entries, 0 … 2^16 - 1.
        ready: Whether the driver has enabled it.
        desc_table, avail_ring, used_ring: Guest addresses, 64 bits each; of a packed ring those of the
            descriptor ring and of the driver's and the device's event suppression.
        event_idx, indirect, packed, in_order: Which features were negotiated.
    """

    size: int
    ready: bool
    desc_table: int
    avail_ring: int
    used_ring: int
    event_idx: bool
    indirect: bool
    packed: bool
    in_order: bool

    @property
    def max_size(self) -> int:
        """Most entries a driver may choose."""

    @property
    def next_avail(self) -> int:
        """Where the next chain is popped."""

    @property
    def next_used(self) -> int:
        """Where the next used element goes."""

    @property
    def in_flight(self) -> int:
        """Chains popped and not completed."""

    @property
    def counters(self) -> QueueCounters:
        """What the queue did since it was made or reset."""

    def is_valid(self, mem: GuestMemory) -> bool:
        """Whether the queue can be used."""

    def check(self, mem: GuestMemory) -> None:
        """Raise what is wrong with the registers."""

    def pop(self, mem: GuestMemory) -> DescriptorChain | None:
        """The next chain, None when there is none."""

    def pop_batch(self, mem: GuestMemory, batch: ChainBatch) -> int:
        """Fill the batch; returns how many chains."""

    def undo_pop(self, count: int = 1) -> None:
        """Give the last chains back."""

    def add_used(self, mem: GuestMemory, head: int, written: int) -> None:
        """Complete one chain."""

    def complete_batch(self, mem: GuestMemory, batch: ChainBatch) -> bool:
        """Complete all chains of the batch; returns whether to interrupt."""

    def needs_notification(self, mem: GuestMemory) -> bool:
        """Whether to interrupt the driver now."""

    def enable_notification(self, mem: GuestMemory) -> bool:
        """Ask for kicks; True when more chains came meanwhile."""

    def disable_notification(self, mem: GuestMemory) -> None:
        """Ask for no kicks."""

    def reset(self) -> None:
        """Back to the state after construction."""

    def state(self) -> QueueState:
        """Everything the queue knows."""
