"""What the two ring formats of the twin have in common."""

from collections.abc import Collection, Sequence
from typing import Protocol

import attrs
from vmm_memory import GuestMemory

from virtio_queue._chain import Segment
from virtio_queue._counters import QueueCounters
from virtio_queue._errors import DriverError
from virtio_queue._state import HeldChain

MANY = 1 << 16  # num_added counts no further


@attrs.define
class Registers:
    """What the transport sets, why nothing is popped any more, and what was counted."""

    size: int
    desc_table: int = 0
    avail_ring: int = 0
    used_ring: int = 0
    ready: bool = False
    event_idx: bool = False
    indirect: bool = False
    compatible: bool = False
    in_order: bool = False
    broken: DriverError | None = None
    counters: QueueCounters = attrs.field(factory=QueueCounters)

    def count(self, **more: int) -> None:
        """Add to the counters."""
        self.counters += QueueCounters(**more)

    def breaks(self, error: DriverError) -> DriverError:
        """Keep the error: each later pop raises it again."""
        self.broken = error
        return error


@attrs.frozen
class Taken:
    """A chain that was popped; with an error, `segments` are those accepted before it."""

    head: int
    segments: tuple[Segment, ...]
    error: DriverError | None


class Ring(Protocol):
    """One format; its registers were checked before each call."""

    next_avail: int
    next_used: int
    num_added: int
    popped: int

    @property
    def in_flight(self) -> int:
        """Chains taken and neither completed nor given back."""

    @property
    def held(self) -> tuple[HeldChain, ...]:
        """They, in the order in which they were taken."""

    def take(self, mem: GuestMemory, room: int) -> Taken | None:
        """The next chain if it has at most `room` segments; None when there is none."""

    def give_back(self, count: int) -> bool:
        """Undo the last takes; False, and nothing is changed, when one of them is complete."""

    def refusal(self, heads: Sequence[int]) -> str | None:
        """Why these chains cannot be completed together, None when they can."""

    def complete(
        self, mem: GuestMemory, used: Sequence[tuple[int, int]], silent: Collection[int] = ()
    ) -> None:
        """Publish (head, written) for each chain; those at `silent` have no used element of their own."""

    def decide(self, mem: GuestMemory) -> bool:
        """Whether to interrupt the driver."""

    def ask(self, mem: GuestMemory) -> bool:
        """Ask for kicks; True when there is a further chain already."""

    def hush(self, mem: GuestMemory) -> None:
        """Ask for no kicks."""
