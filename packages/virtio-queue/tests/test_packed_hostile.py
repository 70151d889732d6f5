"""Packed rings of hostile drivers: core and twin agree, and only used descriptors are written."""

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from virtio_queue import ChainBatch, Queue
from virtio_queue.testing import Lockstep, PackedRings, RingLayout, TwinQueue
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

BASE, ROOM = 0x1000, 0x3000
TABLE = BASE + ROOM - 16 * 12  # the tables end with the memory
NEXT, WRITE, INDIRECT, AVAIL, USED = 1, 2, 4, 1 << 7, 1 << 15


def _buffers():
    fits = st.tuples(st.integers(BASE, BASE + ROOM - 64), st.integers(0, 64))
    edge = st.tuples(
        st.sampled_from((BASE - 1, BASE + ROOM - 1, BASE + ROOM, 0, (1 << 64) - 1, BASE + 0xFFF)),
        st.integers(0, 8),
    )
    huge = st.tuples(st.just(BASE), st.sampled_from((ROOM, 0xFFFF_FFFF)))
    return st.one_of(fits, fits, fits, edge, huge)


def _tables():
    first = st.integers(0, 11)
    length = st.one_of(st.integers(0, 8).map(lambda n: 16 * n), st.integers(0, 40), st.just(0xFFFF_FFF0))
    return st.tuples(first.map(lambda n: TABLE + 16 * n), length)


@st.composite
def _elements(draw):
    """(address, length, id, flags without the state, whether the state is the right one)."""
    kind = draw(st.sampled_from((0, 0, 0, NEXT, NEXT, NEXT | WRITE, WRITE, INDIRECT, INDIRECT, 7, 0x7F78)))
    addr, length = draw(_tables() if kind & INDIRECT else _buffers())
    return addr, length, draw(st.integers(0, 5) | st.just(0xFFFF)), kind, draw(st.integers(0, 9)) > 0


@attrs.frozen
class PackedScript:
    """A ring, what the driver does to it later, and what the device does meanwhile."""

    size: int
    start: int
    event_idx: bool
    indirect: bool
    elements: tuple[tuple[int, int, int, int, bool], ...]
    table: tuple[tuple[int, int, int], ...]
    wish: tuple[int, int]
    steps: tuple[tuple[str, int], ...]


STEPS = (
    "pop",
    "pop",
    "batch",
    "batch",
    "use",
    "complete",
    "undo",
    "enable",
    "disable",
    "decide",
    "save",
    "offer",
)
SCRIPTS = st.builds(
    PackedScript,
    size=st.integers(1, 9),
    start=st.integers(0, 40),
    event_idx=st.booleans(),
    indirect=st.booleans(),
    elements=st.lists(_elements(), min_size=1, max_size=24).map(tuple),
    table=st.lists(
        st.tuples(
            st.integers(BASE - 2, BASE + ROOM), st.integers(0, 64), st.sampled_from((0, WRITE, WRITE, 0xFFFD))
        ),
        max_size=12,
    ).map(tuple),
    wish=st.tuples(st.integers(0, 12) | st.integers(0x8000, 0x800C), st.sampled_from((0, 1, 2, 2, 3))),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), min_size=1, max_size=24).map(tuple),
)


class _Play:
    """Both sides of a script."""

    def __init__(self, script):
        self.script = script
        self.layout = RingLayout.at(BASE, script.size, packed=True)
        memories, queues = [], []
        for cls in (Queue, TwinQueue):
            mem = GuestMemoryMmap(
                [guarded_region(BASE, 0x1000), guarded_region(BASE + 0x1000, ROOM - 0x1000)]
            )
            for index, (addr, length, flags) in enumerate(script.table):
                mem.write(TABLE + 16 * index, addr.to_bytes(8, "little") + length.to_bytes(4, "little"))
                mem.store(TABLE + 16 * index + 14, 2, flags)
            raw = PackedRings(mem, self.layout)
            raw.set_driver_event(*script.wish)
            queue = cls(9)
            self.layout.configure(queue, event_idx=script.event_idx, indirect=script.indirect)
            place = self.layout.position(script.start)
            queues.append(cls.from_state(attrs.evolve(queue.state(), next_avail=place, next_used=place), mem))
            memories.append(mem)
        self.pair = Lockstep(tuple(queues), tuple(memories), [(BASE, ROOM)])
        self.position, self.left = script.start, list(script.elements)
        self.taken = []

    def offer(self, count):
        """The driver writes further elements, not caring who owns their slots."""
        for _ in range(min(count, len(self.left))):
            addr, length, head, kind, right = self.left.pop(0)
            lap = self.position // self.script.size % 2
            flags = kind | ((USED if lap else AVAIL) if right else (AVAIL if lap else USED))
            for mem in self.pair.memories:
                raw = PackedRings(mem, self.layout)
                raw.write_descriptor(self.position % self.script.size, addr, length, head, flags)
            self.position += 1

    def step(self, name, number):
        """One operation on both sides."""
        call = self.pair.call
        match name:
            case "offer":
                self.offer(number + 1)
            case "pop":
                before = self.pair.queues[0].in_flight
                result = call(lambda queue, mem: queue.pop(mem))
                if self.pair.queues[0].in_flight > before:
                    self.taken.append((result.head, getattr(result, "writable_bytes", 0)))
            case "batch":
                batch = self.pair.pop_batch(number + 1, self.script.size + number % 3)
                if isinstance(batch, ChainBatch):
                    self.taken += [(record[2], record[6]) for record in batch.records()]
            case "use":
                head, room = self.taken.pop(number % len(self.taken)) if self.taken else (number, 0)
                call(lambda queue, mem: queue.add_used(mem, head, min(room, number)))
            case "complete":
                self.complete(number)
            case "undo":
                result = call(lambda queue, _mem: queue.undo_pop(number))
                if not isinstance(result, ValueError):
                    del self.taken[len(self.taken) - number :]
            case "enable":
                self.enable()
            case "disable":
                call(lambda queue, mem: queue.disable_notification(mem))
            case "decide":
                call(lambda queue, mem: queue.needs_notification(mem))
            case "save":
                queues = tuple(type(queue).from_state(queue.state()) for queue in self.pair.queues)
                self.pair = Lockstep(queues, self.pair.memories, self.pair.watched)

    def complete(self, number):
        """The newest first; now and then one that is not there, so that nothing may happen."""
        chosen = self.taken[-(number + 1) :][::-1]
        batch = ChainBatch(16, 16)
        for head, room in chosen:
            batch.append(head, [(0, min(room, 0xFFFF_FFFF), True)], written=min(room, number))
        if number == 7:
            batch.append(0xEEEE)
        result = self.pair.call(lambda queue, mem: queue.complete_batch(mem, batch))
        if not isinstance(result, Exception):
            del self.taken[-len(chosen) :]

    def enable(self):
        """When it says that there is more, the next pop finds it or says why not."""
        if self.pair.call(lambda queue, mem: queue.enable_notification(mem)) is True:
            before = self.pair.queues[0].in_flight
            result = self.pair.pop_batch(1, self.script.size)
            assert isinstance(result, Exception) or len(result) == 1
            if not isinstance(result, Exception):
                assert self.pair.queues[0].in_flight == before + 1
                self.taken += [(record[2], record[6]) for record in result.records()]


def element(addr=BASE, length=1, head=0, kind=0, right=True):
    """An element for the examples below."""
    return addr, length, head, kind, right


PLAIN = PackedScript(3, 2, True, True, (), (), (0, 2), ())


@given(script=SCRIPTS)
@example(
    attrs.evolve(PLAIN, elements=(element(kind=NEXT),) * 3, steps=(("offer", 7), ("pop", 0), ("enable", 0)))
)
@example(
    attrs.evolve(
        PLAIN,
        elements=tuple(element(head=head) for head in range(3)),
        steps=(
            ("offer", 7),
            ("batch", 7),
            ("use", 1),
            ("undo", 1),
            ("undo", 2),
            ("complete", 1),
            ("decide", 0),
        ),
    )
)
def test_any_driver(script):
    """Chains, errors, states, decisions, counters, memory and dirty pages are equal after each step."""
    play = _Play(script)
    for mem in play.pair.memories:
        mem.take_dirty()
    for name, number in (("offer", 7), *script.steps):
        play.step(name, number)
        queue = play.pair.queues[0]
        assert len(play.taken) == queue.in_flight <= script.size
    left, right = (mem.take_dirty() for mem in play.pair.memories)
    assert left == right


@given(
    registers=st.lists(
        st.integers(BASE // 16, (BASE + ROOM) // 16).map(lambda line: 16 * line)
        | st.integers(BASE - 64, BASE + ROOM + 64)
        | st.integers(0, (1 << 64) - 1),
        min_size=3,
        max_size=3,
    ),
    size=st.integers(0, 12),
    flips=st.lists(st.tuples(st.integers(0, ROOM // 2 - 1), st.integers(0, 0xFFFF)), max_size=8),
)
def test_any_registers_are_safe(registers, size, flips):
    """Whatever a driver writes into the registers, overlapping areas and a shrunken ring included."""
    play = _Play(attrs.evolve(PLAIN, size=9, elements=tuple(element(head=head) for head in range(9))))
    play.offer(6)
    play.step("batch", 3)
    for queue in play.pair.queues:
        queue.size = size
        queue.desc_table, queue.avail_ring, queue.used_ring = registers
    for half, value in flips:
        for mem in play.pair.memories:
            mem.store(BASE + 2 * half, 2, value)
    for name in ("enable", "disable", "batch", "complete", "decide", "pop", "undo"):
        if name == "batch":
            play.pair.pop_batch(4, 16)
        elif name == "undo":
            play.pair.call(lambda queue, _mem: queue.undo_pop(1))
        else:
            play.step(name, 2)
