"""Scripts: what a driver stores into guest memory, and what the device does in between.

A script is plain data. Its repr is Python that makes it again, which is how a failure is printed.
"""

import struct
from typing import NamedTuple

import attrs

# Guest memory: two adjacent regions of a page, a hole of a page, a third region.
PAGE = 0x1000
BASE = 0x10000
REGIONS = ((BASE, PAGE), (BASE + PAGE, PAGE), (BASE + 3 * PAGE, PAGE))
HOLE = BASE + 2 * PAGE
END = BASE + 4 * PAGE
BLANK = bytes((7 * i ^ i >> 5) & 0xFF for i in range(END - BASE))  # what is in memory before the script

MAX_SIZE = 16
READY = 4


class Store(NamedTuple):
    """The driver stores bytes; they lie in memory."""

    addr: int
    data: bytes


class Pop(NamedTuple):
    """The device takes a batch of up to `most` chains."""

    most: int


class PopOne(NamedTuple):
    """The device takes one chain as an object."""


class Complete(NamedTuple):
    """The device gives one chain back, the one at `which` of those that it has in the order of their pops."""

    which: int
    written: int


class CompleteBatch(NamedTuple):
    """The device gives several back, each as in `Complete`, and decides about the interrupt once."""

    chains: tuple[tuple[int, int], ...]


class Decide(NamedTuple):
    """The device decides whether to interrupt."""


class Enable(NamedTuple):
    """The device asks for kicks."""


class Disable(NamedTuple):
    """The device asks for no kicks."""


class Undo(NamedTuple):
    """The device gives the chains that it took last back to the ring."""

    count: int


class Gather(NamedTuple):
    """The device reads all readable bytes of a chain that it has."""

    which: int


class Scatter(NamedTuple):
    """The device fills the writable bytes of a chain with a pattern that begins with `seed`."""

    which: int
    seed: int


class Restore(NamedTuple):
    """The queue's state is saved, and another queue goes on from it."""


class Registers(NamedTuple):
    """The driver writes these registers, the device looks at them, and those from before come back."""

    size: int
    desc_table: int
    avail_ring: int
    used_ring: int
    ready: bool = True


class Reset(NamedTuple):
    """The queue is reset, and is what it was when the script began; nobody has a chain."""


Step = (
    Store
    | Pop
    | PopOne
    | Complete
    | CompleteBatch
    | Decide
    | Enable
    | Disable
    | Undo
    | Gather
    | Scatter
    | Restore
    | Registers
    | Reset
)


@attrs.frozen
class Script:
    """A queue and what happens to it.

    Attributes:
        size: Entries, as the driver wrote them into the register.
        desc_table, avail_ring, used_ring: Guest addresses, likewise.
        start: How many entries (packed: descriptors) both sides are behind already.
        steps: In order.
        event_idx, indirect: Negotiated.
        ready: The driver enabled the queue.
        packed: The format of the ring; the crate has split ones only.
        compatible: Our queues walk chains as the crate does.
    """

    size: int
    desc_table: int
    avail_ring: int
    used_ring: int
    start: int
    steps: tuple[Step, ...]
    event_idx: bool = False
    indirect: bool = False
    ready: bool = True
    packed: bool = False
    compatible: bool = False


_HEAD = struct.Struct("<HBHQQQ")
_STORE = struct.Struct("<BQH")
_POP = struct.Struct("<BH")
_CHAIN = struct.Struct("<BI")
_SIMPLE = {
    Decide: b"\x05",
    Enable: b"\x06",
    Disable: b"\x07",
    PopOne: b"\x02",
    Restore: b"\x0b",
    Reset: b"\x0d",
}


def encode(script: Script, steps: tuple[Step, ...]) -> bytes:
    """The script with `steps` in place of its own, as queue/src/main.rs reads it."""
    flags = script.event_idx | READY * script.ready
    rings = (script.desc_table, script.avail_ring, script.used_ring)
    return _HEAD.pack(script.size, flags, script.start, *rings) + b"".join(map(_encode, steps))


def _encode(step: Step) -> bytes:
    match step:
        case Store(addr, data):
            return _STORE.pack(0, addr, len(data)) + data
        case Pop(most):
            return _POP.pack(1, most)
        case Complete(which, written):
            return b"\x03" + _CHAIN.pack(which, written)
        case CompleteBatch(chains):
            return bytes((4, len(chains))) + b"".join(_CHAIN.pack(*chain) for chain in chains)
        case Undo(count):
            return bytes((8, count))
        case Gather(which):
            return bytes((9, which))
        case Scatter(which, seed):
            return bytes((10, which, seed))
        case Registers(size, desc, avail, used, ready):
            return b"\x0c" + _HEAD.pack(size, READY * ready, 0, desc, avail, used)
    return _SIMPLE[type(step)]
