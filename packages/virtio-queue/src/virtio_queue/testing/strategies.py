"""Hypothesis strategies for guest memories, rings, chains and drivers, honest and hostile."""

import itertools
import os
from collections.abc import Sequence

import attrs
from vmm_memory import FileOffset, GuestMemory, GuestMemoryMmap, GuestRegionMmap

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "virtio_queue.testing.strategies needs Hypothesis: pip install 'virtio-queue[testing]'",
        name=error.name,
    ) from error

from virtio_queue._chain import Segment
from virtio_queue._layout import DESC_INDIRECT, DESC_NEXT, DESC_WRITE, DESCRIPTOR, U16, U64, ring_parts
from virtio_queue.testing._attacks import Attack, Attacks
from virtio_queue.testing._hostile import HostileChain, RawDescriptor
from virtio_queue.testing._rings import RawRings, RingLayout
from virtio_queue.testing._trial_memory import DATA, DATA_ROOM, EDGES, HUGE, TABLE

__all__ = (
    "Attack",
    "HostileRing",
    "Mutation",
    "Request",
    "descriptor_chains",
    "guest_memories",
    "hostile_chains",
    "hostile_layouts",
    "hostile_rings",
    "indices",
    "mutations",
    "queue_sizes",
    "requests",
    "ring_layouts",
)


def queue_sizes(largest: int = 32768, *, packed: bool = False) -> st.SearchStrategy[int]:
    """Legal sizes, 1 to `largest`: powers of two, any for packed rings; small ones first when shrinking."""
    powers = st.integers(0, largest.bit_length() - 1).map(lambda power: 1 << power)
    return st.one_of(powers, st.integers(1, largest)) if packed else powers


def indices() -> st.SearchStrategy[int]:
    """Free-running 16-bit indices, often close to where they wrap."""
    return st.one_of(st.integers(0, U16), st.integers(U16 - 8, U16), st.integers(0x7FF8, 0x8008))


@st.composite
def ring_layouts(draw: st.DrawFn, base: int, largest: int = 32768, *, packed: bool = False) -> RingLayout:
    """Layouts from `base` on, with gaps between the parts.

    Args:
        draw: Given by Hypothesis.
        base: First guest address that may be used.
        largest: Most entries, 1 to 32768.
        packed: Format; a packed ring has any size, a split one a power of two.
    """
    size = draw(queue_sizes(largest, packed=packed))
    gaps = draw(st.tuples(st.integers(0, 8), st.integers(0, 64), st.integers(0, 64)))
    places, end = [], base
    for (length, alignment, _), gap in zip(ring_parts(size, packed=packed), gaps, strict=True):
        places.append((-(-end // alignment) + gap) * alignment)
        end = places[-1] + length
    desc, avail, used = places
    return RingLayout(size, desc, avail, used, packed)


def descriptor_chains(
    area: tuple[int, int] = (DATA, DATA_ROOM), most: int = 5
) -> st.SearchStrategy[tuple[Segment, ...]]:
    """Legal chains: 1 to `most` buffers inside (address, bytes), readable before writable, some empty."""
    base, room = area

    def chain(places: list[tuple[int, int]], readable: int) -> tuple[Segment, ...]:
        return tuple(
            Segment(base + start, min(length, room - start), position >= readable)
            for position, (start, length) in enumerate(places)
        )

    place = st.tuples(st.integers(0, room), st.one_of(st.integers(0, 64), st.integers(0, room)))
    return st.builds(chain, st.lists(place, min_size=1, max_size=most), st.integers(0, most))


@st.composite
def guest_memories(draw: st.DrawFn, room: int = 0x8000) -> GuestMemoryMmap:
    """Mapped guest memory: one to four regions, some adjacent, some read-only, sometimes up to exactly 2^64.

    Args:
        draw: Given by Hypothesis.
        room: The first region is writable and has at least so many bytes, for rings and buffers.

    Returns:
        Memory with dirty tracking in every writable region.
    """
    first = -(-room // 0x1000) * 0x1000 + 0x1000 * draw(st.integers(0, 2))
    others = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()), max_size=3))
    sizes = [(0, first, False), *((gap * 0x1000, pages * 0x1000, ro) for gap, pages, ro in others)]
    span = sum(gap + size for gap, size, _ in sizes)
    at = draw(st.sampled_from((0, 0x1000, 0xBFFF_F000, (1 << 32) - 0x1000, (1 << 64) - span)))
    regions = []
    for gap, size, read_only in sizes:
        at += gap
        regions.append(_region(at, size, read_only=read_only))
        at += size
    return GuestMemoryMmap(regions)


def _region(base: int, size: int, *, read_only: bool) -> GuestRegionMmap:
    if not read_only:
        return GuestRegionMmap.anonymous(base, size, dirty=True)
    fd = os.memfd_create("guest_memories", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        return GuestRegionMmap.from_file(base, size, FileOffset(fd), read_only=True)
    finally:
        os.close(fd)


def hostile_chains(
    *attacks: Attack,
    area: tuple[int, int] = (DATA, DATA_ROOM),
    table: int = TABLE,
    edges: Sequence[int] = EDGES,
    huge: int = HUGE,
) -> st.SearchStrategy[HostileChain]:
    """Chains that break a rule, or nearly do; the defaults are for `trial_memory`.

    Args:
        attacks: Which rules; all when there are none.
        area: (address, bytes) for harmless buffers.
        table: Where `HostileChain.table` will be written.
        edges: Addresses where memory begins, ends or changes.
        huge: Address of a mapped range of 2^32 - 1 bytes, for sums of lengths.
    """
    maker = Attacks(area, table, edges, huge)
    return st.one_of([maker.of(attack) for attack in attacks or Attack])


_PARTS = ("desc_table", "avail_ring", "used_ring")


def hostile_layouts(
    base: int = 0x4000, room: int = 0x8000, largest: int = 64
) -> st.SearchStrategy[RingLayout]:
    """Ring registers as hostile drivers write them: any size, overlapping, misaligned, outside memory.

    Args:
        base: First address of guest memory.
        room: Its bytes.
        largest: Sizes above it are rare.
    """
    power = st.integers(0, largest.bit_length() - 1).map(lambda power: 1 << power)
    size = st.one_of(power, st.integers(0, largest + 1), st.integers(0, U16))
    place = st.one_of(
        st.integers(base // 16, (base + room) // 16).map(lambda line: 16 * line),
        st.integers(max(base - 64, 0), base + room + 64),
        st.integers(U64 - 0x2000, U64),
    )
    # All of it anywhere; or only one word of what would be sound, which says whether that one is looked at.
    anywhere = st.builds(RingLayout, size, place, place, place)
    wrong = st.one_of(st.tuples(st.just("size"), size), st.tuples(st.sampled_from(_PARTS), place))
    nearly = st.builds(
        lambda size, word: attrs.evolve(RingLayout.at(base, size), **dict([word])), power, wrong
    )
    return st.one_of(anywhere, nearly)


Request = tuple[tuple[bytes, ...], tuple[int, ...]]
"""What `requests` draws: the content of the buffers to read, the lengths of those to write."""


def requests(contents: st.SearchStrategy[bytes] | None = None, most: int = 64) -> st.SearchStrategy[Request]:
    """What a driver asks of a device, as (contents to read, lengths to write).

    The content is cut into buffers anywhere, as drivers may (VIRTIO 1.2, 2.7.4).

    Args:
        contents: All bytes of one request, such as a header and its data; None for any, up to `most`.
        most: Bytes in each writable buffer, at most.
    """

    def cut(content: bytes, cuts: list[int]) -> tuple[bytes, ...]:
        places = sorted({0, len(content), *(place % (len(content) + 1) for place in cuts)})
        return tuple(content[start:end] for start, end in itertools.pairwise(places))

    readable = st.builds(
        cut,
        st.binary(max_size=most) if contents is None else contents,
        st.lists(st.integers(0, most), max_size=2),
    )
    writable = st.lists(st.integers(0, most), max_size=2).map(tuple)
    return st.tuples(readable, writable)


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
