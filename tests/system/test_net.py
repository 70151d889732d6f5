"""A stock kernel's network through virtio-net and a tap, in a network namespace of its own."""

import ctypes
import hashlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface

import pytest
from virtio_devices import Feature, NetFeature, Tap, VirtioNet
from vmm_reference import EndReason, NetConfig, RingConfig

pytestmark = [pytest.mark.kvm_full, pytest.mark.root_net]

CLONE_NEWNET = 0x40000000
MODULES = ("virtio_mmio", "failover", "net_failover", "virtio_net")
HOST, GUEST = "192.168.77.1", "192.168.77.2"
ADDRESS = IPv4Interface(f"{HOST}/24")
MAC = bytes.fromhex("0250a4000001")
MIB = 1 << 20

SCRIPT = f"""
ip link set lo up
ip address add {GUEST}/24 dev eth0
ip link set eth0 up
cd /sys/class/net/eth0
echo "guest: card $(cat address) $(cat mtu) $(cat device/features)"
ping -c 3 -A {HOST} > /pings && echo "guest: ping $(grep -c 'bytes from' /pings)"
nc {HOST} 5001 > /data
echo "guest: got $(wc -c < /data) $(md5sum < /data | cut -d' ' -f1)"
nc {HOST} 5002 < /data
nc {HOST} 5003
poweroff -f
"""


def libc(name: str, *arguments: int) -> None:
    """Call into the C library: Python 3.11 has neither unshare nor setns."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}{arguments}")


@pytest.fixture
def namespace() -> Iterator[None]:
    """Run the test's thread, and all it starts, in a network namespace that nothing else is in."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc("unshare", CLONE_NEWNET)
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        libc("setns", home, CLONE_NEWNET)
        os.close(home)


class Peer:
    """The host's side of three connections: send the data, take it back, hold the guest until told."""

    def __init__(self, data: bytes) -> None:
        self.data, self.back, self.error = data, b"", None
        self._listeners = [socket.create_server(("0.0.0.0", port)) for port in (5001, 5002, 5003)]
        self._hold = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            with self._accept(0) as out:
                out.sendall(self.data)
            with self._accept(1) as back:
                digest = hashlib.md5(usedforsecurity=False)
                self.size = 0
                while part := back.recv(1 << 20):
                    digest.update(part)
                    self.size += len(part)
                self.back = digest.hexdigest()
            with self._accept(2):
                self._hold.wait(60)
        except OSError as error:
            self.error = error

    def _accept(self, index: int) -> socket.socket:
        self._listeners[index].settimeout(100)
        connection, _ = self._listeners[index].accept()
        return connection

    def release(self) -> None:
        self._hold.set()

    def close(self) -> None:
        self._hold.set()
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in accept
            listener.close()
        self._thread.join()


@contextmanager
def peer(data: bytes) -> Iterator[Peer]:
    """A peer that is closed whatever happens."""
    made = Peer(data)
    try:
        yield made
    finally:
        made.close()


def run_guest(boot, net: NetConfig, size: int):
    """Boot a guest with one card; pings and `size` bytes both ways. Returns card, features, what it saw."""
    data = os.urandom(size)
    expected = hashlib.md5(data, usedforsecurity=False).hexdigest()
    with peer(data) as host, boot(script=SCRIPT, modules=MODULES, nets=[net]) as machine:
        console = machine.console
        found = console.expect(r"guest: card (\S+) (\d+) ([01]+)\n")
        card = machine.vmm.machine.virtio[0].device
        assert isinstance(card, VirtioNet)
        agreed = card.negotiated
        assert console.expect(r"guest: ping (\d+)\n")[1] == "3"
        got = console.expect(r"guest: got (\d+) (\w+)\n")
        assert (int(got[1]), got[2]) == (size, expected)
        ping = subprocess.run(
            ["busybox", "ping", "-c", "3", "-A", GUEST], capture_output=True, text=True, check=False
        )
        assert ping.stdout.count("bytes from") == 3, ping.stdout + ping.stderr
        host.release()
        assert machine.end().reason is EndReason.POWEROFF
        assert host.error is None
        assert (host.size, host.back) == (size, expected)
    return card, agreed, found


def check_offloads(card: VirtioNet, agreed: int, features: str, size: int) -> None:
    """What was negotiated was also used: merging, checksums and segmentation left to the other side."""
    assert [bit for bit in range(64) if agreed >> bit & 1] == [
        i for i, bit in enumerate(features) if bit == "1"
    ]
    wanted = NetFeature.MRG_RXBUF | NetFeature.CSUM | NetFeature.GUEST_CSUM | NetFeature.GUEST_TSO4
    assert agreed & wanted == wanted
    assert agreed & Feature.EVENT_IDX
    stats = card.stats()
    for direction in (stats.rx, stats.tx):
        assert direction.bytes > size
        assert direction.gso > 0
        assert direction.csum > direction.gso // 2
        assert direction.packets * 1448 < size  # larger than the link's packets, most of them
        assert direction.invalid == direction.oversized == direction.refused == 0
    assert stats.rx.merged > 0


def test_64_mib_both_ways_over_a_named_tap(boot, namespace):
    """A tap that somebody prepared; the data path in C; nothing dropped, everything offloaded."""
    subprocess.run(["ip", "tuntap", "add", "lan0", "mode", "tap"], check=True)
    net = NetConfig(tap="lan0", mac=MAC, address=ADDRESS)
    card, agreed, seen = run_guest(boot, net, 64 * MIB)
    assert (seen[1], seen[2]) == ("02:50:a4:00:00:01", "1500")
    check_offloads(card, agreed, seen[3], 64 * MIB)


def test_a_passed_tap_and_a_capture(boot, namespace, tmp_path):
    """An fd that the test opened; packed rings, the data path in Python; tcpdump reads the wire."""
    size, capture = 2 * MIB, tmp_path / "card.pcap"
    with Tap.create() as tap:
        tap.set_address(ADDRESS)
        tap.set_up()
        rings = RingConfig(packed=True)
        net = NetConfig(fd=tap.fd, mtu=1400, pcap=capture, engine="python", id="lan", rings=rings)
        card, agreed, seen = run_guest(boot, net, size)
    assert seen[2] == "1400"
    assert agreed & Feature.RING_PACKED
    assert card.stats().rx.bytes > size
    command = ["tcpdump", "-nn", "--nano", "-r", str(capture)]
    env = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"}
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    for asker, asked in ((HOST, GUEST), (GUEST, HOST)):
        assert len(re.findall(rf"{asker} > {asked}: ICMP echo request", text)) == 3
        assert len(re.findall(rf"{asked} > {asker}: ICMP echo reply", text)) == 3
    assert f"ARP, Request who-has {HOST} tell {GUEST}" in text
    moved = sum(int(found) for found in re.findall(r" length (\d+)$", text, re.MULTILINE))
    assert 2 * size < moved < 3 * size
    stats = card.stats()
    assert len(text.splitlines()) == stats.rx.packets + stats.tx.packets
