"""P1 and P2: batches of 64 chains popped and completed, seen from Python, beside Rust and a C floor."""

import mmap
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs
import yardsticks
from harness import Options, Row, Served, compare, interleave
from virtio_queue import ChainBatch, Queue
from virtio_queue.testing import BatchWorkload
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

CHAINS: Final = 64
MEMORY: Final = 1 << 20
_BASE: Final = 0x1000
_ROUNDS: Final = 500

FLOOR, BEST, NEWEST = (
    "C floor",
    "vm-memory 0.16.2 + virtio-queue 0.16.0",
    "vm-memory 0.18 + virtio-queue 0.18",
)


@attrs.frozen
class Work:
    """A ring of equal chains.

    Args:
        id: of the figure.
        what: in words.
        goals: for the ratio to each yardstick that has one.
        table: best Rust / C floor in the table of reference figures; None where it has no such row.
        descriptors: buffers of a chain.
        size: entries of the queue.
        indirect: chains are indirect tables.
        event_idx: the event index is negotiated, and decides once a batch.
        regions: the memory is cut into so many, side by side.
        dirty: pages are tracked.
        way: `gather` or `scatter` bytes of each chain; neither when empty.
        bytes: that many, in half of the buffers of a chain.
        packed: the format; its yardstick is our split ring.
    """

    id: str
    what: str
    goals: Mapping[str, float] = {}
    table: float | None = None
    descriptors: int = 2
    size: int = 256
    indirect: bool = False
    event_idx: bool = False
    regions: int = 1
    dirty: bool = True
    way: str = ""
    bytes: int = 0
    packed: bool = False

    @property
    def buffer(self) -> int:
        """Bytes of each buffer; in several regions they are spread over them, otherwise they lie close."""
        if self.bytes:
            return self.bytes // (self.descriptors // 2)
        return 64 if self.regions == 1 else 4096


_P2: Final = {BEST: 0.7}
WORKS: Final = (
    Work(
        "P1", "64 chains of 2, 1 region, dirty bitmap, event index", {BEST: 0.7, FLOOR: 2.5}, event_idx=True
    ),
    Work("P1", "64 chains of 2, 1 region, no bitmap", table=37 / 10.5, dirty=False),
    Work("P2", "64 chains of 8, 1 region, no bitmap", _P2, 119 / 27, descriptors=8, size=512, dirty=False),
    Work(
        "P2", "64 indirect chains of 16, 1 region, no bitmap", _P2, 286 / 64, 16, indirect=True, dirty=False
    ),
    Work("P2", "64 chains of 2, 8 regions, dirty bitmap", _P2, regions=8),
)
_PACKED: Final = (
    WORKS[0],
    Work("P2", "64 chains of 8, 1 region, dirty bitmap", descriptors=8, size=512),
    Work("P2", "64 indirect chains of 16, 1 region, dirty bitmap", descriptors=16, indirect=True),
)
SPLIT: Final = "our split ring"


def anonymous_memory(regions: int, *, dirty: bool) -> GuestMemoryMmap:
    """MEMORY bytes in so many regions side by side, of the kind that everybody else has here."""
    part = MEMORY // regions
    return GuestMemoryMmap(
        GuestRegionMmap.anonymous(index * part, part, dirty=dirty) for index in range(regions)
    )


class Ours:
    """Our queue on a ring, and the ring as a file for everybody else."""

    def __init__(self, work: Work, image: Path) -> None:
        """Build the ring and write it to `image`."""
        self.memory = anonymous_memory(work.regions, dirty=work.dirty)
        self.queue = Queue(work.size)
        self.ring = BatchWorkload(
            self.memory,
            self.queue,
            base=_BASE,
            room=MEMORY - _BASE,
            size=work.size,
            chains=CHAINS,
            descriptors=work.descriptors,
            buffer=work.buffer,
            indirect=work.indirect,
            event_idx=work.event_idx,
            packed=work.packed,
        )
        self.batch = ChainBatch(CHAINS, CHAINS * max(work.descriptors, 8))
        queue = self.queue
        if work.packed:  # the first lists lie in the ring only while they are available
            self.ring.refill()
        image.write_bytes(self.memory.read(0, MEMORY))
        if work.packed:
            queue.pop_batch(self.memory, self.batch)
            queue.complete_batch(self.memory, self.batch)
        places = (queue.size, queue.desc_table, queue.avail_ring, queue.used_ring)
        numbers = (work.regions, int(work.dirty), *places, CHAINS, int(work.event_idx))
        way = (work.way, work.bytes) if work.way else ()
        self.words = [str(image), *map(str, (*numbers, *way))]
        # At the start of a page, as everybody's: how it lies to the guest's pages is a tenth of a copy.
        self.buffer = mmap.mmap(-1, CHAINS * work.bytes or 1)
        self.buffer.write(bytes(len(self.buffer)))
        self.copy = {"gather": self.batch.gather, "scatter": self.batch.scatter}.get(work.way)

    def ns_per_chain(self, rounds: int) -> float:
        """Pop and complete `rounds` batches; the driver's part is not timed."""
        queue, memory, batch, refill, clock = (
            self.queue,
            self.memory,
            self.batch,
            self.ring.refill,
            time.perf_counter_ns,
        )
        copy, buffer, spent = self.copy, self.buffer, 0
        for _ in range(rounds):
            refill()
            start = clock()
            queue.pop_batch(memory, batch)
            if copy is not None:
                copy(memory, buffer)
            queue.complete_batch(memory, batch)
            spent += clock() - start
        if len(batch) != CHAINS:
            raise RuntimeError(f"popped {len(batch)} chains of {CHAINS}")
        return spent / rounds / CHAINS


def run_works(options: Options, works: Sequence[Work]) -> list[Row]:
    """Measure these rings."""
    with tempfile.TemporaryDirectory() as scratch:
        return [row for work in works for row in _measure(work, options, Path(scratch) / "image")]


def run(options: Options) -> list[Row]:
    """Measure all rings, and those of `_PACKED` in both formats side by side."""
    with tempfile.TemporaryDirectory() as scratch:
        packed = [row for work in _PACKED for row in _beside_split(work, options, Path(scratch) / "image")]
    return [*run_works(options, WORKS), *packed]


def _beside_split(work: Work, options: Options, image: Path) -> list[Row]:
    """There is no packed ring in the Rust crates: the goal is to be no slower than the split one."""
    count = options.work(_ROUNDS)
    split = Ours(work, image)
    ours = Ours(attrs.evolve(work, packed=True), image)
    with Served([*yardsticks.floor("packed"), *ours.words]) as served:
        contenders = {
            "ours": lambda: ours.ns_per_chain(count),
            SPLIT: lambda: split.ns_per_chain(count),
            FLOOR: _asker(served, count),
        }
        times = interleave(contenders, options.rounds, progress=f"P2 packed, {work.what}")
    what = f"packed ring, {work.what}, per chain"
    return [
        compare("P2", what, times["ours"], name, times[name], unit="ns", goal=goal)
        for name, goal in ((SPLIT, 1.0), (FLOOR, None))
    ]


def _measure(work: Work, options: Options, image: Path) -> list[Row]:
    ours, count = Ours(work, image), options.work(_ROUNDS)
    commands: dict[str, list[Path | str]] = {FLOOR: [*yardsticks.floor("queue"), *ours.words]}
    for name, version in ((BEST, "best"), (NEWEST, "newest")):
        if (peer := yardsticks.peer(version)) is not None:
            commands[name] = [peer, "queue", *ours.words]
    with ExitStack() as stack:
        contenders: dict[str, Callable[[], float]] = {"ours": lambda: ours.ns_per_chain(count)}
        for name, command in commands.items():
            contenders[name] = _asker(stack.enter_context(Served(command)), count)
        times = interleave(contenders, options.rounds, progress=f"{work.id} {work.what}")
    rows = [
        compare(
            work.id,
            f"{work.what}, per chain",
            times["ours"],
            name,
            times.get(name),
            unit="ns",
            goal=work.goals.get(name),
        )
        for name in (BEST, FLOOR, NEWEST)
    ]
    return rows if work.table is None else [*rows, floor_check(work, times)]


def floor_check(work: Work, times: Mapping[str, list[float]]) -> Row:
    """Whether the floor is one: best Rust / floor is that of the table of reference figures within 30 %."""
    assert work.table is not None
    what = f"floor check, {work.what}: best Rust / C floor"
    name = "the reference table's ratio (within 30 %)"
    best, bare = times.get(BEST), times.get(FLOOR)
    if not best or not bare:
        return Row(work.id, what, 0.0, work.table, name, None, "", "lower", "missing", 1.3, 0.0, 0)
    ratios = [rust / floor for rust, floor in zip(best, bare, strict=True)]
    row = compare(work.id, what, ratios, name, [work.table], unit="", goal=1.3)
    assert row.ratio is not None
    return attrs.evolve(row, status="met" if 0.7 <= row.ratio <= 1.3 else "missed")


def _asker(served: Served, count: int) -> Callable[[], float]:
    return lambda: served.ask(count)[0]
