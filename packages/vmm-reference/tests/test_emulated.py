"""The way into the emulated host: arguments that mean the same machine, what cannot cross, the relays."""

import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_devices import DiskImage
from vm_hypervisor.cpuid import BUILT_IN, Topology
from vmm_reference import (
    BootProtocol,
    ConfigError,
    CpusConfig,
    DiskConfig,
    EventMonitorConfig,
    HostError,
    Irqchip,
    MemoryConfig,
    PlatformConfig,
    RingConfig,
    RngConfig,
    SerialConfig,
    SerialMode,
    Tables,
    VmConfig,
    _emulated,
)
from vmm_reference._cli import _parser, config_from
from vmm_reference._config_cpus import CoreScheduling

ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=126))
PATHS = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1).map(
    lambda name: Path("/", f"_{name}")
)
IDS = st.lists(st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True), min_size=5, max_size=5, unique=True)


RINGS = st.builds(RingConfig, *[st.booleans()] * len(attrs.fields(RingConfig)))


TOPOLOGIES = st.builds(Topology, *[st.sampled_from([1, 2, 3])] * 4) | st.builds(
    Topology, cores=st.integers(1, 254)
)


@st.composite
def configs(draw):
    """Any machine whose paths are absolute and whose devices have ids."""
    ids = [f"x{id_}" for id_ in draw(IDS)]
    topology = draw(TOPOLOGIES)
    scheduling = draw(st.sampled_from(CoreScheduling))
    template = draw(st.sampled_from(BUILT_IN) | PATHS.map(str))
    cpus = st.frozensets(st.integers(0, 4095), min_size=1, max_size=4)
    affinity = draw(st.dictionaries(st.integers(0, topology.cpus - 1), cpus, max_size=4))
    shared = draw(st.booleans())
    disk = st.builds(
        DiskConfig,
        PATHS,
        st.booleans(),
        st.just(""),
        st.text(st.characters(min_codepoint=1, max_codepoint=126), max_size=20),
        st.sampled_from(["native", "python"]),
        st.sampled_from([4, 256, 32768]),
        RINGS,
    )
    disks = draw(st.lists(disk, max_size=4))
    return VmConfig(
        kernel=draw(PATHS),
        initramfs=draw(st.none() | PATHS),
        cmdline=draw(ASCII),
        boot_protocol=draw(st.sampled_from(BootProtocol)),
        cpus=CpusConfig(
            topology.cpus, topology.cpus, affinity, draw(st.none() | st.just(topology)), template, scheduling
        ),
        memory=MemoryConfig(
            draw(st.integers(8, 1 << 16)) << 21, shared, shared and draw(st.booleans()), draw(st.booleans())
        ),
        disks=tuple(attrs.evolve(disk, id=id_) for disk, id_ in zip(disks, ids, strict=False)),
        serial=SerialConfig(draw(st.sampled_from([SerialMode.OFF, SerialMode.TTY]))),
        rng=RngConfig(draw(PATHS), ids[4], draw(RINGS)),
        event_monitor=draw(st.none() | PATHS.map(EventMonitorConfig)),
        platform=PlatformConfig(draw(st.sampled_from(Irqchip)), draw(st.sampled_from([None, *Tables]))),
        trace=draw(st.none() | PATHS),
    )


@given(configs())
def test_inner_command_line_means_the_same_machine(config):
    """Arguments made for the inner VMM parse back to the configuration they were made from."""
    events = None if config.event_monitor is None else config.event_monitor.path
    words = _emulated.arguments(config, events, 0)
    assert config_from(_parser().parse_args(["run", *words])) == config


def test_other_serial_ends_stay_outside():
    """Inside, the console is on pipes whatever the user asked for; relative paths become absolute."""
    config = VmConfig(
        Path("k"), serial=SerialConfig(SerialMode.SOCKET, Path("s")), disks=[DiskConfig(Path("d"))]
    )
    inner = config_from(_parser().parse_args(["run", *_emulated.arguments(config, None, 2)]))
    assert inner.serial == SerialConfig(SerialMode.TTY)
    assert inner.kernel == Path.cwd() / "k"
    assert [(disk.id, disk.path) for disk in inner.disks] == [("disk0", Path.cwd() / "d")]


def test_descriptors_do_not_cross():
    """An outer descriptor is refused with the reason and the cure."""
    with pytest.raises(ConfigError) as caught:
        _emulated.run(VmConfig(Path("k"), event_monitor=EventMonitorConfig(fd=7)))
    assert str(caught.value) == (
        "--event-monitor fd: descriptor 7 does not exist in the emulated host; use path="
    )


def test_memory_this_machine_does_not_have():
    """More RAM than the emulated host can get is refused before anything starts, with both numbers."""
    with pytest.raises(ConfigError, match=r"^--memory size: the guest's 16777216M need an .*; ask for less$"):
        _emulated.run(VmConfig(Path("k"), memory=MemoryConfig(1 << 44)))


def test_a_disk_in_use_is_refused_out_here(tmp_path):
    """The inner VMM's locks do not leave the emulated host: the outer one takes them too."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(4096))
    with DiskImage(disk), pytest.raises(ConfigError, match=r"^--disk path: .*disk\.raw.*"):
        _emulated.run(VmConfig(Path("k"), disks=[DiskConfig(disk)]))
    DiskImage(disk).close()  # nothing of ours holds it


def read_until(fd, wanted, seconds=60.0):
    """Read `fd` until `wanted` bytes came."""
    data, end = b"", time.monotonic() + seconds
    while len(data) < len(wanted):
        assert time.monotonic() < end
        data += os.read(fd, 1 << 16)
    return data


def test_serial_relay_out_and_in(tmp_path):
    """What the inner VMM prints reaches the user's end, what is typed there reaches the inner VMM."""
    import socket

    path = tmp_path / "console"
    relay = _emulated._SerialRelay(SerialConfig(SerialMode.SOCKET, path))
    relay.start()
    with socket.socket(socket.AF_UNIX) as user:
        user.connect(str(path))
        os.write(relay.inner_out, b"login: ")
        assert read_until(user.fileno(), b"login: ") == b"login: "
        typed = bytes(range(256)) * 1024  # four times what a pipe holds
        user.setblocking(True)
        import threading

        typist = threading.Thread(target=user.sendall, args=(typed,))
        typist.start()
        time.sleep(0.2)  # the pipe is full by now
        assert read_until(relay.inner_in, typed) == typed
        typist.join()
        os.write(relay.inner_out, b"bye")
        relay.close()
        assert user.recv(100) == b"bye"


def test_event_relay(tmp_path):
    """Events written inside arrive outside whole, in order, the last ones too."""
    source, target = tmp_path / "inner", tmp_path / "outer"
    source.touch()
    relay = _emulated._EventRelay(source, EventMonitorConfig(target))
    expected = []
    with source.open("ab", buffering=0) as inner:
        for number in range(50):
            line = json.dumps({"event": "x" * number, "n": number}).encode() + b"\n"
            inner.write(line[:7])
            time.sleep(0.002)
            inner.write(line[7:])
            expected.append(line)
    relay.close()
    assert target.read_bytes() == b"".join(expected)


def test_event_relay_without_a_reader(tmp_path):
    """A FIFO that nobody reads neither blocks the relay nor its end."""
    fifo, source = tmp_path / "fifo", tmp_path / "inner"
    os.mkfifo(fifo)
    source.write_bytes(b'{"event": "y"}\n' * 20_000)
    relay = _emulated._EventRelay(source, EventMonitorConfig(fifo))
    relay._target.close()  # as after a reader went away
    relay.close()
    assert sys.getsizeof(relay._part) < 100


@pytest.mark.parametrize("option", ["--kernel", "--initramfs", "--disk path"])
def test_places_that_the_emulated_host_has_of_its_own_are_refused(tmp_path, option):
    """A link is followed; a file in /dev/shm out here is not in there."""
    fine = tmp_path / "fine"
    fine.write_bytes(b"")
    link = tmp_path / "link"
    link.symlink_to("/dev/shm/kernel")
    config = VmConfig(
        kernel=link if option == "--kernel" else fine,
        initramfs=link if option == "--initramfs" else fine,
        disks=(DiskConfig(link if option == "--disk path" else fine),),
    )
    with pytest.raises(ConfigError, match=rf"^{option}: {link}: the emulated host has its own /dev; give"):
        _emulated._check_crossing(config)


def test_a_block_device_is_refused_with_the_cure(monkeypatch, tmp_path):
    """It is a device of this machine, and another machine has others."""
    disk = tmp_path / "sdz"
    monkeypatch.setattr(Path, "is_block_device", lambda path: path == disk)
    config = VmConfig(kernel=tmp_path / "kernel", disks=(DiskConfig(disk, readonly=True),))
    with pytest.raises(ConfigError, match=rf"block device .* copy it into a file \(dd if={disk} "):
        _emulated._check_crossing(config)


def test_a_folder_for_temporary_files_that_cannot_be_shared_is_refused(monkeypatch, tmp_path):
    """One line, not a traceback, and nothing stays."""

    def refuse(*_arguments, **_options):
        raise ValueError("writable /dev/shm/events.json: choose another place")

    monkeypatch.setattr(_emulated.vmm_testhost, "run", refuse)
    monkeypatch.setattr(_emulated.tempfile, "tempdir", str(tmp_path))
    config = VmConfig(kernel=tmp_path / "kernel", serial=SerialConfig(SerialMode.NULL))
    with pytest.raises(HostError, match=r"^emulated host: writable /dev/shm"):
        _emulated.run(config)
    assert list(tmp_path.iterdir()) == []


SIGNALLED = """
import os, signal, sys, termios, threading, types
from vmm_reference import _emulated
from vmm_reference._cli import main

def profiler(frame, event, arg):
    global moments
    moments += event in ("call", "c_return")
    if moments == due:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGHUP)

def begin(*arguments):
    sys.setprofile(profiler)
    try:
        return begun(*arguments)
    finally:
        sys.setprofile(None)

def world():
    handlers = [signal.getsignal(number) for number in (1, 2, 15)]
    return termios.tcgetattr(0), os.listdir(os.environ["TMPDIR"]), threading.active_count(), handlers

begun, _emulated._run = _emulated._run, begin
_emulated.vmm_testhost.run = lambda *_, **__: types.SimpleNamespace(returncode=0)
before, moments, due, statuses = world(), 0, 0, []
while moments == due:
    moments, due = 0, due + 1
    statuses.append(main(sys.argv[1:]))
    assert world() == before, (due, world())
print(*statuses, file=sys.stderr)
"""


def test_a_signal_at_any_moment_around_the_emulated_host(kernel, tmp_path):
    """Terminal, threads, handlers and the folder for temporary files are as before, whenever it comes.

    CPython runs handlers where functions begin and after those in C. A signal that comes before the host is
    there ends the run with its status, one that comes afterwards is too late to.
    """
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    main, slave = os.openpty()
    options = ["run", "--host", "emulated", "--kernel", str(kernel("count"))]
    child = subprocess.run(
        [sys.executable, "-c", SIGNALLED, *options],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(scratch)},
        text=True,
        check=False,
    )
    os.close(main)
    os.close(slave)
    assert child.returncode == 0, child.stderr
    statuses = list(map(int, child.stderr.split()))
    ended = statuses.count(128 + signal.SIGHUP)
    assert ended > 100
    assert statuses == [128 + signal.SIGHUP] * ended + [0] * (len(statuses) - ended)


SLOW_HOST = """
import sys, time, vmm_testhost
from vmm_reference._cli import main

def fetch(*_, **__):  # as one whose parts are still being fetched, a bit at a time
    while True:
        # Short: a signal between CPython's last look and a system call does not end that call.
        time.sleep(0.05)

vmm_testhost.run = fetch
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_emulated_host_is_there(kernel, tmp_path, number):
    """The terminal is what it was, the folder for temporary files is empty, the status says which."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    main, slave = os.openpty()
    before = termios.tcgetattr(slave)
    words = [sys.executable, "-c", SLOW_HOST, "run", "--host", "emulated", "--kernel", str(kernel("count"))]
    process = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(scratch)}
    )
    while termios.tcgetattr(slave)[3] & termios.ICANON and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    assert (process.wait(30), process.stderr.read()) == (128 + number, b"")
    assert termios.tcgetattr(slave) == before
    assert list(scratch.iterdir()) == []
    process.stderr.close()
    os.close(main)
    os.close(slave)
