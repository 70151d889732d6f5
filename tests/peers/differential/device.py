"""Plays scripts on an implementation of `VirtQueue`, and writes down everything that can be seen."""

import mmap
import os
import struct
from typing import NamedTuple

import attrs
from virtio_queue import ChainBatch, DescriptorChain, DriverError, Reason, VirtQueue
from virtio_queue._layout import ring_position
from vmm_memory import FileOffset, GuestMemoryMmap, GuestRegionMmap

from differential.script import (
    BASE,
    BLANK,
    END,
    HOLE,
    MAX_SIZE,
    PAGE,
    REGIONS,
    Complete,
    CompleteBatch,
    Decide,
    Disable,
    Enable,
    Gather,
    Pop,
    PopOne,
    Registers,
    Reset,
    Restore,
    Scatter,
    Script,
    Step,
    Store,
    Undo,
)

_WORDS = struct.Struct("<HH")
_WORD = struct.Struct("<H")
_SEGMENTS = MAX_SIZE * (MAX_SIZE + 1)  # as many as a full queue of the longest chains has
QUEUE_FAULTS = {
    Reason.NOT_READY,
    Reason.RING_SIZE,
    Reason.RING_ALIGNMENT,
    Reason.RING_ADDRESS,
    Reason.RING_POSITION,
    Reason.AVAILABLE_INDEX,
    Reason.HEAD,
    Reason.BUFFER_ID,
    Reason.ENDLESS,
}


class Chain(NamedTuple):
    """A chain as a pop showed it.

    Attributes:
        head: Its name.
        error: The rule that it breaks; None for a sound one.
        count: Buffers, or how many were accepted before the fault.
        segments: Them, as (address, length, writable); None where the call does not show them.
    """

    head: int
    error: Reason | None
    count: int
    segments: tuple[tuple[int, int, bool], ...] | None


class Fault(NamedTuple):
    """The queue refused; the fields are those of DriverError."""

    reason: Reason
    head: int | None
    position: int
    value: int | None
    limit: int | None


# What a step showed: chains, bytes that were read, a decision, or that the queue refused.
Outcome = tuple[Chain, ...] | bytes | bool | None | Fault


class Record(NamedTuple):
    """One step of the device: what it showed, what it left behind, what the driver had told it by then."""

    outcome: Outcome
    next_avail: int
    next_used: int
    used_ring: bytes
    avail_flags: int
    avail_idx: int
    used_event: int


@attrs.define
class Trace:
    """What became of a script.

    Attributes:
        valid: What `is_valid` said at first.
        steps: The steps that were done: those that this device could do, with the numbers that it used.
        records: One for each of them that is the device's.
        counters: What the queue counted: chains, tables, wraps, interrupts and those suppressed.
        dirty: Pages that the device marked, as addresses.
        memory: All regions in the end.
    """

    valid: bool
    steps: list[Step] = attrs.Factory(list)
    records: list[Record] = attrs.Factory(list)
    counters: tuple[int, ...] = ()
    dirty: tuple[int, ...] = ()
    memory: bytes = b""


@attrs.frozen(eq=False)
class _Held:
    """A chain that the device has; no chain when it is broken."""

    head: int
    chain: DescriptorChain | None

    @property
    def room(self) -> int:
        return 0 if self.chain is None else min(self.chain.writable_bytes, 0xFFFF_FFFF)


class Device:
    """One implementation on memory of its own; the driver's stores go through a mapping like a guest's.

    Args:
        queue_class: `Queue`, `TwinQueue`, or another with the same constructors.
    """

    def __init__(self, queue_class: type) -> None:
        self.queue_class = queue_class
        fd = os.memfd_create("scripts", os.MFD_CLOEXEC)
        os.ftruncate(fd, END - BASE)
        self._image = mmap.mmap(fd, END - BASE)
        regions = [
            GuestRegionMmap.from_file(base, size, FileOffset(fd, base - BASE), dirty=True)
            for base, size in REGIONS
        ]
        os.close(fd)
        self.memory = GuestMemoryMmap(regions)
        self._batch = ChainBatch(2 * MAX_SIZE, _SEGMENTS)

    def play(self, script: Script) -> Trace:
        """Play it from blank memory."""
        self._image[:] = BLANK
        self.memory.take_dirty()
        self._script, self._counted = script, [0] * 5
        self._begin()
        trace = Trace(self.queue.is_valid(self.memory))
        written, avail, event = self._places(script) if trace.valid else ([], 0, 0)
        image, queue = self._image, self.queue
        for step in script.steps:
            if type(step) is Store:
                start = step.addr - BASE
                image[start : start + len(step.data)] = step.data
                trace.steps.append(step)
                continue
            done, outcome = self._try(step)
            if done is not None:
                queue = self.queue
                trace.steps.append(done)
                words = (*_WORDS.unpack_from(image, avail), *_WORD.unpack_from(image, event))
                ring = b"".join(image[start:end] for start, end in written)
                trace.records.append(Record(outcome, queue.next_avail, queue.next_used, ring, *words))
        self._count()
        trace.counters = tuple(self._counted)
        trace.dirty = tuple(
            page for addr, size in self.memory.take_dirty() for page in range(addr, addr + size, PAGE)
        )
        trace.memory = image[: HOLE - BASE] + image[HOLE + PAGE - BASE :]
        return trace

    @staticmethod
    def _places(script: Script) -> tuple[list[tuple[int, int]], int, int]:
        """Where in the image the device writes rings, where the driver's flags are, and its event."""
        desc, avail, used = (addr - BASE for addr in (script.desc_table, script.avail_ring, script.used_ring))
        if script.packed:
            return [(desc, desc + 16 * script.size), (used, used + 4)], avail, avail
        return [(used, used + 6 + 8 * script.size)], avail, avail + 4 + 2 * script.size

    def _begin(self) -> None:
        self.queue: VirtQueue = self._configure(self._script)
        self._held: list[_Held] = []
        self._order: list[_Held] = []  # in the order of their pops, without those given back to the ring

    def _count(self) -> None:
        """Add what the queue counted; one that is restored begins anew."""
        self._counted = list(map(sum, zip(self._counted, attrs.astuple(self.queue.counters), strict=True)))

    def _configure(self, script: Script) -> VirtQueue:
        queue = self.queue_class(MAX_SIZE)
        queue.packed = script.packed
        queue.size = script.size
        queue.desc_table, queue.avail_ring, queue.used_ring = (
            script.desc_table,
            script.avail_ring,
            script.used_ring,
        )
        queue.event_idx, queue.indirect, queue.ready = script.event_idx, script.indirect, script.ready
        queue.compatible = script.compatible
        if script.start:
            start = ring_position(script.start, script.size, packed=script.packed)
            state = attrs.evolve(queue.state(), next_avail=start, next_used=start)
            return self.queue_class.from_state(state)
        return queue

    def _try(self, step: Step) -> tuple[Step | None, Outcome]:
        try:
            return self._do(step)
        except DriverError as error:
            return step, Fault(error.reason, error.head, error.position, error.value, error.limit)

    def _do(self, step: Step) -> tuple[Step | None, Outcome]:
        """Do a step; returns it as it was done (None: this device cannot) and what it showed."""
        queue, memory = self.queue, self.memory
        match step:
            case Pop(most):
                return step, self._pop(most)
            case PopOne():
                return step, self._pop_one()
            case Complete(which, written):
                return self._complete(which, written)
            case CompleteBatch(chains):
                return self._complete_batch(chains)
            case Decide():
                return step, queue.needs_notification(memory)
            case Enable():
                return step, queue.enable_notification(memory)
            case Disable():
                return step, queue.disable_notification(memory)
            case Undo(count):
                return self._undo(count)
            case Gather(which):
                chain = self._chain(which)
                return (None, None) if chain is None else (step, chain.reader().read_all())
            case Scatter(which, seed):
                return self._scatter(step, self._chain(which), seed)
            case Restore():
                self._count()
                self.queue = self.queue_class.from_state(queue.state())
                return step, None
            case Registers():
                return step, self._judge(step)
            case Reset():
                self._count()
                return step, self._begin()
        raise AssertionError(step)

    def _judge(self, other: Registers) -> bool:
        """Whether the queue can be used with these registers; Fault says why not."""
        before = Registers(*(getattr(self.queue, name) for name in Registers._fields))
        self._write(other)
        try:
            self.queue.check(self.memory)
        finally:
            self._write(before)
        return True

    def _write(self, registers: Registers) -> None:
        for name, value in registers._asdict().items():
            setattr(self.queue, name, value)

    def _pop(self, most: int) -> Outcome:
        batch = self._batch if most == 2 * MAX_SIZE else ChainBatch(most, _SEGMENTS)
        self.queue.pop_batch(self.memory, batch)
        chains = []
        for index, record in enumerate(batch.records()):
            _first, count, head, _written, error, _readable, _writable = record
            segments = batch.segments(index)
            chain = None if error else DescriptorChain(head, segments, self.memory)
            self._take(head, chain)
            chains.append(Chain(head, Reason(-error) if error else None, count, segments))
        return tuple(chains)

    def _pop_one(self) -> Outcome:
        before = self.queue.in_flight
        try:
            chain = self.queue.pop(self.memory)
        except DriverError as error:
            if self.queue.in_flight == before or error.head is None:
                raise
            self._take(error.head, None)
            return (Chain(error.head, error.reason, error.position, None),)
        if chain is None:
            return ()
        self._take(chain.head, chain)
        return (Chain(chain.head, None, len(chain.segments), chain.segments),)

    def _take(self, head: int, chain: DescriptorChain | None) -> None:
        self._held.append(_Held(head, chain))
        self._order.append(self._held[-1])

    def _chain(self, which: int) -> DescriptorChain | None:
        return self._held[which].chain if which < len(self._held) else None

    def _complete(self, which: int, written: int) -> tuple[Step | None, Outcome]:
        if which >= len(self._held):
            return None, None
        held = self._held[which]
        written = min(written, held.room)
        done = Complete(which, written)
        self.queue.add_used(self.memory, held.head, written)
        del self._held[which]
        return done, None

    def _complete_batch(self, chains: tuple[tuple[int, int], ...]) -> tuple[Step | None, Outcome]:
        batch, rest, done = ChainBatch(2 * MAX_SIZE, 2 * MAX_SIZE), list(self._held), []
        for which, written in chains:
            if which < len(rest):
                held = rest.pop(which)
                done.append((which, min(written, held.room)))
                batch.append(held.head, [(0, held.room, True)], written=done[-1][1])
        decision = self.queue.complete_batch(self.memory, batch)
        self._held = rest
        return CompleteBatch(tuple(done)), decision

    def _undo(self, count: int) -> tuple[Step | None, Outcome]:
        """Only chains that were taken last and are all still here can be given back."""
        possible = 0
        while possible < min(count, len(self._order)) and self._order[-1 - possible] in self._held:
            possible += 1
        if possible == 0:
            return None, None
        self.queue.undo_pop(possible)
        del self._held[-possible:], self._order[-possible:]
        return Undo(possible), None

    @staticmethod
    def _scatter(step: Step, chain: DescriptorChain | None, seed: int) -> tuple[Step | None, Outcome]:
        if chain is None:
            return None, None
        writer = chain.writer()
        writer.write(bytes((seed + index) & 0xFF for index in range(writer.available)))
        return step, None
