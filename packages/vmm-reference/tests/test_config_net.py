"""`--net`: each key, good and bad, the whole machine with cards, and what opening refuses."""

import os
import resource
from ipaddress import IPv4Interface
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtio_devices.testing import SocketBackend
from vmm_reference import (
    ConfigError,
    DiskConfig,
    EventMonitorConfig,
    NetConfig,
    RingConfig,
    VmConfig,
    Vmm,
    _emulated,
)
from vmm_reference._cli import _parser, config_from
from vmm_reference._config_keys import NET_KEYS
from vmm_reference._open_net import open_net

MAC = bytes.fromhex("0250a4000001")
KEYS = ", ".join(NET_KEYS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tap=tap0", NetConfig("tap0")),
        ("fd=7", NetConfig(fd=7)),
        ("mac=02:50:A4:00:00:01", NetConfig(mac=MAC)),
        ("ip=10.0.0.1", NetConfig(address=IPv4Interface("10.0.0.1/24"))),
        ("ip=10.0.0.1,mask=255.255.0.0", NetConfig(address=IPv4Interface("10.0.0.1/16"))),
        (
            'tap=a,mtu=9000,id=lan,pcap="a,b.pcap",engine=python,offload_csum=off,offload_tso=off',
            NetConfig("a", None, None, None, 9000, "lan", Path("a,b.pcap"), "python", False, False),
        ),
        ("event_idx=off,queue_size=512", NetConfig(queue_size=512, rings=RingConfig(event_idx=False))),
    ],
)
def test_good(text, expected):
    """The option means the value."""
    assert NetConfig.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--net: '' is not of the form key=value; `vmm run --help` lists the keys"),
        ("tap=a,tap=b", "--net tap: given twice ('a' and 'b')"),
        ("tap=a,vhost=on", f"--net vhost: unknown key; --net takes {KEYS}"),
        ("tap=", "--net: tap= is missing"),
        ("tap=a,fd=3", "--net: tap=a and fd=3 are both given; one of them is the tap"),
        (f"tap={'a' * 16}", f"--net tap: '{'a' * 16}' is longer than the 15 bytes of an interface"),
        ("fd=2", "--net fd: 2 is a standard stream; pass the tap as 3 or above"),
        ("fd=-1", "--net fd: '-1' is not a number"),
        ("fd=3,ip=10.0.0.1", "--net ip: 10.0.0.1: the tap of fd=3 has its address already"),
        ("mac=1", "--net mac: '1' is not of the form 02:50:a4:00:00:01"),
        ("mac=0250a4000001", "--net mac: '0250a4000001' is not of the form 02:50:a4:00:00:01"),
        (
            "mac=01:00:5e:00:00:01",
            "--net mac: 01:00:5e:00:00:01 is no address of one card (multicast, or all zero)",
        ),
        (
            "mac=00:00:00:00:00:00",
            "--net mac: 00:00:00:00:00:00 is no address of one card (multicast, or all zero)",
        ),
        ("ip=10.0.0", "--net ip: '10.0.0' is not of the form 192.168.9.1"),
        ("mask=255.0.0.0", "--net mask: 255.0.0.0 belongs to ip=, which is missing"),
        ("ip=10.0.0.1,mask=255.0.255.0", "--net mask: 255.0.255.0 is no network mask, such as 255.255.255.0"),
        ("mtu=67", "--net mtu: 67 is not within 68 … 65521"),
        ("mtu=65522", "--net mtu: 65522 is not within 68 … 65521"),
        ("engine=rust", "--net engine: 'rust' is neither native nor python"),
        *(
            (f"queue_size={n}", f"--net queue_size: {n} is not a power of two from 4 to 16384")
            for n in (2, 32768)
        ),
        ("pcap=", "--net: pcap= is missing"),
        ("offload_tso=1", "--net offload_tso: '1' is neither on nor off"),
    ],
)
def test_bad(text, message):
    """The one line that the user sees names option, key, value and the cure."""
    with pytest.raises(ConfigError) as caught:
        NetConfig.parse(text)
    assert str(caught.value) == message


@given(st.one_of(st.text(), st.from_regex(r"(tap|fd|mac|ip|mask|mtu|id|pcap|engine)=[\x00-\xff]{0,20}")))
def test_hostile(text):
    """Any text is a configuration or a ConfigError."""
    try:
        result = NetConfig.parse(text)
    except ConfigError as refused:
        result = refused
    assert isinstance(result, NetConfig | ConfigError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"nets": [NetConfig()] * 9},
            "--net: 9 cards beside 0 disks; a virtio-mmio machine takes 8 cards, and 16 of both",
        ),
        (
            {"nets": [NetConfig()] * 2, "disks": [DiskConfig(Path("d"))] * 15},
            "--net: 2 cards beside 15 disks; a virtio-mmio machine takes 8 cards, and 16 of both",
        ),
        ({"nets": [NetConfig("a"), NetConfig("a")]}, "--net tap: a is given to two cards"),
        ({"nets": [NetConfig(fd=5), NetConfig(fd=5)]}, "--net fd: 5 is given to two cards"),
        ({"nets": [NetConfig(pcap=Path("p"))] * 2}, "--net pcap: p is given to two cards"),
        ({"nets": [NetConfig(id="rng0")]}, "id: 'rng0' names two devices"),
        ({"nets": [NetConfig(id="a/b")]}, "id: 'a/b' is not 1 to 64 of A-Z a-z 0-9 . _ -"),
    ],
)
def test_whole_machines(change, message):
    """What only shows with all options together."""
    with pytest.raises(ConfigError) as caught:
        VmConfig(Path("vmlinuz"), **change)
    assert str(caught.value) == message


def test_cards_are_numbered():
    """Those without an id by their position."""
    assert VmConfig(Path("k"), nets=[NetConfig(), NetConfig(id="lan"), NetConfig()]).net_ids() == (
        "net0",
        "lan",
        "net2",
    )


@given(
    st.builds(
        NetConfig,
        tap=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=3),
        mac=st.none() | st.binary(min_size=5, max_size=5).map(lambda rest: b"\2" + rest),
        address=st.none()
        | st.builds(lambda n, p: IPv4Interface((n, p)), st.integers(0, 2**32 - 1), st.integers(0, 32)),
        mtu=st.none() | st.integers(68, 65521),
        id=st.just("lan"),
        pcap=st.none() | st.just(Path('/a, "b".pcap')),
        engine=st.sampled_from(["native", "python"]),
        offload_csum=st.booleans(),
        offload_tso=st.booleans(),
        queue_size=st.sampled_from([4, 256, 16384]),
        rings=st.builds(RingConfig, *[st.booleans()] * len(attrs.fields(RingConfig))),
    )
)
def test_inner_command_line_means_the_same_card(net):
    """Arguments made for the VMM in the emulated host parse back to what they were made from."""
    config = VmConfig(Path("/k"), nets=(net,))
    words = _emulated.arguments(config, None, 0)
    assert config_from(_parser().parse_args(["run", *words])).nets == (net,)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            NetConfig("tap0"),
            r"--net tap: tap tap0 of this machine .* leave tap= and fd= out .* 192\.168\.249\.1/24",
        ),
        (NetConfig(fd=7), r"--net fd: descriptor 7 of this machine .* or take --host kvm"),
        (NetConfig(pcap=Path("/dev/shm/x")), r"--net pcap: /dev/shm/x: the emulated host has its own /dev;"),
    ],
)
def test_what_does_not_cross_into_the_emulated_host(net, message, tmp_path):
    """Taps and descriptors of this machine are refused with the reason and the cure."""
    with pytest.raises(ConfigError, match=f"^{message}"):
        _emulated.run(VmConfig(tmp_path / "kernel", nets=[net]))


def test_a_fifo_does_not_cross(tmp_path):
    """It would be another FIFO in there."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ConfigError, match=f"^--net pcap: {fifo}: a FIFO does not reach"):
        _emulated.run(VmConfig(tmp_path / "kernel", nets=[NetConfig(pcap=fifo)]))
    with pytest.raises(ConfigError, match=r"^--trace: /dev/shm/x: the emulated host has its own /dev;"):
        _emulated.run(VmConfig(tmp_path / "kernel", trace=Path("/dev/shm/x")))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (NetConfig("lo"), r"--net tap: tap lo: (is no tap|not permitted|/dev/net/tun)"),
        (NetConfig("a/b"), r"--net tap: tap a/b: 'a/b' is no interface name"),
        (NetConfig(fd=1_000_000), r"--net fd: 1000000: no such descriptor; the caller must pass an open tap"),
        (NetConfig(fd=1 << 40), r"--net fd: 1099511627776: no such descriptor"),
    ],
)
def test_opening_refuses(net, message):
    """In one line, with the option's name."""
    with pytest.raises(ConfigError, match=f"^{message}"):
        open_net("net0", net, print)


def test_a_descriptor_that_is_no_tap(tmp_path):
    """It stays open and the caller's; nothing else is left open."""
    with (tmp_path / "file").open("wb") as file:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ConfigError, match=rf"^--net fd: {file.fileno()}: tap fd=\d+: is no tap"):
            open_net("net0", NetConfig(fd=file.fileno()), print)
        assert len(os.listdir("/proc/self/fd")) == before
        file.write(b"x")


@pytest.mark.parametrize("descriptors", [0, 1])
def test_a_host_out_of_descriptors(tmp_path, monkeypatch, descriptors):
    """Neither the capture file nor the card can be had: the tap is closed, and the capture with it."""
    monkeypatch.setattr("vmm_reference._open_net._open_tap", lambda _net: backend)
    before = sorted(os.listdir("/proc/self/fd"))
    backend = SocketBackend()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + descriptors, hard))
    try:
        with pytest.raises((ConfigError, OSError), match="Too many open files"):
            open_net("net0", NetConfig(pcap=tmp_path / "pcap"), print)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    backend.far.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.kvm
@pytest.mark.root_net
def test_a_capture_that_fails_is_an_event(kernel, tmp_path):
    """The machine goes on, and the monitor says which card is not captured any more."""
    events = tmp_path / "events.json"
    config = VmConfig(
        kernel("ports"),
        nets=[NetConfig(pcap=Path("/dev/full"), id="lan")],
        event_monitor=EventMonitorConfig(events),
    )
    with Vmm(config):
        pass
    assert (
        '"source": "lan", "event": "capture-failed", "properties": {"reason": "No space left'
        in events.read_text()
    )
