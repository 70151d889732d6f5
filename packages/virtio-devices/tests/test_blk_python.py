"""The two data paths are the same device: equal on every batch that Hypothesis can think of."""

import struct
import tempfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from virtio_devices import RequestError
from virtio_devices._blk_disk import BlkReport, DiskFlag, DiskView
from virtio_devices._blk_python import PythonDataPath
from virtio_devices._ffi import NativeDataPath
from virtio_queue import ChainBatch, DescriptorChain, Segment
from vmm_memory import FileOffset, GuestMemoryMmap, GuestRegionMmap
from vmm_memory.testing import ByteArrayMemory, guarded_region

SECTOR = 512
DISK = 24 * SECTOR
RAM = 0x8000  # two regions of half of it, then a hole, then one read-only page
ROM = 0x10_0000
FILL = bytes(i * 11 + (i >> 8) & 0xFF for i in range(RAM))
ALL = DiskFlag.FLUSH | DiskFlag.DISCARD | DiskFlag.WRITE_ZEROES

addresses = st.one_of(
    st.integers(0, RAM - 1),
    st.sampled_from([RAM // 2 - 8, RAM - 256, RAM, ROM, ROM + 0xFFF, (1 << 64) - 1, (1 << 64) - 512]),
)
lengths = st.one_of(st.sampled_from([0, 1, 15, 16, 512, 513, 1024, 4096]), st.integers(0, 0x5000))
segments = st.lists(st.tuples(addresses, lengths, st.booleans()), max_size=5).map(
    lambda s: sorted(s, key=lambda x: x[2])
)
ranges = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 20, 23, 24, 25, (1 << 64) - 1]),
        st.integers(0, 6),
        st.sampled_from([0, 0, 1, 2]),
    ),
    max_size=18,
).map(lambda items: b"".join(struct.pack("<QII", *item) for item in items))
headers = st.tuples(
    st.sampled_from([0, 0, 1, 1, 4, 8, 11, 13, 2, 99]),
    st.sampled_from([0, 1, 5, 20, 23, 24, 25, 1 << 55, (1 << 64) - 1]),
)


@st.composite
def chains(draw):
    """A request: mostly well-formed at a random place and cut, sometimes anything at all."""
    if draw(st.integers(0, 4)) == 0:
        return (), draw(segments)
    kind, sector = draw(headers)
    payload = draw(ranges) if kind in (11, 13) else b"p" * draw(st.sampled_from([0, 0, 512, 1024, 100]))
    out = struct.pack("<IIQ", kind, 0, sector) + (
        payload if kind in (1, 11, 13) or draw(st.booleans()) else b""
    )
    place = draw(st.integers(0, RAM - len(out) - 1))
    cut = draw(st.integers(1, len(out)))
    room = draw(st.sampled_from([0, 20, 100, 512, 1024, 3 * 512])) + 1
    target = draw(addresses)
    split = draw(st.integers(0, room))
    parts = [(place, cut, False), (place + cut, len(out) - cut, False), (target, split, True)]
    parts.append((draw(st.integers(0, RAM - 2048)), room - split, True))
    return ((place, out),), parts


class World:
    """Memory and disk in a known state."""

    def __init__(self, path, flags, serial, file_size):
        self.memory = GuestMemoryMmap([guarded_region(0, RAM // 2), guarded_region(RAM // 2, RAM // 2)])
        with tempfile.TemporaryFile() as rom:
            rom.truncate(0x1000)
            page = GuestRegionMmap.from_file(ROM, 0x1000, FileOffset(rom.fileno(), 0), read_only=True)
        self.memory = self.memory.insert_region(page)
        self.memory.write(0, FILL)
        path.write_bytes(bytes(i >> 4 & 0xFF for i in range(file_size)))
        self.file = path.open("r+b", buffering=0)
        self.path = path
        self.view = DiskView("d", self.file.fileno(), DISK // SECTOR, flags, serial)
        self.report = BlkReport()

    def close(self):
        """Give the image back."""
        self.file.close()

    def result(self, outcomes):
        """Everything anybody could see afterwards."""
        self.close()
        return outcomes, self.memory.read(0, RAM), self.path.read_bytes(), self.report


def run_native(world, script):
    """The whole script as one batch."""
    path = NativeDataPath(world.view, world.report)
    batch = ChainBatch(32, 1024)
    for head, (writes, parts) in enumerate(script):
        for address, data in writes:
            world.memory.write(address, data)
        batch.append(head, parts)
    sound = path.run(world.memory, batch)
    outcomes = [None if error else written for _f, _n, _h, written, error, *_ in batch.records()]
    assert sound == (None not in outcomes)
    return world.result(outcomes)


def run_python(world, script):
    """The same, one chain at a time."""
    path = PythonDataPath(world.view, world.report)
    for writes, _parts in script:
        for address, data in writes:
            world.memory.write(address, data)
    outcomes = []
    for head, (_writes, parts) in enumerate(script):
        chain = DescriptorChain(head, tuple(Segment(*part) for part in parts), world.memory)
        try:
            outcomes.append(path.run(world.memory, chain))
        except RequestError:
            outcomes.append(None)
    return world.result(outcomes)


@settings(deadline=None)
@given(
    script=st.lists(chains(), min_size=1, max_size=6),
    flags=st.sampled_from(
        [ALL, ALL | DiskFlag.WRITE_THROUGH, DiskFlag.READ_ONLY | DiskFlag.FLUSH, DiskFlag(0)]
    ),
    serial=st.sampled_from([None, b"serial", b"x" * 20]),
    file_size=st.sampled_from([DISK, DISK, 5 * SECTOR + 17]),
)
@example(
    script=[
        (
            ((0, struct.pack("<IIQ", 0, 0, 4)),),
            [(0, 16, False), (RAM // 2 - 600, 1024, True), (0x100, 1, True)],
        )
    ],
    flags=ALL,
    serial=None,
    file_size=5 * SECTOR + 17,
)
@example(
    script=[(((0, bytes(16)),), [(0, 1, False), (1, 15, False), (RAM, 1, True), (0, 20, True)])],
    flags=ALL,
    serial=None,
    file_size=DISK,
)
def test_both_paths_agree(script, flags, serial, file_size, tmp_path_factory):
    """Used lengths, guest memory, the image and the report are equal after any batch."""
    base = tmp_path_factory.getbasetemp()
    native = run_native(World(base / "n.img", flags, serial, file_size), script)
    python = run_python(World(base / "p.img", flags, serial, file_size), script)
    assert native == python


def test_more_fragments_than_one_system_call_takes(tmp_path):
    """A buffer over more regions than an I/O vector holds is moved in windows, in both paths."""
    pages = [GuestRegionMmap.anonymous(i * 4096, 4096) for i in range(300)]
    memory = GuestMemoryMmap(pages)
    content = bytes(i * 5 & 0xFF for i in range(280 * 4096))
    path = tmp_path / "d.img"
    path.write_bytes(content)
    with path.open("r+b") as file:
        view = DiskView("d", file.fileno(), len(content) // SECTOR, ALL)
        memory.write(0, struct.pack("<IIQ", 0, 0, 0))
        batch = ChainBatch(1, 16)
        batch.append(0, [(0, 16, False), (4096, 100, True), (4196, len(content) - 100, True), (16, 1, True)])
        assert NativeDataPath(view, BlkReport()).run(memory, batch)
        assert batch.records()[0][3] == len(content) + 1
        assert memory.read(4096, len(content)) == content
        memory.write(4096, bytes(len(content)))
        written = PythonDataPath(view, BlkReport()).run(memory, batch.chain(0, memory))
    assert written == len(content) + 1
    assert memory.read(4096, len(content)) == content


def test_the_python_path_needs_no_c_memory(tmp_path):
    """Any GuestMemory will do: here a bytearray."""
    memory = ByteArrayMemory([(0, 0x4000)])
    path = tmp_path / "d.img"
    path.write_bytes(b"a" * 1024)
    memory.write(0, struct.pack("<IIQ", 0, 0, 1))
    with path.open("r+b") as file:
        view = DiskView("d", file.fileno(), 2, ALL)
        chain = DescriptorChain(0, (Segment(0, 16, False), Segment(0x1000, 513, True)), memory)
        assert PythonDataPath(view, BlkReport()).run(memory, chain) == 513
    assert memory.read(0x1000, 513) == b"a" * 512 + b"\0"


def test_dirty_pages_are_marked_by_both_paths(tmp_path):
    """What a read delivers, and the status, are in the dirty bitmap, and nothing else is."""
    path = tmp_path / "d.img"
    path.write_bytes(b"a" * 4096)
    dirty = []
    for native in (True, False):
        region = GuestRegionMmap.memfd(0, 0x10000, dirty=True)
        memory = GuestMemoryMmap([region])
        memory.write(0, struct.pack("<IIQ", 0, 0, 0))
        region.bitmap.reset()
        with path.open("r+b") as file:
            view = DiskView("d", file.fileno(), 8, ALL)
            batch = ChainBatch(1, 16)
            batch.append(0, [(0, 16, False), (0x3000 - 256, 512, True), (0x8000, 1, True)])
            if native:
                NativeDataPath(view, BlkReport()).run(memory, batch)
            else:
                PythonDataPath(view, BlkReport()).run(memory, batch.chain(0, memory))
        dirty.append([page for page in range(16) if region.bitmap.is_bit_set(page)])
    assert dirty == [[2, 3, 8], [2, 3, 8]]


def test_a_request_that_cannot_be_answered_names_the_chain(tmp_path):
    """The Python path blames the driver with the chain's head."""
    path = tmp_path / "d.img"
    path.write_bytes(bytes(512))
    memory = ByteArrayMemory([(0, 0x1000)])
    with path.open("r+b") as file:
        run = PythonDataPath(DiskView("disk7", file.fileno(), 1, ALL), BlkReport()).run
        with pytest.raises(
            RequestError, match="disk7: request head=5: no place for the status in 0 writable bytes"
        ) as caught:
            run(memory, DescriptorChain(5, (Segment(0, 16, False),), memory))
    assert (caught.value.device, caught.value.head) == ("disk7", 5)
