"""Hypothesis strategies for rings, chains and hostile drivers."""

import attrs
from hypothesis import strategies as st
from vmm_memory import GuestMemory

from virtio_queue._chain import Segment
from virtio_queue._layout import DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DESCRIPTOR, U16, U64
from virtio_queue.testing._rings import RawRings, RingLayout

__all__ = (
    "HostileRing",
    "Mutation",
    "hostile_rings",
    "indices",
    "mutations",
    "queue_sizes",
    "ring_layouts",
    "segment_lists",
)

RawDescriptor = tuple[int, int, int, int]


def queue_sizes(largest: int = 32768) -> st.SearchStrategy[int]:
    """Legal sizes, 1 to `largest`; small ones come first when shrinking."""
    return st.integers(0, largest.bit_length() - 1).map(lambda power: 1 << power)


def indices() -> st.SearchStrategy[int]:
    """Free-running 16-bit indices, often close to where they wrap."""
    return st.one_of(st.integers(0, U16), st.integers(U16 - 8, U16), st.integers(0x7FF8, 0x8008))


@st.composite
def ring_layouts(draw: st.DrawFn, base: int, largest: int = 32768) -> RingLayout:
    """Layouts from `base` on, with gaps between the parts."""
    size = draw(queue_sizes(largest))
    tight = RingLayout.at(base, size)
    gaps = draw(st.tuples(st.integers(0, 8), st.integers(0, 64), st.integers(0, 64)))
    desc = tight.desc_table + 16 * gaps[0]
    avail = desc + 16 * size + 2 * gaps[1]
    used = -(-(avail + 6 + 2 * size) // 4) * 4 + 4 * gaps[2]
    return RingLayout(size, desc, avail, used)


@st.composite
def segment_lists(draw: st.DrawFn, area: tuple[int, int], most: int) -> list[Segment]:
    """1 to `most` legal buffers inside (address, bytes), readable before writable; some of no length."""
    base, room = area
    count = draw(st.integers(1, most))
    readable = draw(st.integers(0, count))
    segments = []
    for position in range(count):
        start = draw(st.integers(0, room))
        segments.append(Segment(base + start, draw(st.integers(0, room - start)), position >= readable))
    return segments


@attrs.frozen
class HostileRing:
    """Everything a driver can put into memory for one queue, right or wrong.

    Attributes:
        descriptors: The first entries of the descriptor table.
        tables: Further descriptors, laid out at the address given to `install`; indirect tables point there.
        heads: The available ring from position `start` on.
        start: Free-running index from which the device is to pop.
        avail_idx: Announced index.
        avail_flags: First word of the available ring.
        used_event: Last word of the available ring.
    """

    descriptors: tuple[RawDescriptor, ...]
    tables: tuple[RawDescriptor, ...]
    heads: tuple[int, ...]
    start: int
    avail_idx: int
    avail_flags: int
    used_event: int

    def install(self, memory: GuestMemory, layout: RingLayout, tables: int) -> None:
        """Write it.

        Args:
            memory: Guest memory; rings and tables must lie in it.
            layout: Where the rings lie; entries beyond its size are left out.
            tables: Where the further descriptors go.
        """
        raw = RawRings(memory, layout)
        for index, descriptor in enumerate(self.descriptors[: layout.size]):
            raw.write_descriptor(index, *descriptor)
        memory.write(tables, b"".join(DESCRIPTOR.pack(*row) for row in self.tables))
        for offset, head in enumerate(self.heads[: layout.size]):
            raw.write_available(self.start + offset, head)
        raw.set_used_event(self.used_event)
        raw.set_avail_flags(self.avail_flags)
        raw.set_avail_idx(self.avail_idx)


@attrs.frozen
class _Decoder:
    """Makes descriptors out of six bytes each, legal more often than not; zeros are one empty buffer.

    Bytes, not strategies per field: a ring has dozens of fields, and Hypothesis pays for each draw.
    """

    area: tuple[int, int]
    table: int
    entries: int

    def decode(self, raw: bytes) -> tuple[RawDescriptor, ...]:
        """Make descriptors of raw bytes, six bytes each."""
        return tuple(self._descriptor(raw[start : start + 6]) for start in range(0, len(raw), 6))

    def _descriptor(self, raw: bytes) -> RawDescriptor:
        kind, bits, low, high, size, link = raw
        following = link % self.entries if link < 248 else link << 8
        flags = (DESC_NEXT if bits & 3 else 0) | (DESC_WRITE if bits & 0xC == 0xC else 0)
        base, room = self.area
        addr = base + (low | high << 8) % room
        match kind % 16:
            case 12:
                edges = (base + room, base + room - 1, max(base - 1, 0), 0, U64, U64 - 15, 1 << 63)
                return edges[low % len(edges)], size, flags, following
            case 13:
                return addr, (0x8000_0000, 0xFFFF_FFFF, room, 4096)[size % 4], flags, following
            case 11 | 14:
                return *self._indirect(bits, low, size), following
            case 15:
                return addr, size, bits << 8 | high, following
        return addr, min(size % 64, base + room - addr), flags, following

    def _indirect(self, bits: int, low: int, size: int) -> tuple[int, int, int]:
        first = low % self.entries
        length = 16 * (1 + size % (self.entries - first)) if size < 224 else size - 224
        addr = self.table + 16 * first if low < 208 else self.area[0] + self.area[1] - 8
        combined = DESC_NEXT if bits >= 240 else 0
        return addr, length, DESC_INDIRECT | combined | (DESC_WRITE if bits & 1 else 0)


@st.composite
def hostile_rings(draw: st.DrawFn, area: tuple[int, int], table: int, entries: int = 8) -> HostileRing:
    """Rings of a driver that may break every rule, mostly a little.

    Args:
        draw: Given by Hypothesis.
        area: (address, bytes) of guest memory that buffers may hit.
        table: Address that will be given to `install`.
        entries: Descriptors in the table and behind `table`, 1 to the queue size.
    """
    raw = draw(st.binary(min_size=12 * entries, max_size=12 * entries))
    rows = _Decoder(area, table, entries).decode(raw)
    last = st.sampled_from((entries - 1,) * 7 + (entries,))
    start = draw(indices())
    heads = draw(st.lists(last.flatmap(lambda most: st.integers(0, most)), min_size=1, max_size=entries))
    ahead = draw(st.sampled_from((len(heads),) * 6 + (0, 1, entries + 1, 65535)))
    return HostileRing(
        descriptors=rows[:entries],
        tables=rows[entries:],
        heads=tuple(heads),
        start=start,
        avail_idx=(start + ahead) & U16,
        avail_flags=draw(st.sampled_from((0, 1, 2, U16))),
        used_event=(start + draw(st.integers(-3, 10))) & U16,
    )


@attrs.frozen
class Mutation:
    """One 16-bit store by a driver that misbehaves.

    Attributes:
        offset: Even distance from the descriptor table.
        value: What is stored.
    """

    offset: int
    value: int

    def apply(self, memory: GuestMemory, layout: RingLayout) -> None:
        """Do it, if it hits the rings."""
        if layout.desc_table + self.offset + 2 <= layout.end:
            memory.store(layout.desc_table + self.offset, 2, self.value)


def mutations(room: int) -> st.SearchStrategy[Mutation]:
    """Stores to the first `room` bytes from the descriptor table on."""
    values = st.one_of(st.integers(0, 8), st.integers(0, U16))
    return st.builds(Mutation, st.integers(0, room // 2 - 1).map(lambda half: 2 * half), values)
