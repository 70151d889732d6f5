"""A device through any life: requests, pauses, resets, queue resets, moves, hostile rings."""

import os
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from virtio_devices import DiskImage, Feature, MmioRegister, RingOptions, Status, VirtioBlk, VirtioMmio
from virtio_devices.testing import BlkDriver, LineProbe, MmioDriver
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

SECTORS = 32


class DiskLife(RuleBasedStateMachine):
    """The disk's content is a bytearray; whatever happens to the device, it must never differ."""

    def __init__(self):
        super().__init__()
        self.memory = GuestMemoryMmap([guarded_region(0, 0x4_0000)])
        self.file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by teardown
        self.model = bytearray(os.urandom(SECTORS * 512))
        self.file.write(self.model)
        self.file.flush()
        self.mmio = None
        self.up = self.paused = self.broken = False

    def make(self, native):
        """A fresh transport on the image, which must be free by then."""
        line = LineProbe()
        disk = VirtioBlk("life", DiskImage(self.file.name), native=native, queue_size=16)
        rings = RingOptions(packed=True)
        self.mmio = VirtioMmio(disk, base=0, interrupt=line, memory=self.memory, rings=rings)
        return line

    @initialize(native=st.booleans(), packed=st.booleans())
    def power_on(self, native, packed):
        """The machine starts."""
        line = self.make(native)
        self.driver = MmioDriver(self.mmio, self.memory, line, area=(0x1000, 0x3_0000), packed=packed)

    @rule(
        features=st.sampled_from([None, 0, int(Feature.EVENT_IDX), int(Feature.RING_RESET)]),
        size=st.sampled_from([4, 16]),
    )
    @precondition(lambda self: not self.paused)
    def boot(self, features, size):
        """A driver initialises the device, whatever the last one left behind."""
        self.driver.initialise(features=features, size=size)
        self.blk = BlkDriver(self.driver)
        self.up, self.broken = True, False

    @rule(sector=st.integers(0, SECTORS - 1), value=st.integers(0, 255))
    @precondition(lambda self: self.up and not self.paused and not self.broken)
    def write(self, sector, value):
        """A write is carried out once."""
        assert self.blk.write(sector, bytes([value]) * 512) == 0
        self.model[sector * 512 : sector * 512 + 512] = bytes([value]) * 512

    @rule(sector=st.integers(0, SECTORS - 1))
    @precondition(lambda self: self.up and not self.paused and not self.broken)
    def read(self, sector):
        """A read gives what was written last."""
        assert self.blk.read(sector, 1) == (0, bytes(self.model[sector * 512 : sector * 512 + 512]))

    @rule()
    def pause(self):
        """Pausing twice is pausing."""
        self.mmio.pause()
        self.paused = True

    @rule()
    def resume(self):
        """Resuming twice is resuming."""
        self.mmio.resume()
        self.paused = False

    @rule(native=st.booleans())
    @precondition(lambda self: self.paused)
    def move(self, native):
        """Save, end the process, restore with either data path."""
        state = self.mmio.state()
        self.mmio.close()
        line = self.make(native)
        self.mmio.restore(state)
        self.driver._device, self.driver.line = self.mmio, line

    @rule()
    @precondition(lambda self: self.up and not self.paused and self.driver.features & Feature.RING_RESET)
    def queue_reset(self):
        """One queue starts over while the device lives on; that does not heal a broken device."""
        self.driver.write(MmioRegister.QUEUE_SEL, 0)
        self.driver.write(MmioRegister.QUEUE_RESET, 1)
        self.driver.set_up_queue(0)

    @rule()
    @precondition(lambda self: self.up and not self.paused and not self.broken)
    def break_ring(self):
        """More than the ring can hold: NEEDS_RESET, and never a wrong byte on the disk."""
        self.ring_breaker(self.driver.queues[0])
        self.driver.kick(always=True)
        self.driver.wait_for_reset_request()
        self.broken = True

    @rule()
    @precondition(lambda self: not self.paused)
    def reset(self):
        """The driver lets go of the device."""
        self.driver.reset()
        self.up = self.broken = False

    @invariant()
    def status_tells_the_truth(self):
        """DRIVER_OK and NEEDS_RESET are as the history says."""
        if self.mmio is not None:
            status = self.driver.status
            assert bool(status & Status.DRIVER_OK) == self.up
            assert bool(status & Status.NEEDS_RESET) == self.broken

    def teardown(self):
        """The image holds what the model says, and is free again."""
        if self.mmio is not None:
            self.mmio.close()
        DiskImage(self.file.name).close()
        with open(self.file.name, "rb") as file:
            assert file.read() == self.model
        self.file.close()


def test_a_disk_lives_through_everything(ring_breaker):
    """Any order of driver, machine and attacker actions keeps content and status right."""
    DiskLife.ring_breaker = staticmethod(ring_breaker)
    run_state_machine_as_test(DiskLife, settings=settings(deadline=None, stateful_step_count=30))
