"""Capture files: read back by a reader that shares nothing with the writer, and by tcpdump."""

import os
import re
import shutil
import stat
import struct
import subprocess
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtio_devices import CaptureError, PcapWriter, VirtioMmio, VirtioNet
from virtio_devices.testing import LineProbe, MmioDriver, NetDriver, NetHeader, SocketBackend
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

BROADCAST = b"\xff" * 6
MAC = bytes.fromhex("0250a4000001")


def read(path):
    """The frames of a file as (nanoseconds, original length, bytes), and its snaplen."""
    data = path.read_bytes()
    magic, major, minor, zone, accuracy, snaplen, link = struct.unpack("<LHHlLLL", data[:24])
    assert (magic, major, minor, zone, accuracy, link) == (0xA1B23C4D, 2, 4, 0, 0, 1)
    frames, place = [], 24
    while place < len(data):
        seconds, nanoseconds, kept, size = struct.unpack("<LLLL", data[place : place + 16])
        assert nanoseconds < 10**9
        frames.append((seconds * 10**9 + nanoseconds, size, data[place + 16 : place + 16 + kept]))
        place += 16 + kept
    assert place == len(data)
    return frames, snaplen


@settings(deadline=None)
@given(
    frames=st.lists(st.tuples(st.binary(max_size=200), st.integers(0, 2**32 * 10**9 - 1)), max_size=10),
    snaplen=st.sampled_from([1, 60, 65554]),
)
def test_what_goes_in_is_in_the_file(frames, snaplen, tmp_path_factory):
    """Times to the nanosecond, lengths, and bytes up to the snaplen."""
    path = tmp_path_factory.getbasetemp() / "given.pcap"
    writer = PcapWriter(path, snaplen=snaplen)
    for frame, when in frames:
        writer.add(frame, when_ns=when)
    writer.close()
    writer.close()
    assert read(path) == ([(when, len(frame), frame[:snaplen]) for frame, when in frames], snaplen)


def arp(target):
    """An ARP question, which tcpdump knows by heart."""
    who = struct.pack(
        ">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, MAC, bytes([10, 0, 0, 2]), bytes(6), bytes(target)
    )
    return (BROADCAST + MAC + b"\x08\x06" + who).ljust(60, b"\0")


@pytest.fixture
def captured(native, tmp_path):
    """Make a card that captures, run `steps` with its driver and its back end, return the file."""

    def run(steps, **options):
        path = tmp_path / "card.pcap"
        writer = PcapWriter(path, **options)
        memory, line, backend = GuestMemoryMmap([guarded_region(0, 8 << 20)]), LineProbe(), SocketBackend()
        device = VirtioNet("net0", backend, mac=MAC, native=native, capture=writer)
        with VirtioMmio(device, base=0, interrupt=line, memory=memory) as mmio:
            driver = MmioDriver(mmio, memory, line, area=(0x1000, 7 << 20))
            driver.initialise(queues=(0, 1, 2))
            steps(NetDriver(driver), backend)
        backend.far.close()
        return path

    return run


def test_both_directions_in_order(captured):
    """Frames without virtio header, at the times they moved; what is dropped is not in it."""
    before = time.time_ns()

    def steps(net, backend):
        net.provide(*[1526] * 100)
        backend.give(arp([10, 0, 0, 1]))
        net.receive()
        net.send(arp([10, 0, 0, 3]))
        net.send(b"too short")
        backend.give(bytes(60_000), NetHeader(1, 1, 54, 1460, 34, 16))
        assert net.receive().body == bytes(60_000)

    frames, snaplen = read(captured(steps))
    assert [frame for _, _, frame in frames] == [arp([10, 0, 0, 1]), arp([10, 0, 0, 3]), bytes(60_000)]
    assert snaplen == 65554
    times = [when for when, _, _ in frames]
    assert before <= times[0] <= times[1] <= times[2] <= time.time_ns()


def test_more_than_the_core_can_hold_at_a_time(captured):
    """The records of a call have a limit; frames beyond it are captured as well."""

    def steps(net, backend):
        net.provide(*[4096] * 200)
        for seed in range(10):
            backend.give(bytes([seed]) * 60_000, NetHeader(1, 1, 54, 1460, 34, 16))
        assert [net.receive().body[0] for _ in range(10)] == list(range(10))

    frames, _ = read(captured(steps))
    assert [(size, frame[0]) for _, size, frame in frames] == [(60_000, seed) for seed in range(10)]


def test_snaplen(captured):
    """Only the beginning is kept, the length is that of the whole."""

    def steps(net, backend):
        net.provide(1526)
        backend.give(arp([10, 0, 0, 1]))
        net.receive()
        net.send(arp([10, 0, 0, 3]) * 3)

    frames, _ = read(captured(steps, snaplen=20))
    assert [(size, frame) for _, size, frame in frames] == [
        (60, arp([10, 0, 0, 1])[:20]),
        (180, arp([10, 0, 0, 3])[:20]),
    ]


@pytest.mark.skipif(
    shutil.which("tcpdump", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="no tcpdump"
)
def test_tcpdump_reads_it(captured):
    """An independent reader sees the questions that were asked, to the nanosecond."""

    def steps(net, backend):
        net.provide(1526)
        backend.give(arp([10, 0, 0, 1]))
        net.receive()
        net.send(arp([10, 0, 0, 3]))

    path = captured(steps)
    command = ["tcpdump", "-nn", "-tt", "--nano", "-r", str(path)]
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    lines = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.splitlines()
    assert [re.sub(r"^\d+\.\d{9} ", "", line) for line in lines] == [
        "ARP, Request who-has 10.0.0.1 tell 10.0.0.2, length 46",
        "ARP, Request who-has 10.0.0.3 tell 10.0.0.2, length 46",
    ]


def test_a_full_disk_ends_the_capture_and_nothing_else(captured, tmp_path, caplog):
    """One log line, one call, and the traffic goes on."""
    reasons = []
    (tmp_path / "card.pcap").symlink_to("/dev/full")

    def steps(net, backend):
        net.provide(*[4096] * 200)
        for _ in range(10):
            backend.give(bytes(60_000), NetHeader(1, 1, 54, 1460, 34, 16))
        assert all(net.receive().body == bytes(60_000) for _ in range(10))
        net.send(bytes(60))

    captured(steps, on_failure=reasons.append)
    assert reasons == ["No space left on device"]
    assert caplog.text.count("frames are not captured from here on") == 1


def test_a_fifo_that_nobody_reads_holds_nothing_up(tmp_path):
    """It takes what fits, then the capture ends."""
    fifo, reasons = tmp_path / "fifo", []
    os.mkfifo(fifo)
    writer = PcapWriter(fifo, on_failure=reasons.append)
    start = time.monotonic()
    for _ in range(100):
        writer.add(bytes(10_000))
    writer.close()
    assert time.monotonic() - start < 30
    assert len(reasons) == 1


def test_a_fifo_with_a_reader(tmp_path):
    """As `tcpdump -r` of a running machine does."""
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    writer = PcapWriter(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    time.sleep(0.1)
    writer.add(b"x" * 60)
    writer.close()
    reader.join()
    assert len(got[0]) == 24 + 16 + 60


def test_the_file_is_ones_own(tmp_path):
    """What passes a network card is nobody else's business; an old file is replaced."""
    path = tmp_path / "f.pcap"
    PcapWriter(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    PcapWriter(path).close()
    assert read(path) == ([], 65554)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "cannot be written: (Is a directory|No such)"),
        ("no/file", "No such file or directory"),
        ("s", "neither"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, message):
    """With the path and the reason."""
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(CaptureError, match=f"{tmp_path}.*({message}|No such device or address)"):
            PcapWriter(tmp_path / name)


@pytest.mark.parametrize("snaplen", [0, 65555])
def test_snaplen_is_checked(snaplen, tmp_path):
    """Before anything is made."""
    with pytest.raises(ValueError, match=f"snaplen={snaplen}: must be from 1 to 65554"):
        PcapWriter(tmp_path / "f", snaplen=snaplen)
    assert list(tmp_path.iterdir()) == []
