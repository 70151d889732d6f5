"""The saved state of a queue."""

from collections.abc import Callable

import attrs

from virtio_queue._errors import InvalidStateError, Reason
from virtio_queue._layout import MAX_QUEUE_SIZE, U16, U64, is_queue_size

_VERSION = 1
_Validator = Callable[[object, "attrs.Attribute[int]", int], None]


def _uint(limit: int) -> _Validator:
    def check(_state: object, attribute: "attrs.Attribute[int]", value: int) -> None:
        if type(value) is not int or not 0 <= value <= limit:
            raise InvalidStateError(attribute.name, value, f"an integer from 0 to {limit:#x}")

    return check


def _flag(_state: object, attribute: "attrs.Attribute[bool]", value: bool) -> None:
    if type(value) is not bool:
        raise InvalidStateError(attribute.name, value, "True or False")


@attrs.frozen(kw_only=True)
class QueueState:
    """Everything a queue knows, as plain values; untrusted until it exists, because its fields are checked.

    Registers that the guest writes (`size`, the addresses) may hold anything their width allows, as in the
    live queue, where each operation checks them: a guest must not be able to spoil its own snapshot.

    Attributes:
        max_size: What the device offers, a power of two from 1 to 32768.
        size: Entries the driver chose.
        ready: Whether the driver has enabled the queue.
        desc_table: Guest address of the descriptor table.
        avail_ring: Guest address of the available ring.
        used_ring: Guest address of the used ring.
        event_idx: VIRTIO_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_F_INDIRECT_DESC was negotiated.
        next_avail: Free-running 16-bit index of the next chain to pop.
        next_used: Free-running 16-bit index of the next used element; at most `max_size` behind `next_avail`.
        num_added: Used elements since the last notification decision, 65536 standing for that many or more.
            Without it a restored device would miss or repeat an interrupt.
        broken: Why nothing is popped any more, None for a sound queue.
        version: Layout of this class, 1.

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
    next_avail: int = attrs.field(default=0, validator=_uint(U16))
    next_used: int = attrs.field(default=0, validator=_uint(U16))
    num_added: int = attrs.field(default=0, validator=_uint(1 << 16))
    broken: Reason | None = attrs.field(default=None)
    version: int = attrs.field(default=_VERSION)

    @max_size.validator
    def _check_max_size(self, _attribute: "attrs.Attribute[int]", value: int) -> None:
        if type(value) is not int or not is_queue_size(value):
            raise InvalidStateError("max_size", value, f"a power of two from 1 to {MAX_QUEUE_SIZE}")

    @broken.validator
    def _check_broken(self, _attribute: "attrs.Attribute[Reason | None]", value: Reason | None) -> None:
        if value not in (None, Reason.AVAILABLE_INDEX, Reason.HEAD):
            raise InvalidStateError("broken", value, "None, AVAILABLE_INDEX or HEAD")

    @version.validator
    def _check_version(self, _attribute: "attrs.Attribute[int]", value: int) -> None:
        if value != _VERSION:
            raise InvalidStateError("version", value, f"{_VERSION}; a newer virtio-queue may read it")

    def __attrs_post_init__(self) -> None:
        in_flight = (self.next_avail - self.next_used) & U16
        if in_flight > self.max_size:
            rule = f"at most max_size ({self.max_size}) after next_used, not {in_flight}"
            raise InvalidStateError("next_avail", self.next_avail, rule)
