"""virtio-blk through its transport, with both data paths: what a guest sees, and real host errors."""

import fcntl
import os
import resource
import struct
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from virtio_devices import BlkFeature, DiskImage, Feature, RingOptions, SavedStateError, VirtioBlk, VirtioMmio
from virtio_devices.testing import BlkDriver, LineProbe, MmioDriver
from virtio_queue import Segment
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

OK, IOERR, UNSUPP = 0, 1, 2
SECTOR = 512


def test_config_space_layout(disk):
    """The fields stand where VIRTIO 1.2 section 5.2.4 puts them."""
    rig = disk(size=100 * SECTOR, queue_size=128)
    rig.blk()
    field = rig.driver.read_config
    assert (field(0, 8), field(8, 4), field(12, 4)) == (100, 0, 126)  # capacity, size_max, seg_max
    assert field(20, 4) == 512  # blk_size
    block = rig.device._image.block_size // 512
    assert (field(24, 1), field(25, 1), field(26, 2), field(28, 4)) == (block.bit_length() - 1, 0, block, 0)
    assert (field(32, 1), field(34, 2)) == (1, 0)  # writeback, num_queues
    assert (field(36, 4), field(40, 4), field(44, 4)) == (1 << 22, 16, block)  # discard
    assert (field(48, 4), field(52, 4), field(56, 1)) == (1 << 17, 16, 1)  # write zeroes
    assert field(60, 4) == field(72, 4) == 0  # no secure erase, nothing beyond


def test_features_of_writable_and_read_only_disks(disk, image):
    """Cache control and discard belong to writable disks, RO to the others; the rest is common."""
    common = BlkFeature.SEG_MAX | BlkFeature.BLK_SIZE | BlkFeature.FLUSH | BlkFeature.TOPOLOGY
    writable = disk(path=image(name="w")[0]).device.features
    read_only = disk(path=image(name="r")[0], read_only=True).device.features
    assert writable == common | BlkFeature.CONFIG_WCE | BlkFeature.DISCARD | BlkFeature.WRITE_ZEROES
    assert read_only == common | BlkFeature.RO


@pytest.mark.parametrize("cut", [None, 1, 7, 16, 100, 512])
@pytest.mark.parametrize("indirect", [False, True])
def test_any_framing_reads_and_writes(disk, image, cut, indirect):
    """Header, data and status may be cut anywhere (section 2.7.4.1), in direct and indirect descriptors."""
    path, content = image()
    rig = disk(path=path, queue_size=1024)
    blk = rig.blk()
    fresh = os.urandom(SECTOR)
    assert blk.request(0, 3, size=SECTOR, cut=cut, indirect=indirect) == (
        OK,
        content[3 * SECTOR : 4 * SECTOR],
    )
    assert blk.request(1, 4, fresh, cut=cut, indirect=indirect) == (OK, b"")
    assert path.read_bytes() == content[: 4 * SECTOR] + fresh + content[5 * SECTOR :]


def test_large_transfers_cross_regions(disk, image):
    """More buffers than one system call takes, across the seam of two regions, come back as they were."""
    path, _content = image(size=1 << 19)
    rig = disk(path=path, queue_size=1024)
    blk = rig.blk()
    data = os.urandom(300 * SECTOR)
    assert blk.request(1, 8, data, cut=512)[0] == OK
    assert blk.request(0, 8, size=len(data), cut=512) == (OK, data)
    assert rig.device.stats().read_bytes == rig.device.stats().written_bytes == len(data)


@pytest.mark.parametrize(
    ("kind", "sector", "data", "size", "status"),
    [
        (0, 63, b"", 512, OK),
        (0, 64, b"", 0, OK),
        (0, 64, b"", 512, IOERR),
        (0, 63, b"", 1024, IOERR),
        (0, 65, b"", 0, IOERR),
        (0, 1 << 55, b"", 512, IOERR),
        (0, (1 << 64) - 1, b"", 512, IOERR),
        (0, 0, b"", 511, IOERR),
        (0, 0, b"x" * 512, 512, IOERR),
        (1, 63, b"x" * 512, 0, OK),
        (1, 64, b"x" * 512, 0, IOERR),
        (1, 0, b"x" * 100, 0, IOERR),
        (1, 0, b"x" * 512, 16, IOERR),
        (1, (1 << 64) - 1, b"x" * 512, 0, IOERR),
        (4, 0, b"", 0, OK),
        (4, 0, b"", 512, IOERR),
        (8, 0, b"", 20, OK),
        (8, 0, b"", 19, IOERR),
        (8, 0, b"x", 20, IOERR),
        (2, 0, b"", 0, UNSUPP),
        (5, 0, b"x" * 512, 512, UNSUPP),
        (0xFFFF_FFFF, 0, b"", 0, UNSUPP),
        (11, 0, b"", 0, IOERR),
        (11, 0, b"x" * 15, 0, IOERR),
        (11, 0, struct.pack("<QII", 0, 8, 0), 0, OK),
        (11, 0, struct.pack("<QII", 0, 8, 1), 0, UNSUPP),
        (11, 0, struct.pack("<QII", 60, 5, 0), 0, IOERR),
        (11, 0, struct.pack("<QII", 0, 8, 0) * 17, 0, IOERR),
        (13, 0, struct.pack("<QII", 0, 8, 0), 0, OK),
        (13, 0, struct.pack("<QII", 0, 8, 1), 0, OK),
        (13, 0, struct.pack("<QII", 0, 8, 2), 0, UNSUPP),
        (13, 0, struct.pack("<QII", 64, 0, 0), 0, OK),
        (13, 0, struct.pack("<QII", (1 << 64) - 1, 2, 0), 0, IOERR),
        (13, 0, struct.pack("<QII", 0, 0xFFFF_FFFF, 0), 0, IOERR),
    ],
)
def test_request_rules(disk, kind, sector, data, size, status):
    """Each rule of section 5.2.6 gives its status, and the device goes on."""
    blk = disk(serial="serial").blk()
    answer, payload = blk.request(kind, sector, data, size)
    assert (answer, len(payload)) == (status, size)
    assert blk.read(0, 1)[0] == OK


def test_a_bad_range_leaves_the_others_undone(disk, image):
    """All segments of a request are checked before the first one is carried out."""
    path, content = image()
    blk = disk(path=path).blk()
    assert blk.write_zeroes((0, 8, 0), (60, 8, 0)) == IOERR
    assert path.read_bytes() == content


def test_discard_and_write_zeroes(disk, image):
    """Zeroed ranges read as zeros with and without unmapping; the image keeps its size."""
    path, content = image(size=256 * SECTOR)
    blk = disk(path=path).blk()
    assert blk.write_zeroes((8, 8, 0), (24, 8, 1)) == OK
    assert blk.discard((64, 64, 0)) == OK
    now = path.read_bytes()
    assert len(now) == len(content)
    assert now[: 8 * SECTOR] == content[: 8 * SECTOR]
    assert now[8 * SECTOR : 16 * SECTOR] == now[24 * SECTOR : 32 * SECTOR] == bytes(8 * SECTOR)


def test_read_only_disks(disk, image):
    """Everything that would change the disk is an I/O error; reading, flushing and GET_ID work."""
    path, content = image()
    blk = disk(path=path, read_only=True, serial="ro").blk()
    assert blk.write(0, bytes(SECTOR)) == blk.discard((0, 1, 0)) == blk.write_zeroes((0, 1, 0)) == IOERR
    assert blk.read(0, 1) == (OK, content[:SECTOR])
    assert blk.get_id() == (OK, b"ro".ljust(20, b"\0"))
    assert blk.flush() == OK
    assert path.read_bytes() == content


def test_serial(disk, image):
    """Twenty characters fill the field without a NUL; without a serial GET_ID is not supported."""
    assert disk(path=image(name="a")[0], serial="x" * 20).blk().get_id() == (OK, b"x" * 20)
    assert disk(path=image(name="b")[0]).blk().get_id()[0] == UNSUPP


@pytest.mark.parametrize("serial", ["", "x" * 21, "Größe"])
def test_an_impossible_serial_is_refused(image, serial):
    """A serial is not clipped: the message names it and the limit."""
    with (
        DiskImage(image()[0]) as disk,
        pytest.raises(ValueError, match=f"serial='{serial}': must be 1 to 20 ASCII"),
    ):
        VirtioBlk("disk0", disk, serial=serial)


@pytest.mark.parametrize("queue_size", [0, 2, 3, 65536])
def test_an_impossible_queue_size_is_refused(image, queue_size):
    """A request needs a header, data and a status: the queue has at least 4 entries."""
    with DiskImage(image()[0]) as disk, pytest.raises(ValueError, match=f"queue_size={queue_size}"):
        VirtioBlk("disk0", disk, queue_size=queue_size)


def test_requests_without_their_feature(disk):
    """What was not negotiated is not supported."""
    blk = disk().blk(features=0)
    assert blk.flush() == blk.discard((0, 1, 0)) == blk.write_zeroes((0, 1, 0)) == UNSUPP


def test_cache_mode(disk):
    """Write-through without FLUSH or with the cache switched off by the driver; write-back otherwise."""
    rig = disk()

    def through():
        path = rig.device._native_path or rig.device._python_path
        return bool(path.disk.flags & 16)

    rig.blk(features=0)
    assert through()
    assert rig.blk(features=BlkFeature.FLUSH).write(0, bytes(SECTOR)) == OK
    assert not through()
    blk = rig.blk()
    assert not through()
    rig.driver.write_config(32, 1, 0)
    assert through()
    assert blk.write(0, bytes(SECTOR)) == blk.write_zeroes((0, 1, 0)) == OK
    rig.driver.write_config(32, 1, 7)
    assert rig.driver.read_config(32, 1) == 0
    rig.driver.reset()
    assert rig.driver.read_config(32, 1) == 1


def test_many_requests_in_one_kick(disk, image):
    """A burst that takes several batches is answered in full, each request once."""
    path, content = image()
    rig = disk(path=path)
    rig.blk(size=256)
    queue = rig.driver.queues[0]
    header = [struct.pack("<IIQ", 0, 0, i % 64) for i in range(80)]
    heads = {queue.request([one], [SECTOR, 1]): i % 64 for i, one in enumerate(header)}
    rig.driver.kick()
    done = rig.driver.wait(count=80)
    assert {c.head for c in done} == set(heads)
    for completion in done:
        at = heads[completion.head] * SECTOR
        assert completion.data == (content[at : at + SECTOR], b"\0")


def test_a_truncated_image_gives_io_errors(disk, image, caplog):
    """Reads beyond the new end of the file fail with what could be read, and the log says so."""
    path, content = image()
    rig = disk(path=path)
    blk = rig.blk()
    os.truncate(path, 8 * SECTOR + 100)
    status, data = blk.read(8, 2)
    assert status == IOERR
    assert data == content[8 * SECTOR : 8 * SECTOR + 100] + bytes(2 * SECTOR - 100)
    assert blk.read(0, 8) == (OK, content[: 8 * SECTOR])
    assert rig.device.stats().host_errors == 1
    assert f"{path}: I/O error, request type 0 at byte {8 * SECTOR:#x}: EIO" in caplog.text


@pytest.fixture
def tiny_tmpfs(tmp_path):
    """A mounted tmpfs of 64 KiB; without the right to mount, the test is skipped."""
    where = tmp_path / "tiny"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", where], check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield where
    subprocess.run(["umount", "-l", where], check=True)


def test_a_full_host_gives_io_errors(disk, tiny_tmpfs):
    """ENOSPC of the host is an I/O error of the request, for writes and for zeroes written out."""
    path = tiny_tmpfs / "disk.img"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    rig = disk(path=path)
    blk = rig.blk()
    statuses = [blk.write(i * 32, b"x" * 16384) for i in range(8)]
    assert statuses[0] == OK
    assert statuses[-1] == IOERR
    assert blk.write_zeroes((1024, 1000, 0)) == IOERR  # tmpfs cannot zero a range: the slow way is full, too
    assert blk.discard((0, 2048, 0)) == OK
    assert blk.write(0, b"y" * SECTOR) == OK
    assert rig.device.stats().host_errors >= 2


def test_the_file_size_limit_gives_io_errors(disk, image):
    """EFBIG (RLIMIT_FSIZE) cuts a write short, then fails it: the rest of the request is an I/O error."""
    path, content = image()
    blk = disk(path=path).blk()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9 * SECTOR, hard))
    try:
        assert blk.write(8, b"z" * 4 * SECTOR) == IOERR
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == content[: 8 * SECTOR] + b"z" * SECTOR + content[9 * SECTOR :]


def test_a_block_device(disk, image, native):
    """A loop device works as an image: capacity, data, discard."""
    path, content = image(size=1 << 20)
    setup = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True, check=False)
    if setup.returncode:
        pytest.skip(f"no loop device: {setup.stderr.strip()}")
    loop = setup.stdout.strip()
    try:
        rig = disk(path=loop)
        blk = rig.blk()
        assert (blk.capacity, blk.read(5, 3)) == (2048, (OK, content[5 * SECTOR : 8 * SECTOR]))
        assert blk.write(5, b"q" * SECTOR) == blk.flush() == OK
        assert blk.discard((64, 64, 0)) == blk.write_zeroes((128, 64, 0)) == blk.write_zeroes((3, 1, 1)) == OK
        assert blk.read(128, 64) == (OK, bytes(64 * SECTOR))
        assert blk.read(3, 1) == (OK, bytes(SECTOR))
        rig.mmio.close()
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def test_a_failing_medium_gives_io_errors(disk, image, caplog):
    """A real EIO of a block device: the request fails, the rest of the disk works, the log says EIO."""
    path, content = image(size=1 << 20)
    command = ["losetup", "-f", "--show", "--direct-io=on", path]
    setup = subprocess.run(command, capture_output=True, text=True, check=False)
    if setup.returncode:
        pytest.skip(f"no loop device with direct I/O: {setup.stderr.strip()}")
    loop = setup.stdout.strip()
    try:
        rig = disk(path=loop)
        blk = rig.blk()
        os.truncate(path, 1 << 19)  # the medium loses its second half under the block device
        assert blk.read(1536, 8)[0] == IOERR
        assert blk.read(8, 8) == (OK, content[8 * SECTOR : 16 * SECTOR])
        assert "EIO" in caplog.text
        assert rig.device.stats().host_errors == 1
        rig.mmio.close()
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


@pytest.mark.parametrize(
    "segments",
    [
        [Segment(0x5_0000, 16, False)],
        [Segment(0x5_0000, 16, False), Segment(0x5_0100, 0, True)],
        [Segment(0x5_0000, 16, False), Segment(0xFFFF_F000, 512, True), Segment(0x5_0200, 1, True)],
        [Segment(0x5_0000, 16, False), Segment(0x5_0200, 513, True), Segment(1 << 63, 1, True)],
    ],
)
def test_unanswerable_requests_ask_for_a_reset(disk, segments, caplog):
    """No byte for the status, or buffers outside guest memory: NEEDS_RESET once, and a reset heals."""
    rig = disk()
    blk = rig.blk()
    rig.driver.queues[0].add(segments)
    rig.driver.kick(always=True)
    rig.driver.wait_for_reset_request()
    assert len([r for r in caplog.records if "needs reset" in r.message]) == 1
    blk = rig.blk()
    assert blk.read(0, 1)[0] == OK


def test_a_short_header_is_an_io_error(disk):
    """Fifteen bytes are no header, but there is a status byte to say so."""
    rig = disk()
    rig.blk()
    done = rig.driver.request([b"\0" * 15], [SECTOR, 1])
    assert done.data == (bytes(SECTOR), b"\1")


def test_a_ring_that_claims_too_much(disk, ring_breaker):
    """A ring that claims more chains than it has breaks the queue once; the loop does not spin."""
    rig = disk()
    blk = rig.blk()
    ring_breaker(rig.driver.queues[0])
    rig.driver.kick(always=True)
    rig.driver.wait_for_reset_request()
    edges = rig.line.edges
    for _ in range(10):
        rig.driver.kick(always=True)
    assert rig.line.edges == edges
    assert rig.blk().read(0, 1)[0] == OK
    assert blk.capacity == 64


def test_state_keeps_the_cache_mode(disk, image):
    """The driver's write-through survives; a state of an image of another size is refused."""
    first, second, third = (image(size=n * SECTOR, name=str(n))[0] for n in (64, 65, 66))
    rig = disk(path=first)
    rig.blk()
    rig.driver.write_config(32, 1, 0)
    rig.mmio.pause()
    state = rig.mmio.state()
    other = disk(path=second)
    with pytest.raises(SavedStateError, match="capacity=64, expected 65 sectors"):
        other.mmio.restore(state)
    os.truncate(third, 64 * SECTOR)
    same = disk(path=third)
    same.mmio.restore(state)
    assert same.driver.read_config(32, 1) == 0


def test_detached_queue_goes_on_where_the_other_side_stopped(disk, image, packed):
    """A queue can be handed out with its fds and taken back at other indices."""
    path, _content = image()
    rig = disk(path=path)
    contexts = []
    activate = rig.device.activate
    rig.device.activate = lambda context: (contexts.append(context), activate(context))
    blk = rig.blk()
    detached = contexts[0].detach_queue(0)
    assert (detached.kick_fd, detached.interrupt_fd) == (rig.mmio.notify_ranges[0].fd, None)
    assert (detached.state.next_avail, detached.state.ready) == (0x8000 if packed else 0, True)
    rig.driver.queues[0].request([struct.pack("<IIQ", 4, 0, 0)], [1])
    rig.driver.kick(always=True)
    assert os.eventfd_read(detached.kick_fd) >= 1
    contexts[0].attach_queue(0, detached.state)
    assert rig.driver.wait()[0].data == (b"\0",)
    assert blk.read(0, 1)[0] == OK


def test_the_image_is_locked_across_processes(image):
    """Another process cannot take the lock that a device holds."""
    path, _content = image()
    with DiskImage(path):
        script = "import fcntl,sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=False)
    assert b"BlockingIOError" in other.stderr
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


sectors = st.integers(0, 18)
requests = st.one_of(
    st.tuples(st.just("read"), sectors, st.integers(0, 4)),
    st.tuples(st.just("write"), sectors, st.binary(max_size=4).map(lambda seed: seed * SECTOR)),
    st.tuples(st.just("zero"), sectors, st.integers(0, 6)),
    st.tuples(st.just("flush"), st.just(0), st.just(0)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    script=st.lists(requests, max_size=25), features=st.sampled_from([None, 0, Feature.EVENT_IDX | (1 << 14)])
)
def test_random_scripts_against_a_bytearray(script, features, native, packed, tmp_path_factory):
    """Reads give what a plain bytearray would hold; nothing outside the disk is ever touched."""
    path = tmp_path_factory.getbasetemp() / f"model-{native}.img"
    model = bytearray(os.urandom(16 * SECTOR))
    path.write_bytes(model)
    memory = GuestMemoryMmap([guarded_region(0, 0x2_0000), guarded_region(0x2_0000, 0x2_0000)])
    line = LineProbe()
    device = VirtioBlk("model", DiskImage(path), native=native, queue_size=64)
    rings = RingOptions(packed=packed)
    with VirtioMmio(device, base=0, interrupt=line, memory=memory, rings=rings) as mmio:
        driver = MmioDriver(mmio, memory, line, area=(0x1000, 0x3_0000), packed=packed)
        agreed = driver.initialise(features=features)
        blk = BlkDriver(driver)
        for kind, sector, argument in script:
            at = sector * SECTOR
            if kind == "read":
                good = sector + argument <= 16
                data = bytes(model[at : at + argument * SECTOR]) if good else bytes(argument * SECTOR)
                assert blk.read(sector, argument) == (OK if good else IOERR, data)
            elif kind == "write":
                good = at + len(argument) <= len(model)
                assert blk.write(sector, argument) == (OK if good else IOERR)
                if good:
                    model[at : at + len(argument)] = argument
            elif kind == "zero":
                good = sector + argument <= 16
                supported = bool(agreed & BlkFeature.WRITE_ZEROES)
                assert blk.write_zeroes((sector, argument, 0)) == (
                    (OK if good else IOERR) if supported else UNSUPP
                )
                if good and supported:
                    model[at : at + argument * SECTOR] = bytes(argument * SECTOR)
            else:
                assert blk.flush() == (OK if agreed & BlkFeature.FLUSH else UNSUPP)
    assert path.read_bytes() == model
