"""The two data paths of the network card are the same card: equal on every batch Hypothesis can think of."""

import errno
import itertools
import struct
import tempfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from virtio_devices import NetCounters
from virtio_devices._ffi import NativePort
from virtio_devices._net_port import PortFlag, Stop
from virtio_devices._net_python import PythonReceiver, PythonTransmitter
from virtio_devices.testing import NetHeader, SocketBackend
from virtio_queue import ChainBatch
from vmm_memory import FileOffset, GuestMemoryMmap, GuestRegionMmap
from vmm_memory.testing import guarded_region

RAM = 0x4_0000  # two regions of half of it, then a hole, then one read-only page
ROM = 0x10_0000
FILL = bytes(i * 11 + (i >> 8) & 0xFF for i in range(RAM))
OFFLOADS = PortFlag.CSUM | PortFlag.TSO4 | PortFlag.TSO6 | PortFlag.ECN

flag_sets = st.sampled_from([PortFlag(0), PortFlag.MRG, OFFLOADS, OFFLOADS | PortFlag.MRG, PortFlag.CSUM])
places = st.one_of(
    st.integers(0, RAM - 1), st.sampled_from([RAM // 2 - 8, RAM // 2 - 12, RAM - 300, ROM, (1 << 64) - 9])
)
lengths = st.one_of(st.sampled_from([0, 1, 11, 12, 13, 26, 512, 1526, 4096, 66_000]), st.integers(0, 0x3000))
headers = st.builds(
    NetHeader,
    flags=st.sampled_from([0, 1, 2, 3, 0xFF]),
    gso_type=st.sampled_from([0, 0, 1, 4, 0x81, 0x84, 3, 5, 0x80]),
    gso_size=st.sampled_from([0, 1460]),
    num_buffers=st.sampled_from([0, 7]),
)
bodies = st.one_of(st.sampled_from([0, 13, 14, 60, 1514, 2036, 2049, 65554, 65555]), st.integers(0, 5000))


@st.composite
def receive_chains(draw):
    """Mostly buffers that can take a frame."""
    if draw(st.integers(0, 5)) == 0:
        parts = draw(st.lists(st.tuples(places, lengths, st.booleans()), max_size=4))
        return sorted(parts, key=lambda part: part[2])
    sizes = draw(st.lists(st.sampled_from([1, 5, 12, 60, 1526, 4096, 30_000]), min_size=1, max_size=4))
    start = draw(st.integers(0, RAM - sum(sizes)))
    parts = []
    for size in sizes:
        parts.append((start, size, True))
        start += size
    return parts


@st.composite
def transmit_chains(draw):
    """What is written where, and the chain over it: mostly a frame, cut somewhere."""
    if draw(st.integers(0, 5)) == 0:
        parts = draw(st.lists(st.tuples(places, lengths, st.booleans()), max_size=4))
        return (), sorted(parts, key=lambda part: part[2])
    data = draw(headers).encode() + bytes(i * 3 & 0xFF for i in range(draw(bodies)))
    place = draw(st.integers(0, RAM - len(data)))
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=4))})
    parts = [(place + a, b - a, False) for a, b in itertools.pairwise(cuts)]
    return ((place, data),), parts


class World:
    """Memory in a known state, one end of a pair of sockets, and a batch."""

    def __init__(self, native, direction, flags, room=1 << 20):
        self.memory = GuestMemoryMmap([guarded_region(0, RAM // 2), guarded_region(RAM // 2, RAM // 2)])
        with tempfile.TemporaryFile() as rom:
            rom.truncate(0x1000)
            page = GuestRegionMmap.from_file(ROM, 0x1000, FileOffset(rom.fileno(), 0), read_only=True)
        self.memory = self.memory.insert_region(page)
        self.memory.write(0, FILL)
        self.backend = SocketBackend(room=room)
        self.backend.far.setblocking(False)
        self.counters = NetCounters()
        self.batch = ChainBatch(64, 1024)
        if native:
            self.port = NativePort("n", direction, self.backend.fd, self.counters, capture=None, flags=flags)
        else:
            kind = PythonReceiver if direction == "receive" else PythonTransmitter
            self.port = kind(self.backend.fd, self.counters, capture=None, flags=flags)

    def fill(self, chains):
        """Put chains into the batch."""
        self.batch.clear()
        for head, parts in enumerate(chains):
            self.batch.append(head, parts)

    def run(self):
        """One turn; what anybody could see of it."""
        turn = self.port.run(self.memory, self.batch)
        written = [record[3] for record in self.batch.records()[: turn.used]]
        broken = None if turn.broken is None else (turn.broken.reason, turn.broken.head)
        return turn.used, turn.stop, broken, turn.error, written

    def delivered(self, chains, written):
        """Content of what the driver would look at."""
        found = []
        for parts, size in zip(chains, written, strict=False):
            data = b""
            for addr, length, writable in parts:
                if writable and len(data) < size:
                    data += self.memory.read(addr, min(length, size - len(data)))
            found.append(data)
        return found

    def close(self):
        """Give the sockets back."""
        self.backend.close()
        self.backend.far.close()


def receive(native, chains, frames, flags):
    """All that is visible after several turns, the chains in use taken out in between as a ring would."""
    world, seen, rest = World(native, "receive", flags), [], list(chains)
    for header, size in frames:
        world.backend.far.send(header.encode() + bytes(i * 5 & 0xFF for i in range(size)))
    for _ in range(3):
        world.fill(rest)
        outcome = world.run()
        seen.append((outcome, world.port.pending, world.delivered(rest, outcome[4])))
        rest = rest[outcome[0] :]
    world.close()
    return seen, world.counters


def overlaps(chains):
    """Whether buffers lie over each other: then what a driver finds there depends on the order of writes."""
    spans = sorted(
        (addr, addr + size) for parts in chains for addr, size, writable in parts if writable and size
    )
    return any(a[1] > b[0] for a, b in itertools.pairwise(spans))


@settings(deadline=None)
@given(
    chains=st.lists(receive_chains(), max_size=8),
    frames=st.lists(st.tuples(headers, bodies), max_size=6),
    flags=flag_sets,
)
@example(
    chains=[[(0, 1526, True)]] * 3,
    frames=[(NetHeader(1, 1), 4000), (NetHeader(), 60)],
    flags=OFFLOADS | PortFlag.MRG,
)
@example(chains=[[(RAM // 2 - 6, 12, True), (0, 100, True)]], frames=[(NetHeader(), 100)], flags=PortFlag(0))
@example(chains=[[(ROM, 100, True)]], frames=[(NetHeader(), 60)], flags=PortFlag(0))
def test_both_paths_agree(chains, frames, flags):
    """Used chains, reasons to stop, blame, lengths, frames and counters are equal in both directions."""
    native, python = receive(True, chains, frames, flags), receive(False, chains, frames, flags)
    if overlaps(chains):  # all but the content
        for seen, _counters in (native, python):
            seen[:] = [(outcome, pending) for outcome, pending, _content in seen]
    assert native == python


def transmit(native, script, flags):
    """All that is visible after one turn."""
    world = World(native, "transmit", flags)
    for writes, _parts in script:
        for place, data in writes:
            world.memory.write(place, data)
    world.fill([parts for _writes, parts in script])
    outcome = world.run()
    frames = []
    while True:
        try:
            frames.append(world.backend.far.recv(1 << 17))
        except BlockingIOError:
            break
    untouched = world.memory.read(0, RAM)
    world.close()
    return outcome, frames, untouched, world.counters


@settings(deadline=None)
@given(script=st.lists(transmit_chains(), max_size=6), flags=flag_sets)
@example(script=[(((0, bytes(200)),), [(i, 1, False) for i in range(200)])], flags=PortFlag(0))
@example(script=[((), [(0, 11, False), ((1 << 64) - 9, 1, False)])], flags=PortFlag(0))
@example(script=[((), [(0, 12, False), ((1 << 64) - 9, 99, False)])], flags=OFFLOADS)
def test_both_paths_send_the_same(script, flags):
    """Frames as they leave, counters, blame; guest memory is only read."""
    assert transmit(True, script, flags) == transmit(False, script, flags)


@pytest.mark.parametrize("native", [True, False])
def test_a_busy_far_end_stops_the_turn(native):
    """What was not taken is left, to the byte."""
    world = World(native, "transmit", OFFLOADS, room=100_000)
    world.memory.write(0, NetHeader().encode())
    world.fill([[(0, 60_000, False)]] * 20)
    used, stop, broken, _error, _written = world.run()
    assert 0 < used < 20
    assert (stop, broken) == (Stop.BLOCKED, None)
    assert world.counters == NetCounters(packets=used, bytes=used * 59_988)
    world.close()


@pytest.mark.parametrize("native", [True, False])
def test_a_turn_is_bounded(native):
    """Frames that are all dropped do not keep a turn going for ever."""
    world = World(native, "receive", PortFlag(0))
    for _ in range(100):
        world.backend.far.send(b"x")
    world.fill([[(0, 1526, True)]])
    assert world.run()[:2] == (0, Stop.MORE)
    assert world.counters.invalid == 64
    assert world.run()[:2] == (0, Stop.BLOCKED)
    assert world.counters.invalid == 100
    world.close()


@pytest.mark.parametrize("native", [True, False])
def test_dirty_pages_are_marked(native):
    """Header, what readv put in place, and what was copied behind it."""
    region = GuestRegionMmap.memfd(0, 0x4_0000, dirty=True)
    memory = GuestMemoryMmap([region])
    world = World(native, "receive", OFFLOADS | PortFlag.MRG)
    world.memory = memory
    world.backend.give(bytes(9000), NetHeader(1, 1))
    world.fill([[(page << 12, 2048, True)] for page in (3, 5, 7, 9, 11, 13)])
    assert world.run()[0] == 5
    dirty = [page for page in range(64) if region.bitmap.is_bit_set(page)]
    assert dirty == [3, 5, 7, 9, 11]
    world.close()


def test_dirty_pages_of_a_read_that_failed_half_way():
    """RAM whose file was cut short: the kernel fills what there is of it before it fails."""
    with tempfile.TemporaryFile() as ram:
        ram.truncate(0x4000)
        region = GuestRegionMmap.from_file(0, 0x4000, FileOffset(ram.fileno(), 0), dirty=True)
        ram.truncate(0x2000)
    backend, batch = SocketBackend(), ChainBatch(1, 1)
    port = NativePort("n", "receive", backend.fd, NetCounters(), capture=None, flags=PortFlag(0))
    memory = GuestMemoryMmap([region])
    batch.append(0, [(0x1000, 0x3000, True)])
    backend.give(b"\xaa" * 6000)
    turn = port.run(memory, batch)
    assert (turn.stop, turn.error) == (Stop.CLOSED, errno.EFAULT)
    assert memory.read(0x1100, 4) == b"\xaa" * 4
    assert region.bitmap.is_bit_set(1)
    backend.close()
    backend.far.close()


def test_the_core_refuses_other_versions():
    """A structure of another layout is found before anything is done."""
    from virtio_devices import CoreError

    world = World(True, "receive", PortFlag(0))
    world.port._port.abi += 1
    with pytest.raises(CoreError, match="n: batch of 0 frames: core returned -71"):
        world.run()
    world.port._port.abi -= 1
    world.port._port.pending = 1 << 20
    with pytest.raises(CoreError, match="core returned -22"):
        world.run()
    world.close()


def test_header_is_twelve_bytes():
    """VIRTIO 1.2 section 5.1.6: the fields stand where the specification puts them."""
    data = NetHeader(1, 4, 54, 1460, 34, 16, 3).encode()
    assert data == struct.pack("<BB5H", 1, 4, 54, 1460, 34, 16, 3)
    assert NetHeader.decode(data + b"rest") == NetHeader(1, 4, 54, 1460, 34, 16, 3)
