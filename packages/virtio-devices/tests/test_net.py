"""virtio-net as a guest's driver sees it, with a pair of sockets in the tap's place; both data paths."""

import contextlib
import os
import struct
import threading
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from virtio_devices import (
    Feature,
    NetFeature,
    Offload,
    RingOptions,
    SavedStateError,
    VirtioMmio,
    VirtioNet,
    random_mac,
)
from virtio_devices.testing import LineProbe, MmioDriver, NetDriver, NetHeader, SocketBackend
from virtio_queue import Segment
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

MAC = bytes.fromhex("0250a4000001")
RX, TX, CONTROL = 0, 1, 2
ALL_QUEUES = (RX, TX, CONTROL)
TSO = NetHeader(1, 1, 54, 1460, 34, 16)
PLAIN = NetFeature.MAC | NetFeature.STATUS  # no merging, no offloads
HOST_BITS = NetFeature.CSUM | NetFeature.HOST_TSO4 | NetFeature.HOST_TSO6 | NetFeature.HOST_ECN
GUEST_BITS = NetFeature.GUEST_CSUM | NetFeature.GUEST_TSO4 | NetFeature.GUEST_TSO6 | NetFeature.GUEST_ECN


class Card:
    """A network device on a socket pair, its transport and its driver."""

    def __init__(self, made, backend):
        self.rig, self.backend = made, backend
        self.device, self.driver = made.device, made.driver
        self.net = None

    def start(self, features=None, queues=ALL_QUEUES, **options):
        """Initialise the device."""
        self.driver.initialise(features=features, queues=queues, **options)
        self.net = NetDriver(self.driver)
        return self.net


@pytest.fixture
def card(native, packed):
    """Make cards with 4 MiB of guarded memory, with each data path."""
    with contextlib.ExitStack() as stack:

        def make(*, offloads=None, timeout=60.0, memory=None, room=8 << 20, **options):
            backend = SocketBackend(room=room) if offloads is None else SocketBackend(offloads)
            stack.callback(backend.far.close)
            device = VirtioNet("net0", backend, mac=MAC, native=native, **options)
            space = memory or GuestMemoryMmap(
                [guarded_region(0, 0x20_0000), guarded_region(0x20_0000, 0x20_0000)]
            )
            line = LineProbe()
            rings = RingOptions(packed=packed)
            mmio = VirtioMmio(device, base=0xD000_0000, interrupt=line, memory=space, rings=rings)
            stack.callback(mmio.close)
            made = type("Rig", (), {"device": device, "memory": space, "line": line, "mmio": mmio})
            area = (0x1_0000, 0x3E_0000)
            made.driver = MmioDriver(mmio, space, line, area=area, timeout=timeout, packed=packed)
            return Card(made, backend)

        yield make


def until(condition, timeout=60.0):
    """Wait for what the device thread does without an interrupt."""
    end = time.monotonic() + timeout
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def settle(card):
    """Wait until the device thread has worked off all its frames: nothing moves for half a second."""
    seen = None
    while seen != (seen := card.device.stats()):
        time.sleep(0.5)


def body(size, seed=0):
    """A frame of `size` bytes."""
    return bytes(i * 7 + seed + (i >> 8) & 0xFF for i in range(size))


def test_config_space(card):
    """The fields stand where VIRTIO 1.2 section 5.1.4 puts them."""
    made = card(mtu=9000)
    net = made.start()
    assert (net.mac, net.link_up, net.mtu) == (MAC, True, 9000)
    assert made.driver.read_config(8, 2) == 1  # max_virtqueue_pairs
    assert made.driver.read_config(12, 4) == 0


def test_features_follow_the_back_end(card):
    """Offloads are offered in both directions where the far end has them, MTU where it was given."""
    base = NetFeature.MAC | NetFeature.STATUS | NetFeature.MRG_RXBUF
    control = NetFeature.CTRL_VQ | NetFeature.CTRL_GUEST_OFFLOADS
    assert card(offloads=Offload(0)).device.features == base
    assert card(offloads=Offload.CSUM, mtu=1500).device.features == (
        base | control | NetFeature.MTU | NetFeature.CSUM | NetFeature.GUEST_CSUM
    )
    assert card().device.features == base | control | HOST_BITS | GUEST_BITS


@pytest.mark.parametrize("features", [None, PLAIN, PLAIN | NetFeature.MRG_RXBUF | Feature.EVENT_IDX])
@pytest.mark.parametrize("size", [14, 60, 1514])
def test_frames_go_both_ways(card, features, size):
    """Whatever was negotiated, bytes arrive as they were sent, and are counted."""
    made = card()
    net = made.start(features)
    net.provide(*[1526] * 8)
    made.backend.give(body(size))
    received = net.receive()
    assert (received.body, received.header) == (body(size), NetHeader(num_buffers=1))
    net.send(body(size, 1))
    assert made.backend.take() == (NetHeader(), body(size, 1))
    stats = made.device.stats()
    assert [(c.packets, c.bytes) for c in (stats.rx, stats.tx)] == [(1, size), (1, size)]


@pytest.mark.parametrize("cut", [None, 1, 5, 12, 13, 700])
@pytest.mark.parametrize("indirect", [False, True])
def test_any_framing(card, cut, indirect):
    """Header and frame may be cut anywhere (section 2.7.4.1), in more pieces than a system call takes too."""
    made = card(queue_size=2048)
    net = made.start()
    frame = body(700)
    net.provide(1526, cut=cut, indirect=indirect)
    made.backend.give(frame)
    assert net.receive().body == frame
    net.send(frame, cuts=range(cut or 12, 712, cut or 712), indirect=indirect)
    assert made.backend.take()[1] == frame


@pytest.mark.parametrize("sizes", [[1526] * 64, [12] * 3 + [4096] * 20, [65566], [40_000, 20_000, 20_000]])
def test_large_frames_are_merged(card, sizes):
    """A segment of 64 KiB fills as many buffers as it needs, in the order they were given."""
    made = card()
    net = made.start()
    for seed in range(3):
        net.provide(*sizes)
        made.backend.give(body(60_000, seed), TSO)
        received = net.receive()
        assert received.body == body(60_000, seed)
        taken = next(n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= 60_012)
        assert attrs_of(received.header) == (1, 1, 54, 1460, 34, 16, taken)
        made.driver.reset()  # forget the buffers that are left
        net = made.start()
    assert made.device.stats().rx.merged == (3 if len(sizes) > 1 else 0)


def attrs_of(header):
    """The fields in their order."""
    return struct.unpack("<BBHHHHH", header.encode())


def test_a_frame_waits_for_buffers(card):
    """With MRG_RXBUF a frame that is larger than what was given is not lost: it comes when there is room."""
    made = card()
    net = made.start()
    net.provide(*[1526] * 4)
    made.backend.give(body(20_000), TSO)
    made.backend.give(body(100, 1))
    settle(made)
    assert made.device.stats().rx.packets == 0
    net.provide(*[1526] * 4)
    settle(made)
    assert made.device.stats().rx.packets == 0
    net.provide(*[1526] * 16)
    assert net.receive().body == body(20_000)
    assert net.receive().body == body(100, 1)
    stats = made.device.stats().rx
    assert (stats.oversized, stats.merged) == (0, 1)


def test_a_frame_that_no_ring_holds_is_dropped(card):
    """When the whole ring is not enough, the frame is dropped and counted, and the next one comes."""
    made = card(queue_size=4)
    net = made.start()
    net.provide(*[1526] * 4)
    made.backend.give(body(20_000), TSO)
    made.backend.give(body(100, 1))
    assert net.receive().body == body(100, 1)
    assert made.device.stats().rx.oversized == 1


def test_without_merging_a_large_frame_is_dropped(card):
    """One buffer a frame: what does not fit is dropped and counted, and its buffer serves the next frame."""
    made = card()
    net = made.start(PLAIN)
    net.provide(100, 1526)
    made.backend.give(body(89))
    made.backend.give(body(88, 1))
    assert net.receive().body == body(88, 1)
    assert made.device.stats().rx.oversized == 1


def test_frames_without_buffers_wait_in_the_host(card):
    """An empty ring stops the reading, without a busy loop; a kick starts it again."""
    made = card()
    net = made.start()
    for seed in range(5):
        made.backend.give(body(60, seed))
    settle(made)
    before = time.thread_time_ns(), time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before[1] < 0.1
    net.provide(*[1526] * 2)
    assert [net.receive().body for _ in range(2)] == [body(60, 0), body(60, 1)]
    net.provide(*[1526] * 3)
    assert [net.receive().body for _ in range(3)] == [body(60, seed) for seed in (2, 3, 4)]


@pytest.mark.parametrize(
    ("features", "header"),
    [
        (PLAIN, NetHeader(1, 0, 0, 0, 34, 16)),
        (PLAIN | NetFeature.CSUM | NetFeature.GUEST_CSUM, TSO),
        (PLAIN | HOST_BITS | GUEST_BITS, NetHeader(1, 2, 54, 1460, 34, 16)),
        (PLAIN | HOST_BITS | GUEST_BITS, NetHeader(1, 3, 42, 1460, 34, 6)),
        (PLAIN | HOST_BITS | GUEST_BITS, NetHeader(1, 5, 42, 1460, 34, 6)),
        (PLAIN | HOST_BITS | GUEST_BITS, NetHeader(1, 0x80, 54, 1460, 34, 16)),
        (
            (PLAIN | HOST_BITS | GUEST_BITS) & ~(NetFeature.HOST_ECN | NetFeature.GUEST_ECN),
            NetHeader(1, 0x81),
        ),
    ],
)
def test_headers_that_ask_for_too_much(card, features, header):
    """What was not negotiated is neither sent on nor given to the guest: dropped, counted, and on it goes."""
    made = card()
    net = made.start(features)
    net.provide(1526, 1526)
    made.backend.give(body(100), header)
    made.backend.give(body(60))
    assert net.receive().body == body(60)
    net.send(body(100), header)
    net.send(body(61))
    assert made.backend.take()[1] == body(61)
    stats = made.device.stats()
    assert (stats.rx.invalid, stats.tx.invalid) == (1, 1)


@pytest.mark.parametrize("size", [0, 1, 13, 65555, 70_000, 200_000])
def test_impossible_lengths_are_dropped(card, size):
    """Shorter than an Ethernet header, longer than any segment."""
    made = card()
    net = made.start()
    net.send(body(size))
    net.send(body(60))
    assert made.backend.take()[1] == body(60)
    assert made.device.stats().tx.invalid == 1


@pytest.mark.parametrize("data", [b"x", b"x" * 11, bytes(12), bytes(25), bytes(12 + 65555)])
def test_impossible_frames_of_the_back_end(card, data):
    """A back end that gives too little or too much is not believed either."""
    made = card()
    net = made.start()
    net.provide(*[1526] * 60)
    made.backend.far.send(data)
    made.backend.give(body(60))
    assert net.receive().body == body(60)
    assert made.device.stats().rx.invalid == 1


def test_flags_are_for_those_who_know_them(card):
    """DATA_VALID reaches a guest with GUEST_CSUM only; what a driver may not set is not sent on."""
    made = card()
    net = made.start()
    net.provide(1526)
    made.backend.give(body(60), NetHeader(flags=0xFE, num_buffers=77))
    assert net.receive().header == NetHeader(flags=2, num_buffers=1)
    net.send(body(60), NetHeader(flags=0xFE, num_buffers=77))
    assert made.backend.take()[0] == NetHeader()
    made.driver.reset()
    net = made.start(PLAIN)
    net.provide(1526)
    made.backend.give(body(60), NetHeader(flags=0xFE))
    assert net.receive().header == NetHeader(flags=0, num_buffers=1)


@pytest.mark.parametrize(
    ("queue", "segments"),
    [
        (TX, [Segment(0x1000, 11, False)]),
        (TX, [Segment(0x1000, 0, False)]),
        (TX, [Segment(0x1000, 1000, True)]),
        (RX, [Segment(0x1000, 11, True)]),
        (RX, [Segment(0x1000, 1000, False)]),
        (RX, [Segment(0x1000, 1000, False), Segment(0x1000, 4, True), Segment(0x2000, 7, True)]),
    ],
)
def test_chains_without_a_header_ask_for_a_reset(card, queue, segments):
    """Not even a header: the device does what was there before, and asks for a reset; after that it works."""
    made = card()
    net = made.start()
    net.provide(1526)
    net.post(body(60))
    made.driver.queues[queue].add(segments)
    made.driver.kick(queue, always=True)
    made.driver.wait_for_reset_request()
    assert made.backend.take()[1] == body(60)
    made.driver.reset()
    net = made.start()
    net.send(body(61))
    assert made.backend.take()[1] == body(61)


def test_buffers_outside_memory_ask_for_a_reset(card):
    """And nothing is read or written."""
    made = card()
    made.start()
    made.driver.queues[TX].add([Segment(0x1000, 60, False), Segment(1 << 40, 60, False)])
    made.driver.kick(TX)
    made.driver.wait_for_reset_request()
    assert made.device.stats().tx.packets == 0


def test_a_full_back_end_holds_the_driver_back(card):
    """No frame is lost when the far end reads slowly; the chains wait in the ring."""
    made = card(queue_size=64, room=200_000)
    net = made.start(size=64)
    count = 0
    frames = [body(60_000, seed) for seed in range(32)]
    for frame in frames * 10:
        try:
            net.post(frame, TSO)
        except MemoryError:
            break
        count += 1
        for _done in made.driver.queues[TX].completed():
            pass
    settle(made)
    assert made.device.stats().tx.packets < count
    taken = [made.backend.take()[1] for _ in range(count)]
    assert taken == [frames[i % 32] for i in range(count)]
    until(lambda: made.device.stats().tx.packets == count)
    assert made.device.stats().tx.refused == 0


def test_a_pause_while_the_far_end_is_busy(card):
    """A paused device moves nothing and does not spin; what waited goes on afterwards, in both directions."""
    made = card()
    net = made.start()
    net.provide(*[1526] * 10)
    made.backend.give(body(60))
    assert net.receive().body == body(60)
    made.rig.mmio.pause()
    made.backend.give(body(61))
    net.post(body(62))
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1
    assert made.device.stats().rx.packets == 1
    made.rig.mmio.resume()
    assert net.receive().body == body(61)
    assert made.backend.take()[1] == body(62)


def test_a_flood_delays_no_reset(card):
    """While the far end sends as fast as it can, a reset ends in a moment, and frames come again."""
    made = card()
    net = made.start()
    net.provide(*[1526] * 100)
    stop = threading.Event()

    def flood():
        made.backend.far.settimeout(0.1)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                made.backend.far.send(NetHeader().encode() + body(1500))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(5):
            for _ in range(20):
                assert net.receive().body == body(1500)
                net.provide(1526)
            start = time.monotonic()
            made.driver.reset()
            assert time.monotonic() - start < 30
            net = made.start()
            net.provide(*[1526] * 100)
    finally:
        stop.set()
        thread.join()


def test_the_far_end_goes_away(card):
    """The link goes down, the driver is told, and nothing spins; what it sends is counted as dropped."""
    made = card()
    net = made.start()
    net.provide(*[1526] * 4)
    made.backend.far.close()
    until(lambda: not net.link_up)
    assert made.driver.read_config(6, 2) == 0
    net.send(body(60))
    assert made.device.stats().tx.refused == 1
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1
    assert not made.driver.needs_reset


def test_the_cable_can_be_pulled(card):
    """`link_up` is seen by the driver, with an interrupt and a new generation."""
    made = card()
    net = made.start()
    generation = made.driver.read(0xFC)
    made.device.link_up = False
    assert made.driver.line.wait(60)
    assert not net.link_up
    assert made.driver.read(0xFC) == generation + 1


def test_offloads_reach_the_back_end(card):
    """As negotiated, none after a reset, and never more than the specification's dependencies allow."""
    made = card()
    made.start()
    assert made.backend.offload == Offload(15)
    made.driver.reset()
    assert made.backend.offload == Offload(0)
    for bits, expected in (
        (NetFeature.GUEST_CSUM, Offload.CSUM),
        (NetFeature.GUEST_CSUM | NetFeature.GUEST_TSO6, Offload.CSUM | Offload.TSO6),
        (NetFeature.GUEST_TSO4, Offload(0)),
        (NetFeature.GUEST_CSUM | NetFeature.GUEST_ECN, Offload.CSUM),
    ):
        made.start(PLAIN | bits)
        assert made.backend.offload == expected


def test_the_driver_changes_offloads(card):
    """CTRL_GUEST_OFFLOADS: a subset of what was negotiated; anything else is refused and changes nothing."""
    made = card()
    net = made.start()
    tso4 = int(NetFeature.GUEST_CSUM | NetFeature.GUEST_TSO4)
    assert net.set_guest_offloads(tso4) == 0
    assert made.backend.offload == Offload.CSUM | Offload.TSO4
    net.provide(*[1526] * 4)
    made.backend.give(body(100), NetHeader(1, 4, 54, 1460, 34, 16))
    made.backend.give(body(60))
    assert net.receive().body == body(60)
    assert made.device.stats().rx.invalid == 1
    assert net.set_guest_offloads(1 << 14) == 1
    assert net.set_guest_offloads((1 << 64) - 1) == 1
    assert net.command(5, 1, bytes(8)) == net.command(0, 0, b"\1") == net.command(5, 0, bytes(7)) == 1
    assert net.command(5, 0, bytes(9)) == 1
    assert made.backend.offload == Offload.CSUM | Offload.TSO4
    made.driver.reset()
    made.start(PLAIN | NetFeature.CTRL_VQ)
    assert NetDriver(made.driver).set_guest_offloads(0) == 1  # the queue without the command


def test_a_command_without_room_for_the_answer(card):
    """It cannot even be refused: the device asks for a reset."""
    made = card()
    made.start()
    made.driver.queues[CONTROL].request([b"\5\0" + bytes(8)], [])
    made.driver.kick(CONTROL)
    made.driver.wait_for_reset_request()


def test_state_round_trip(card, native, packed):
    """Address, link and offloads go on elsewhere; frames that were in the rings too."""
    made = card()
    net = made.start()
    net.set_guest_offloads(int(NetFeature.GUEST_CSUM))
    net.provide(*[1526] * 3)
    made.rig.mmio.pause()
    net.post(body(60))
    state = made.rig.mmio.state()
    backend = SocketBackend()
    other = VirtioNet("net0", backend, native=native)
    line = LineProbe()
    rings, memory = RingOptions(packed=packed), made.rig.memory
    with VirtioMmio(other, base=0xD000_0000, interrupt=line, memory=memory, rings=rings) as mmio:
        mmio.restore(state)
        mmio.resume()
        assert backend.take()[1] == body(60)
        assert (other.mac, backend.offload) == (MAC, Offload.CSUM)
        backend.give(body(61))
        until(lambda: other.stats().rx.packets == 1)
    backend.far.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mac", b"short"),
        ("mac", b"\1" + bytes(5)),
        ("mac", bytes(6)),
        ("link_up", 2),
        ("guest_offloads", 1 << 9),
        ("guest_offloads", int(Offload.TSO4)),
        ("guest_offloads", int(Offload.CSUM | Offload.ECN)),
    ],
)
def test_impossible_states_are_refused(card, field, value):
    """The field and its value are named, and nothing changed."""
    device = card().device
    with pytest.raises(SavedStateError, match=f"{field}="):
        device.restore(dict(device.state()) | {field: value})
    assert device.mac == MAC


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mac": b"\1\2\3\4\5\6"}, "mac=01:02:03:04:05:06: must be 6 bytes, neither multicast"),
        ({"mac": bytes(6)}, "nor all zero"),
        ({"mac": bytes(5)}, "must be 6 bytes"),
        ({"mtu": 67}, "mtu=67: must be from 68 to 65521"),
        ({"mtu": 65522}, "mtu=65522"),
        ({"queue_size": 3}, "queue_size=3: must be a power of two from 4 to 16384"),
        ({"queue_size": 32768}, "queue_size=32768"),
    ],
)
def test_arguments_are_checked(options, message):
    """The value and the limit are named; the back end stays the caller's."""
    backend = SocketBackend()
    with pytest.raises(ValueError, match=message):
        VirtioNet("net0", backend, **options)
    os.fstat(backend.fd)
    backend.close()
    backend.far.close()


def test_random_addresses():
    """Unicast, locally administered, and not twice the same."""
    made = {random_mac() for _ in range(100)}
    assert len(made) == 100
    assert all(len(mac) == 6 and mac[0] & 3 == 2 for mac in made)


frames = st.tuples(
    st.sampled_from([0, 13, 14, 60, 1514, 2036, 2037, 9000, 65554, 65555]),
    st.sampled_from(
        [NetHeader(), NetHeader(1, 0, 0, 0, 34, 16), TSO, NetHeader(1, 4), NetHeader(9, 7), NetHeader(2)]
    ),
)
steps = st.one_of(
    st.tuples(st.just("give"), frames),
    st.tuples(st.just("send"), frames),
    st.tuples(
        st.just("provide"), st.lists(st.sampled_from([12, 100, 1526, 4096, 70_000]), min_size=1, max_size=8)
    ),
)
feature_sets = st.sampled_from([None, PLAIN, PLAIN | NetFeature.MRG_RXBUF, PLAIN | HOST_BITS | GUEST_BITS])


def allowed(header, size, csum, tso4, tso6):
    """The model's view of a header and a length: VIRTIO 1.2 section 5.1.6, with no ECN in the strategies."""
    known = {0: True, 1: tso4, 4: tso6}
    return 14 <= size <= 65554 and known.get(header.gso_type, False) and (csum or not header.flags & 1)


class Model:
    """What a card does with frames, thought of as two lists: buffers and frames that wait."""

    def __init__(self, features, ring):
        self.csum = bool(features & NetFeature.GUEST_CSUM)
        self.tso4 = self.csum and bool(features & NetFeature.GUEST_TSO4)
        self.tso6 = self.csum and bool(features & NetFeature.GUEST_TSO6)
        self.merge = bool(features & NetFeature.MRG_RXBUF)
        self.ring, self.buffers, self.waiting, self.received = ring, [], [], []

    def give(self, size, header, data):
        if allowed(header, size, self.csum, self.tso4, self.tso6):
            self.waiting.append((size, header.flags & 3 if self.csum else 0, data))
        else:
            self.waiting.append(None)
        self.work()

    def work(self):
        while self.waiting and self.buffers:
            frame = self.waiting[0]
            if frame is None:
                self.waiting.pop(0)
                continue
            size, flags, data = frame
            need, count = size + 12, 0
            limit = len(self.buffers) if self.merge else 1
            while count < limit and need > 0:
                need -= self.buffers[count]
                count += 1
            if need > 0 and self.merge and len(self.buffers) < self.ring:
                return  # it waits
            self.waiting.pop(0)
            if need <= 0:
                del self.buffers[:count]
                self.received.append((flags, count, data))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(script=st.lists(steps, max_size=20), features=feature_sets, size=st.sampled_from([4, 16]))
@example(
    script=[
        ("provide", [1526] * 4),
        ("give", (65554, TSO)),
        ("provide", [70_000]),
        ("give", (60, NetHeader())),
    ],
    features=None,
    size=16,
)
def test_random_scripts_against_a_model(script, features, size, card):
    """What arrives, in what buffers, with what flags, is what a model of two lists says."""
    made = card(queue_size=16)
    net = made.start(features, size=size)
    negotiated = made.driver.features
    model, sent = Model(negotiated, size), []
    csum, tso4, tso6 = (
        bool(negotiated & bit) for bit in (NetFeature.CSUM, NetFeature.HOST_TSO4, NetFeature.HOST_TSO6)
    )
    for number, (kind, argument) in enumerate(script):
        if kind == "provide":
            given_now = argument[: size - len(model.buffers)]
            if given_now:
                net.provide(*given_now)
                model.buffers += given_now
                model.work()
        else:
            length, header = argument
            data = body(length, number)
            if kind == "give":
                made.backend.give(data, header)
                model.give(length, header, data)
            else:
                net.send(data, header)
                if allowed(header, length, csum, tso4, tso6 and csum):
                    sent.append((header.flags & 1, data))
        while model.received:
            flags, count, data = model.received.pop(0)
            received = net.receive()
            assert (received.header.flags, received.header.num_buffers) == (flags, count)
            assert received.body == data
    for flags, data in sent:
        header, taken = made.backend.take()
        assert (header.flags, taken) == (flags, data)
    made.rig.mmio.close()
    made.backend.far.close()
