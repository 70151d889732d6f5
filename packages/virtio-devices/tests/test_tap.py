"""Taps of the kernel: how they are got, what is refused with what cure, and a card without a guest."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import subprocess
import time
from ipaddress import IPv4Interface

import pytest
from virtio_devices import Offload, Tap, TapError, VirtioMmio, VirtioNet, _tap
from virtio_devices.testing import LineProbe, MmioDriver, NetDriver, NetHeader
from vmm_memory import GuestMemoryMmap
from vmm_memory.testing import guarded_region

MAC = bytes.fromhex("0250a4000001")
EXPERIMENT = 0x88B5  # an EtherType for experiments
CLONE_NEWNET = 0x40000000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 16, f"tap {'a' * 16}: the name has 16 bytes, an interface's has at most 15"),
        ("é" * 8, "the name has 16 bytes"),
        ("", "'' is no interface name"),
        ("a/b", "'a/b' is no interface name"),
        ("a b", "no space"),
        ("vm%d", "'vm%d' is no interface name"),
        ("..", "'..' is no interface name"),
    ],
)
def test_names_are_checked(name, message):
    """Before the kernel sees them, which would shorten some and complete others."""
    with pytest.raises(TapError, match=message):
        Tap.open(name)


@pytest.mark.parametrize("prefix", ["", "a" * 12, "a/b", "%d"])
def test_prefixes_are_checked(prefix):
    """There has to be room for a number."""
    with pytest.raises(TapError, match="is no prefix of 1 to 11 bytes"):
        Tap.create(prefix)


def test_descriptors_are_checked(tmp_path):
    """What is no tap stays open and the caller's."""
    with (tmp_path / "f").open("wb") as file:
        with pytest.raises(TapError, match=f"tap fd={file.fileno()}: is no tap: pass one of /dev/net/tun"):
            Tap.from_fd(file.fileno())
        file.write(b"x")
    with pytest.raises(TapError, match="tap fd=1000000: is no open descriptor"):
        Tap.from_fd(1_000_000)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOENT, "load the driver: modprobe tun"),
        (errno.ENODEV, "load the driver: modprobe tun"),
        (errno.EACCES, "run as a user who may open it, or pass an open tap"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_a_host_without_taps(code, message):
    """The cure is in the message."""
    assert message in _tap._no_device(OSError(code, os.strerror(code)))


@pytest.fixture
def namespace():
    """A network namespace of its own for the test's thread and what it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    yield
    assert libc.setns(home, CLONE_NEWNET) == 0
    os.close(home)


def ip(*words):
    """What the tool of iproute2 prints."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        ["ip", *words], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    return done.stdout


def interfaces():
    """Names of the namespace's interfaces but lo."""
    return sorted(name for _, name in socket.if_nameindex() if name != "lo")


@pytest.mark.root_net
class TestTaps:
    """With root, on the real driver."""

    def test_made_and_gone(self, namespace):
        """What was made for a VMM vanishes with it; names are as asked for or numbered."""
        with Tap.open("lan0") as named, Tap.create() as first, Tap.create("x") as second:
            assert (named.name, first.name, second.name) == ("lan0", "vmtap0", "x0")
            assert interfaces() == ["lan0", "vmtap0", "x0"]
            assert not os.get_blocking(named.fd)
        assert interfaces() == []

    def test_a_prepared_tap_stays(self, namespace):
        """One that somebody made beforehand is attached to, and left."""
        ip("tuntap", "add", "mine", "mode", "tap")
        with Tap.open("mine") as tap:
            with pytest.raises(TapError, match="tap mine: in use by another program"):
                Tap.open("mine")
            tap.close()
        assert interfaces() == ["mine"]

    def test_what_is_no_tap(self, namespace):
        """Another kind of interface is refused."""
        ip("tuntap", "add", "tun7", "mode", "tun")
        ip("tuntap", "add", "many", "mode", "tap", "multi_queue")
        for name in ("lo", "tun7", "many"):
            with pytest.raises(TapError, match=f"tap {name}: is no tap, or one of another kind"):
                Tap.open(name)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (0x0001 | 0x1000 | 0x4000, "q0 is a tun, which carries no Ethernet: open it with IFF_TAP"),
            (
                0x0002 | 0x1000,
                r"q0 has no virtio headers: open it with IFF_VNET_HDR \(vnet_hdr\); its flags are 0x",
            ),
        ],
    )
    def test_a_passed_descriptor_of_another_format(self, namespace, flags, message):
        """Flags that do not fit are refused with the cure; the descriptor stays open."""
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"q0", flags))
        with pytest.raises(TapError, match=message):
            Tap.from_fd(fd)
        os.close(fd)

    def test_a_passed_descriptor(self, namespace):
        """As another program opened it, with headers of 10 bytes and blocking."""
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"given", 0x0002 | 0x1000 | 0x4000))
        with Tap.from_fd(fd) as tap:
            assert (tap.name, tap.fd) == ("given", fd)
            assert not os.get_blocking(fd)
            size = fcntl.ioctl(fd, 0x800454D7, bytes(4))
            assert struct.unpack("i", size) == (12,)

    def test_address_mtu_and_up(self, namespace):
        """As ip(8) sees them afterwards."""
        with Tap.create() as tap:
            tap.set_address(IPv4Interface("10.9.8.7/20"))
            tap.set_mtu(9000)
            tap.set_up()
            tap.set_up()
            shown = ip("address", "show", tap.name)
            assert "inet 10.9.8.7/20" in shown
            assert "mtu 9000" in shown
            assert "UP" in shown
            with pytest.raises(TapError, match="tap vmtap0: cannot set MTU 70000: Invalid argument"):
                tap.set_mtu(70_000)

    def test_without_the_privilege(self, namespace):
        """A user without CAP_NET_ADMIN reads what to do, and may use what was prepared for them."""
        ip("tuntap", "add", "theirs", "mode", "tap", "user", "65534")
        ip("link", "set", "theirs", "up")
        child = os.fork()
        if child == 0:  # no pytest in here
            status = 1
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                with pytest.raises(TapError) as refused:
                    Tap.open("new")
                if "/dev/net/tun: Permission denied" in str(refused.value):
                    os._exit(0)  # a host that keeps taps from users altogether
                assert "ip tuntap add new mode tap user $USER" in str(refused.value)
                with Tap.open("theirs") as tap:
                    tap.set_up()
                    try:
                        tap.set_mtu(1400)
                    except TapError as error:
                        status = 0 if "as root: ip link set theirs mtu 1400" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @pytest.mark.parametrize("native", [True, False])
    def test_a_card_on_a_tap(self, namespace, native):
        """Frames both ways through the kernel; what it refuses is counted; gone means link down."""
        tap = Tap.create()
        device = VirtioNet("net0", tap, mac=MAC, native=native)
        memory, line = GuestMemoryMmap([guarded_region(0, 4 << 20)]), LineProbe()
        with VirtioMmio(device, base=0, interrupt=line, memory=memory) as mmio:
            driver = MmioDriver(mmio, memory, line, area=(0x1000, 3 << 20))
            driver.initialise(queues=(0, 1, 2))
            net = NetDriver(driver)
            net.provide(*[1526] * 64)
            frame = b"\xff" * 6 + MAC + EXPERIMENT.to_bytes(2, "big") + b"from the guest".ljust(46)
            net.send(frame)  # the tap is down: EIO
            tap.set_up()
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EXPERIMENT)) as wire:
                wire.bind((tap.name, EXPERIMENT))
                wire.settimeout(60)
                net.send(frame)
                assert wire.recv(2000) == frame
                answer = MAC + frame[6:12] + frame[12:14] + b"to the guest".ljust(46)
                wire.send(answer)
                while (received := net.receive()).body[12:14] != frame[12:14]:
                    pass  # the kernel's own announcements
                assert (received.body, received.header) == (answer, NetHeader(num_buffers=1))
            net.send(frame, NetHeader(flags=1, csum_start=60_000, csum_offset=10))  # beyond the frame: EINVAL
            assert device.stats().tx.refused == 2
            assert device.stats().tx.packets == 1
            tap.set_offload(Offload(0))
            ip("link", "delete", tap.name)
            end = time.monotonic() + 60
            while net.link_up and time.monotonic() < end:
                time.sleep(0.01)
            assert not net.link_up
            driver.reset()  # a driver that begins again finds a card without a link
            driver.initialise(queues=(0, 1, 2))
            NetDriver(driver).send(frame)
            assert not net.link_up
            assert not driver.needs_reset
            assert device.stats().tx.refused == 3
