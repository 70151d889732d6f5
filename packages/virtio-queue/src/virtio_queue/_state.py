"""The saved state of a queue."""

from collections.abc import Callable, Iterable, Mapping

import attrs

from virtio_queue._errors import InvalidStateError, Reason
from virtio_queue._layout import MAX_QUEUE_SIZE, U16, U32, U64, is_packed_size

_VERSION = 2
_BREAKING = (Reason.AVAILABLE_INDEX, Reason.HEAD, Reason.BUFFER_ID, Reason.ENDLESS)
_Validator = Callable[[object, "attrs.Attribute[int]", int], None]


def _uint(limit: int) -> _Validator:
    def check(_state: object, attribute: "attrs.Attribute[int]", value: int) -> None:
        if type(value) is not int or not 0 <= value <= limit:
            raise InvalidStateError(attribute.name, value, f"an integer from 0 to {limit:#x}")

    return check


def _flag(_state: object, attribute: "attrs.Attribute[bool]", value: bool) -> None:
    if type(value) is not bool:
        raise InvalidStateError(attribute.name, value, "True or False")


@attrs.frozen
class HeldChain:
    """A chain of a packed ring that was popped and not completed.

    Attributes:
        head: Its buffer id, 16 bits.
        descriptors: How many descriptors of the ring it takes up, 1 to 32768.
        order: Running 32-bit number of its pop.
    """

    head: int
    descriptors: int
    order: int


def _held_chains(value: Iterable[HeldChain | Mapping[str, int]]) -> tuple[HeldChain, ...]:
    try:
        return tuple(chain if isinstance(chain, HeldChain) else HeldChain(**chain) for chain in value)
    except TypeError as error:
        raise InvalidStateError("held", value, "chains with head, descriptors and order") from error


@attrs.frozen(kw_only=True)
class QueueState:
    """Everything a queue knows, as plain values; untrusted until it exists, because its fields are checked.

    Registers that the guest writes (`size`, the addresses) may hold anything their width allows, as in the
    live queue, where each operation checks them: a guest must not be able to spoil its own snapshot.

    Attributes:
        max_size: What the device offers, 1 to 32768.
        size: Entries the driver chose.
        ready: Whether the driver has enabled the queue.
        desc_table: Guest address of the descriptor table.
        avail_ring: Guest address of the available ring.
        used_ring: Guest address of the used ring.
        event_idx: VIRTIO_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
        compatible: Chains of a split ring that break a rule end there (`Queue.compatible`).
        packed: VIRTIO_F_RING_PACKED was negotiated.
        in_order: VIRTIO_F_IN_ORDER was negotiated.
        next_avail: Where the next chain is popped: a free-running 16-bit index (split), or a 15-bit index
            with the wrap counter as bit 15 (packed).
        next_used: Where the next used element goes, in the same form; split: at most `max_size` behind
            `next_avail`.
        num_added: Used elements (packed: descriptors) since the last notification decision, 65536 standing
            for that many or more. Without it a restored device would miss or repeat an interrupt.
        popped: Running 32-bit number of the next pop (packed; 0 for a split ring).
        held: Chains in flight in the order of their pops (packed; empty for a split ring), with different
            heads, together at most `max_size` descriptors; also made of dictionaries, as `attrs.asdict` does.
        broken: Why nothing is popped any more, None for a sound queue.
        version: Layout of this class, 2.

    Raises:
        InvalidStateError: A field is out of range; no object is made.
    """

    max_size: int = attrs.field()
    size: int = attrs.field(validator=_uint(U16))
    ready: bool = attrs.field(default=False, validator=_flag)
    desc_table: int = attrs.field(default=0, validator=_uint(U64))
    avail_ring: int = attrs.field(default=0, validator=_uint(U64))
    used_ring: int = attrs.field(default=0, validator=_uint(U64))
    event_idx: bool = attrs.field(default=False, validator=_flag)
    indirect: bool = attrs.field(default=False, validator=_flag)
    compatible: bool = attrs.field(default=False, validator=_flag)
    packed: bool = attrs.field(default=False, validator=_flag)
    in_order: bool = attrs.field(default=False, validator=_flag)
    next_avail: int = attrs.field(default=0, validator=_uint(U16))
    next_used: int = attrs.field(default=0, validator=_uint(U16))
    num_added: int = attrs.field(default=0, validator=_uint(1 << 16))
    popped: int = attrs.field(default=0, validator=_uint(U32))
    held: tuple[HeldChain, ...] = attrs.field(default=(), converter=_held_chains)
    broken: Reason | None = attrs.field(default=None)
    version: int = attrs.field(default=_VERSION)

    @max_size.validator
    def _check_max_size(self, _attribute: "attrs.Attribute[int]", value: int) -> None:
        if type(value) is not int or not is_packed_size(value):
            raise InvalidStateError("max_size", value, f"an integer from 1 to {MAX_QUEUE_SIZE}")

    @broken.validator
    def _check_broken(self, _attribute: "attrs.Attribute[Reason | None]", value: Reason | None) -> None:
        if value is not None and value not in _BREAKING:
            names = ", ".join(reason.name for reason in _BREAKING)
            raise InvalidStateError("broken", value, f"None or one of {names}")

    @version.validator
    def _check_version(self, _attribute: "attrs.Attribute[int]", value: int) -> None:
        if value != _VERSION:
            raise InvalidStateError("version", value, f"{_VERSION}; a newer virtio-queue may read it")

    @held.validator
    def _check_held(
        self, _attribute: "attrs.Attribute[tuple[HeldChain, ...]]", value: tuple[HeldChain, ...]
    ) -> None:
        for chain in value:
            limits = zip(attrs.astuple(chain), (0, 1, 0), (U16, self.max_size, U32), strict=True)
            if any(type(number) is not int or not low <= number <= high for number, low, high in limits):
                rule = f"integers: head to {U16:#x}, descriptors from 1 to {self.max_size}, order to {U32:#x}"
                raise InvalidStateError("held", chain, rule)
        if self.packed and len({chain.head for chain in value}) < len(value):
            raise InvalidStateError("held", value, "chains with different heads")

    def __attrs_post_init__(self) -> None:
        if self.packed:
            self._check_order()
            return
        in_flight = (self.next_avail - self.next_used) & U16
        places = [(chain.descriptors, chain.order) for chain in self.held]
        known = in_flight if self.in_order else 0
        if self.popped or places != [(1, (self.next_used + offset) & U16) for offset in range(known)]:
            rule = f"{known} chains of 1 descriptor, from next_used on, and popped 0, for a split ring"
            raise InvalidStateError("held", self.held, rule)
        if in_flight > self.max_size:
            rule = f"at most max_size ({self.max_size}) after next_used, not {in_flight}"
            raise InvalidStateError("next_avail", self.next_avail, rule)

    def _check_order(self) -> None:
        total = sum(chain.descriptors for chain in self.held)
        if total > self.max_size:
            rule = f"chains of at most max_size ({self.max_size}) descriptors together, not {total}"
            raise InvalidStateError("held", self.held, rule)
        ages = [(self.popped - chain.order) & U32 for chain in self.held]  # 0 would be the next pop
        if 0 in ages or ages != sorted(set(ages), reverse=True):
            raise InvalidStateError(
                "held", self.held, f"in the order of their pops, all before {self.popped}"
            )
