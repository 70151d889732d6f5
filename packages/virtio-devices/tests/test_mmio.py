"""The virtio-mmio transport: register map, status machine, hostile writes, saved state."""

import threading

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtio_devices import (
    DiskImage,
    Feature,
    InterruptBit,
    RingOptions,
    SavedStateError,
    Status,
    TransportStateError,
    VirtioBlk,
    VirtioMmio,
    VirtioRng,
)
from virtio_devices import (
    MmioRegister as R,
)
from virtio_devices.testing import BlkDriver, DeviceRefusedError, LineProbe, MmioDriver
from vm_device.platform import InterruptSpec
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

UP_TO_FEATURES = Status.ACKNOWLEDGE | Status.DRIVER


class Echo:
    """A device with two queues and a writable configuration space."""

    id, device_id, features, queue_sizes = "echo", 0x2A, 1 << 3, (8, 16)

    def __init__(self):
        self.config = bytearray(b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a")
        self.activations, self.resets, self.closed = 0, 0, False
        self.context = None
        self.fail_with = None

    def read_config(self, offset, size):
        return bytes(self.config[offset : offset + size])

    def write_config(self, offset, data):
        if offset + len(data) <= len(self.config):
            self.config[offset : offset + len(data)] = data

    def activate(self, context):
        if self.fail_with:
            raise self.fail_with
        self.activations += 1
        self.context = context
        context.serve_chains(0, self.echo)

    def echo(self, memory, chain):
        data = chain.reader().read_all()
        chain.writer().write(data)
        return len(data)

    def reset(self):
        self.resets += 1
        self.context = None

    def describe(self):
        return {"colour": "blue"}

    def state(self):
        return {"config": bytes(self.config)}

    def restore(self, state):
        self.config[:] = state["config"]

    def close(self):
        self.closed = True


@pytest.fixture
def echo(rig):
    """An echo device behind virtio-mmio."""
    return rig(Echo())


def test_identification_registers(echo):
    """Magic, version, device and vendor are constants of the specification and the device."""
    read = echo.driver.read
    assert [read(R.MAGIC_VALUE), read(R.VERSION), read(R.DEVICE_ID), read(R.VENDOR_ID)] == [
        0x74726976,
        2,
        0x2A,
        0,
    ]


def test_features_are_selected_by_page(echo):
    """Pages 0 and 1 hold the 64 bits, any further page is empty."""
    pages = []
    for page in (0, 1, 2, 0xFFFFFFFF):
        echo.driver.write(R.DEVICE_FEATURES_SEL, page)
        pages.append(echo.driver.read(R.DEVICE_FEATURES))
    assert pages == [1 << 3 | 1 << 28 | 1 << 29, 1 | 1 << 2 | 1 << 8, 0, 0]


@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        ([1], 1),
        ([2], 0),
        ([1, 1], 1),
        ([1, 3], 3),
        ([3], 3),
        ([1, 2], 1),
        ([1, 3, 1], 3),
        ([1, 5], 1),
        ([8], 0),
        ([0x10], 0),
        ([0x101], 0),
        ([1, 3, 0x83], 0x83),
        ([1, 0x81, 3], 0x81),
        ([1, 3, 0x83, 0], 0),
        ([1, 0x41], 1),
    ],
)
def test_status_bits_come_in_order_and_never_go(echo, writes, expected):
    """Bits are added in the order of section 3.1.1, none is cleared, FAILED freezes all, 0 resets."""
    for value in writes:
        echo.driver.write(R.STATUS, value)
    assert echo.driver.status == expected


@pytest.mark.parametrize("features", [0, Feature.VERSION_1 | 1 << 5, 1 << 3])
def test_features_ok_is_refused(echo, features):
    """Bits that were not offered, or a driver without VERSION_1, do not get FEATURES_OK."""
    echo.driver.add_status(Status.ACKNOWLEDGE)
    echo.driver.add_status(Status.DRIVER)
    echo.driver._accept_features(features)
    echo.driver.add_status(Status.FEATURES_OK)
    assert echo.driver.status == UP_TO_FEATURES


def test_features_are_frozen_after_features_ok(echo):
    """Feature writes before DRIVER and after FEATURES_OK are ignored."""
    echo.driver._accept_features(1 << 3)
    agreed = echo.driver.negotiate(0)
    echo.driver._accept_features(1 << 3)
    echo.driver.set_up_queue(0)
    echo.driver.add_status(Status.DRIVER_OK)
    assert agreed & ~Feature.RING_PACKED == Feature.VERSION_1
    assert echo.device.context.features == agreed


def test_queue_registers_keep_to_their_rules(echo, packed):
    """QueueNum takes legal sizes up to the maximum without truncating; bad selectors read as nothing."""
    driver = echo.driver
    driver.write(R.QUEUE_NUM, 4)  # before FEATURES_OK: ignored
    driver.negotiate()
    driver.write(R.QUEUE_SEL, 1)
    assert driver.read(R.QUEUE_NUM_MAX) == 16
    for value in (0, 17, 32, 0x1_0004, 0xFFFF_FFFF):
        driver.write(R.QUEUE_NUM, value)
    assert echo.mmio._host.registers[1].size == 16
    driver.write(R.QUEUE_NUM, 3)  # a packed ring may have any size (section 2.8)
    assert echo.mmio._host.registers[1].size == (3 if packed else 16)
    driver.write(R.QUEUE_NUM, 8)
    assert echo.mmio._host.registers[1].size == 8
    driver.write(R.QUEUE_SEL, 0x1_0001)
    assert (driver.read(R.QUEUE_NUM_MAX), driver.read(R.QUEUE_READY)) == (0, 0)


def test_a_request_goes_through(echo):
    """The whole sequence, a request through QueueNotify, an interrupt, the acknowledgement."""
    echo.driver.initialise()
    done = echo.driver.request([b"hello"], [3, 2])
    assert done.data == (b"hel", b"lo")
    assert echo.driver.acknowledge() in (InterruptBit(0), InterruptBit.USED_BUFFER)
    assert echo.driver.read(R.INTERRUPT_STATUS) == 0


def test_the_status_bit_is_set_before_the_edge(rig):
    """Whoever is woken by the edge finds the reason in InterruptStatus, as an irqfd needs it."""
    found = []
    echo = Echo()
    line = LineProbe(lambda: found.append(mmio.read(R.INTERRUPT_STATUS, 4)))
    memory = GuestMemoryMmap([guarded_region(0, 0x10_0000)])
    with VirtioMmio(echo, base=0, interrupt=line, memory=memory) as mmio:
        assert mmio.device is echo
        driver = MmioDriver(mmio, memory, line, area=(0x1000, 0x10000))
        driver.initialise()
        driver.request([b"x"], [1])
        echo.context.config_interrupt()
    assert found[0] == InterruptBit.USED_BUFFER
    assert found[-1] & InterruptBit.CONFIG_CHANGE


def test_queue_ready_needs_sound_rings(echo):
    """Rings outside memory are refused when the queue is made ready, and the device asks for a reset."""
    driver = echo.driver
    driver.negotiate()
    driver.write(R.QUEUE_SEL, 0)
    driver._write_address(R.QUEUE_DESC_LOW, 0xFFFF_FFFF_FFFF_FFF0)
    driver.write(R.QUEUE_READY, 1)
    assert driver.read(R.QUEUE_READY) == 0
    assert driver.needs_reset
    assert echo.line.edges == 0  # no interrupt before DRIVER_OK (section 2.1.2)


def test_queue_registers_freeze_while_ready(echo):
    """After QueueReady = 1 and after DRIVER_OK the set-up can no longer be changed."""
    echo.driver.initialise()
    before = echo.mmio._host.registers[0].desc_table
    echo.driver.write(R.QUEUE_DESC_LOW, 0x5000)
    echo.driver.write(R.QUEUE_SEL, 1)
    echo.driver.write(R.QUEUE_DESC_LOW, 0x5000)
    echo.driver.write(R.QUEUE_READY, 1)
    assert [r.desc_table for r in echo.mmio._host.registers] == [before, 0]
    assert echo.driver.read(R.QUEUE_READY) == 0


def test_queue_reset_and_reuse(echo):
    """With RING_RESET one queue can be stopped, set up elsewhere, and used again (section 2.6.1)."""
    driver = echo.driver
    driver.initialise(features=Feature.RING_RESET | Feature.EVENT_IDX)
    assert driver.request([b"one"], [3]).data == (b"one",)
    driver.write(R.QUEUE_RESET, 1)
    assert (driver.read(R.QUEUE_RESET), driver.read(R.QUEUE_READY)) == (0, 0)
    driver.set_up_queue(0, size=4, area=(0x5_0000, 0x1_0000))
    assert driver.request([b"two"], [3]).data == (b"two",)


def test_queue_reset_needs_the_feature(echo):
    """Without RING_RESET the register does nothing."""
    echo.driver.initialise(features=0)
    echo.driver.write(R.QUEUE_RESET, 1)
    assert echo.driver.read(R.QUEUE_READY) == 1


def test_reset_forgets_everything_and_starts_again(echo):
    """After a reset all registers are as after power-on, and the next driver gets a working device."""
    echo.driver.initialise()
    echo.driver.request([b"x"], [1])
    before = echo.device.resets
    echo.driver.write(R.STATUS, 0)
    registers = (R.STATUS, R.INTERRUPT_STATUS, R.QUEUE_READY)
    assert [echo.driver.read(register) for register in registers] == [0, 0, 0]
    assert echo.device.resets == before + 1
    echo.driver.initialise()
    assert echo.driver.request([b"again"], [5]).data == (b"again",)


def test_failing_activation_asks_for_a_reset_once(echo, caplog):
    """A device that cannot be activated says NEEDS_RESET with one interrupt, and works after a reset."""
    echo.device.fail_with = OSError("no back end")
    echo.driver.initialise()
    echo.driver.wait_for_reset_request()
    assert echo.line.edges == 1
    assert echo.driver.acknowledge() == InterruptBit.CONFIG_CHANGE
    assert "no back end" in caplog.text
    echo.device.fail_with = None
    echo.driver.initialise()
    assert not echo.driver.needs_reset


def test_shared_memory_regions_do_not_exist(echo):
    """Length and base of an absent region are all ones (section 4.2.2)."""
    echo.driver.write(R.SHM_SEL, 1)
    registers = (R.SHM_LEN_LOW, R.SHM_LEN_HIGH, R.SHM_BASE_LOW, R.SHM_BASE_HIGH)
    assert {echo.driver.read(register) for register in registers} == {0xFFFF_FFFF}


@pytest.mark.parametrize("size", [1, 2, 8])
def test_registers_are_32_bits_wide(echo, size):
    """Other widths read as 0 and write nothing."""
    echo.mmio.write(R.STATUS, size, 1)
    assert (echo.mmio.read(R.MAGIC_VALUE, size), echo.mmio.read(R.STATUS, 4)) == (0, 0)


def test_config_space_takes_all_widths(echo):
    """Bytes, halves, words; beyond its end there are zeros; writes need DRIVER."""
    assert echo.driver.read_config(0, 1) == 0x01
    assert echo.driver.read_config(1, 2) == 0x0302
    assert echo.driver.read_config(0, 4) == 0x04030201
    assert echo.driver.read_config(0, 8) == 0x0807060504030201
    assert echo.driver.read_config(8, 4) == 0x0A09
    assert echo.mmio.read(0xFFC, 4) == 0
    echo.driver.write_config(0, 1, 0xEE)
    assert echo.driver.read_config(0, 1) == 0x01
    echo.driver.negotiate()
    echo.driver.write_config(0, 2, 0x1_BBAA)
    assert echo.driver.read_config(0, 2) == 0xBBAA


def test_config_update_counts_a_generation_and_interrupts(echo):
    """A change by the device is atomic to the driver, new in generation, and announced."""
    echo.driver.initialise()
    before = echo.driver.read(R.CONFIG_GENERATION)
    with echo.device.context.config_update():
        echo.device.config[:8] = bytes(8)
        reader = threading.Thread(target=echo.driver.read_config, args=(0, 4))
        reader.start()
        assert reader.is_alive()  # waits until the update is complete
    reader.join()
    assert echo.driver.read(R.CONFIG_GENERATION) == before + 1
    assert echo.line.wait(1)
    assert echo.driver.acknowledge() == InterruptBit.CONFIG_CHANGE


def test_notify_ranges_are_for_ioeventfds(echo):
    """One range per queue: QueueNotify, four bytes, the index as match; a write to the fd is a kick."""
    echo.driver.initialise()
    ranges = echo.mmio.notify_ranges
    assert [(r.address - echo.mmio.range.base, r.size, r.datamatch) for r in ranges] == [
        (0x50, 4, 0),
        (0x50, 4, 1),
    ]
    echo.driver.queues[0].request([b"fd"], [2])
    with open(ranges[0].fd, "wb", buffering=0, closefd=False) as kick:
        kick.write((1).to_bytes(8, "little"))
    assert echo.driver.wait()[0].data == (b"fd",)


def test_the_description_names_everything(rig):
    """ACPI and FDT emitters find range, interrupt, ids and the device's own properties."""
    spec = InterruptSpec(gsi=5)
    node = rig(Echo(), spec=spec, uid=3).mmio.describe()
    assert (node.id, node.hid, node.compatible, node.uid) == ("echo", "LNRO0005", ("virtio,mmio",), 3)
    assert (node.interrupts, node.ranges[0].base, node.ranges[0].size) == ((spec,), 0xD000_0000, 0x1000)
    assert dict(node.properties) == {"virtio-device-id": 0x2A, "colour": "blue"}


@pytest.mark.parametrize("base", [1, -0x1000, 1 << 64])
def test_a_bad_base_is_refused(base, memory):
    """The range must be page aligned and inside the address space."""
    with pytest.raises(ValueError, match=f"base={base:#x}"):
        VirtioMmio(Echo(), base=base, interrupt=LineProbe(), memory=memory)


def test_requests_wait_during_a_pause(echo):
    """Nothing is served between pause and resume, and nothing is lost."""
    echo.driver.initialise()
    echo.mmio.pause()
    echo.driver.queues[0].request([b"late"], [4])
    echo.driver.kick(always=True)
    assert not list(echo.driver.queues[0].completed())
    echo.mmio.resume()
    assert echo.driver.wait()[0].data == (b"late",)


def test_state_moves_to_another_transport(echo, rig):
    """A paused device goes on in a new object: same driver, same rings, nothing lost or repeated."""
    echo.driver.initialise()
    echo.driver.request([b"first"], [5])
    with pytest.raises(TransportStateError, match="call pause"):
        echo.mmio.state()
    echo.mmio.pause()
    echo.device.config[0] = 0x77
    echo.driver.queues[0].request([b"second"], [6])
    state = echo.mmio.state()
    other = rig(Echo())
    other.mmio.restore(state)
    other.mmio.resume()
    echo.driver._device, echo.driver.line = other.mmio, other.line
    assert echo.driver.wait()[0].data == (b"second",)
    assert echo.driver.read_config(0, 1) == 0x77
    with pytest.raises(TransportStateError, match="reset it first"):
        other.mmio.restore(state)


def test_a_foreign_state_is_refused(echo, rig):
    """The state of another device type does not fit, and changes nothing."""
    other = rig(VirtioRng("rng0"))
    with pytest.raises(SavedStateError, match="device_id=4"):
        echo.mmio.restore(other.mmio.state())
    assert echo.driver.status == 0


def _negotiated(field, value):
    return lambda host: {"queues": (attrs.evolve(host.queues[0], **{field: value}), host.queues[1])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"status": "DRIVER_OK"}, "status='DRIVER_OK', expected an integer of 8 bits"),
        (lambda _: {"status": 256}, "status=256"),
        (lambda _: {"driver_features": 1 << 64}, "driver_features=18446744073709551616"),
        (lambda _: {"config_generation": -1}, "config_generation=-1, expected an integer of 32 bits"),
        (lambda host: {"registers": host.registers[:1]}, "registers=1, expected 2"),
        (
            lambda host: {"registers": (*host.registers[:1], (8, 0, 0))},
            r"registers\[1\]=\(8, 0, 0\), expected 4",
        ),
        (
            lambda host: {"registers": ((8, 0, 1 << 64, 0), *host.registers[1:])},
            r"registers\[0\].avail_ring=\d+, expected an integer of 64 bits",
        ),
        (
            _negotiated("event_idx", True),
            r"queues\[0\].event_idx=True, expected False, as driver_features=0x",
        ),
        (_negotiated("indirect", False), r"queues\[0\].indirect=False, expected True, as"),
    ],
)
def test_a_state_that_cannot_be_is_refused(echo, rig, change, message):
    """A damaged state is refused with the field at fault, and changes nothing."""
    echo.driver.initialise(features=int(Feature.INDIRECT_DESC))
    echo.mmio.pause()
    state = echo.mmio.state()
    damaged = attrs.evolve(state, host=attrs.evolve(state.host, **change(state.host)))
    other = rig(Echo())
    with pytest.raises(SavedStateError, match=message):
        other.mmio.restore(damaged)
    assert other.driver.status == 0
    other.mmio.restore(state)
    assert other.driver.status == echo.driver.status


def test_a_packed_queue_is_not_taken_for_a_split_one(echo, rig, packed):
    """The ring's format must be the negotiated one: the same words mean something else in the other."""
    echo.driver.initialise()
    echo.mmio.pause()
    state = echo.mmio.state()
    features = state.host.driver_features ^ Feature.RING_PACKED
    damaged = attrs.evolve(state, host=attrs.evolve(state.host, driver_features=int(features)))
    with pytest.raises(SavedStateError, match=rf"queues\[0\].packed={packed}, expected {not packed}"):
        rig(Echo()).mmio.restore(damaged)


def test_close_is_idempotent_and_closes_the_device(memory):
    """close() resets and closes once."""
    device = Echo()
    mmio = VirtioMmio(device, base=0, interrupt=LineProbe(), memory=memory)
    mmio.close()
    mmio.close()
    assert (device.closed, device.resets) == (True, 1)


def test_a_closed_device_answers_nothing(echo):
    """A vCPU that still runs while the machine is taken down hits registers that read 0 and ignore writes."""
    echo.driver.initialise()
    echo.mmio.close()
    for register in R:
        echo.driver.write(register, 1)
        assert echo.driver.read(register) == 0


def test_testing_driver_refuses_other_hardware(memory):
    """MmioDriver says which register was wrong."""

    class Nothing:
        def read(self, offset, size):
            return 0xFFFF_FFFF

        def write(self, offset, size, value):
            pass

    driver = MmioDriver(Nothing(), memory, LineProbe(), area=(0, 0x1000))
    with pytest.raises(
        DeviceRefusedError, match="MAGIC_VALUE: device answered 0xffffffff, expected 0x74726976"
    ):
        driver.probe()


accesses = st.lists(
    st.tuples(
        st.booleans(),
        st.one_of(st.sampled_from([int(register) for register in R]), st.integers(0, 0xFFF)),
        st.sampled_from([1, 2, 4, 4, 4, 8]),
        st.one_of(st.sampled_from([0, 1, 3, 11, 15, 0x80, 0x1000, 0x8000]), st.integers(0, (1 << 64) - 1)),
    ),
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(script=accesses, primed=st.booleans())
def test_random_register_accesses_never_raise(script, primed, packed, tmp_path_factory):
    """Whatever is written: values in range, no exception, and a working device after a reset."""
    path = tmp_path_factory.getbasetemp() / "fuzz.img"
    path.write_bytes(bytes(8192))
    memory = GuestMemoryMmap([guarded_region(0, 0x4_0000)])
    line = LineProbe()
    disk, rings = VirtioBlk("fuzz", DiskImage(path)), RingOptions(packed=packed)
    with VirtioMmio(disk, base=0, interrupt=line, memory=memory, rings=rings) as mmio:
        driver = MmioDriver(mmio, memory, line, area=(0x1000, 0x2_0000), packed=packed)
        if primed:
            driver.initialise()
        for write, offset, size, value in script:
            if write:
                mmio.write(offset, size, value)
            else:
                assert 0 <= mmio.read(offset, size) < 1 << (8 * size)
        driver.initialise()
        assert BlkDriver(driver).read(0, 1) == (0, bytes(512))
