"""Drivers that write anything into their rings, of either format: the device asks for a reset, or goes on."""

import contextlib
import os
import tempfile
import time

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from virtio_devices import (
    DiskImage,
    Feature,
    RingOptions,
    Status,
    VirtioBlk,
    VirtioMmio,
    VirtioNet,
    VirtioRng,
)
from virtio_devices.testing import BlkDriver, LineProbe, MmioDriver, NetDriver, SocketBackend
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

RAM, SIZE = 0x6_0000, 8
KINDS = ("blk", "blk-python", "net", "net-python", "rng")
# Words that mean something: flags of descriptors of both formats, wrap bits, indices, guest addresses.
words = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 0x80, 0x81, 0x82, 0x84, 0x8000, 0x8001, 0x8004, 0x8080, 0x8082]),
    st.integers(0, 0xFFFF),
)
forged = st.tuples(
    st.sampled_from([0, 0x2000, 0x4_0000, RAM // 2 - 8, RAM - 8, RAM, 1 << 40, (1 << 64) - 16]),
    st.sampled_from([0, 1, 15, 16, 32, 512, 4096, RAM, (1 << 32) - 1]),
    st.integers(0, 7),
    st.sampled_from([0, 1, 2, SIZE - 1, SIZE, 0xFFFF]),
)
actions = st.one_of(
    st.tuples(st.just("forge"), st.integers(0, 2), forged),
    st.tuples(st.just("forge"), st.integers(0, 2), forged),
    st.tuples(st.just("word"), st.integers(0, 255), words),
    st.tuples(st.just("bytes"), st.integers(0, 511), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("table"), st.integers(0, SIZE - 1), st.binary(min_size=16, max_size=48)),
    st.tuples(st.just("request"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("kick"), st.just(0), st.none()),
)
choices = st.sampled_from(
    [0, Feature.EVENT_IDX, Feature.INDIRECT_DESC, Feature.EVENT_IDX | Feature.INDIRECT_DESC]
)


class World:
    """One device of each kind in turn, with everything that it needs."""

    def __init__(self, stack, kind, packed):
        self.kind, self.backend = kind, None
        native = not kind.endswith("python")
        if kind.startswith("blk"):
            self.file = stack.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115 - the stack closes it
            self.file.write(os.urandom(8192))
            self.file.flush()
            device = VirtioBlk("dev", DiskImage(self.file.name), queue_size=SIZE, native=native)
        elif kind.startswith("net"):
            self.backend = SocketBackend()
            stack.callback(self.backend.far.close)
            device = VirtioNet("dev", self.backend, queue_size=SIZE, native=native)
        else:
            device = VirtioRng("dev", queue_size=SIZE)
        self.memory = GuestMemoryMmap([guarded_region(0, RAM // 2), guarded_region(RAM // 2, RAM // 2)])
        self.line = LineProbe()
        rings = RingOptions(packed=packed)
        self.mmio = VirtioMmio(device, base=0, interrupt=self.line, memory=self.memory, rings=rings)
        stack.callback(self.mmio.close)
        area = (0x1000, RAM - 0x1000)
        self.driver = MmioDriver(self.mmio, self.memory, self.line, area=area, packed=packed)
        self.queues = (0, 1, 2) if self.backend else (0,)

    def attack(self, kind, where, what):
        """One thing that a hostile driver does to one of its queues."""
        index = self.queues[where % len(self.queues)]
        queue = self.driver.queues[index]
        if kind == "forge":
            self.forge(index, *what)
        base, length = queue.layout.desc_table, queue.layout.end - queue.layout.desc_table
        if kind == "word":
            self.memory.store(base + 2 * (where % (length // 2)), 2, what)
        elif kind == "bytes":
            at = where % length
            self.memory.write(base + at, what[: length - at])
        elif kind == "table":  # any bytes as an indirect table, led to by any descriptor
            self.memory.write(queue.layout.end + 64, what)
            address = (queue.layout.end + 64).to_bytes(8, "little") + len(what).to_bytes(4, "little")
            self.memory.write(base + 16 * where, address)
        elif kind == "request":
            with contextlib.suppress(MemoryError, ValueError):
                queue.request([bytes(16)] if where else [], [512, 1], indirect=what)
        self.driver.kick(index, always=True)

    def forge(self, index, addr, length, flags, name):
        """A descriptor where the device looks next, announced; `name` is its index or its buffer id."""
        raw, position = self.driver.queues[index].raw, self.mmio._host.queues[index].next_avail
        if raw.layout.packed:
            available = 0x80 if position & 0x8000 else 0x8000
            raw.write_descriptor((position & 0x7FFF) % SIZE, addr, length, name, flags | available)
        else:
            raw.write_descriptor(name % SIZE, addr, length, flags, name)
            raw.write_available(position, name)
            raw.set_avail_idx((position + 1) & 0xFFFF)

    def check_that_it_works(self):
        """As for any other driver."""
        self.driver.initialise(queues=self.queues)
        assert self.driver.status & (Status.DRIVER_OK | Status.NEEDS_RESET) == Status.DRIVER_OK
        if self.kind.startswith("blk"):
            self.file.seek(512)
            assert BlkDriver(self.driver).read(1, 1) == (0, self.file.read(512))
        elif self.backend:
            self.drain()
            NetDriver(self.driver).send(b"still here".ljust(60))
            assert self.backend.take()[1] == b"still here".ljust(60)
        else:
            assert self.driver.request([], [8]).written == 8

    def drain(self):
        """Take out what the attack has sent."""
        self.backend.far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.backend.far.recv(1 << 17)


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(features=choices, script=st.lists(actions, min_size=1, max_size=12))
@example(features=0, script=[("word", 7, 0x81), ("word", 15, 0x81), ("kick", 0, None)])
def test_whatever_is_in_the_rings(kind, packed, features, script):
    """No crash, no hang, nothing outside guest memory; after a reset the next driver finds a sound device."""
    with contextlib.ExitStack() as stack:
        world = World(stack, kind, packed)
        world.driver.initialise(features=int(features), queues=world.queues)
        for action in script:
            world.attack(*action)
            time.sleep(0.0005)  # the device's turn
        world.mmio.pause()
        world.mmio.resume()
        event(f"asked for a reset: {world.driver.needs_reset}")
        world.check_that_it_works()
