"""What `--net` says: one network card, in Cloud Hypervisor's keys."""

import re
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

import attrs

from vmm_reference._config_keys import NET_KEYS
from vmm_reference._config_rings import RingConfig
from vmm_reference._errors import ConfigError
from vmm_reference._grammar import Options, parse_count, parse_toggle

DEFAULT_ADDRESS: Final = IPv4Interface("192.168.249.1/24")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE | re.ASCII)
_MIN_MTU, _MAX_MTU, _MAX_NAME = 68, 65521, 15


@attrs.frozen
class NetConfig:
    """One virtio-net card on a tap: `tap` by name, or `fd`, or neither: one that the kernel numbers.

    `mac` is 6 bytes, None for random; `address` goes to the host's end; `pcap` captures every frame. `mtu` is
    68 … 65521 bytes, None to leave it; `id` its name in events and errors, "" for one by its position;
    `engine` "native" (C, batched) or "python"; `offload_csum` and `offload_tso` leave checksums and
    segmentation to the receiver; `queue_size` a power of two within 4 … 16384 for each direction; `rings` the
    features offered.

    Raises:
        ConfigError: one of them is out of range, or two contradict each other.
    """

    tap: str = ""
    fd: int | None = None
    mac: bytes | None = None
    address: IPv4Interface | None = None
    mtu: int | None = None
    id: str = ""
    pcap: Path | None = None
    engine: str = "native"
    offload_csum: bool = True
    offload_tso: bool = True
    queue_size: int = 256
    rings: RingConfig = attrs.Factory(RingConfig)

    @classmethod
    def parse(cls, text: str) -> "NetConfig":
        """Read "tap=tap0,mac=02:50:a4:00:00:01,ip=192.168.9.1"; raises `ConfigError`."""
        options = Options("--net", text)
        ip = options.take("ip", _parse_ip, None)
        mask = options.take("mask", _parse_ip, None)
        config = cls(
            tap=options.require("tap") if options.has("tap") else "",
            fd=options.take("fd", parse_count, None),
            mac=options.take("mac", _parse_mac, None),
            address=_address(ip, mask),
            mtu=options.take("mtu", parse_count, None),
            id=options.take("id", str, ""),
            pcap=Path(options.require("pcap")) if options.has("pcap") else None,
            engine=options.take("engine", str, "native"),
            offload_csum=options.take("offload_csum", parse_toggle, default=True),
            offload_tso=options.take("offload_tso", parse_toggle, default=True),
            queue_size=options.take("queue_size", parse_count, 256),
            rings=RingConfig.take(options),
        )
        options.finish(NET_KEYS)
        return config

    def __attrs_post_init__(self) -> None:
        if self.tap and self.fd is not None:
            raise ConfigError(
                "--net", f"tap={self.tap} and fd={self.fd} are both given; one of them is the tap"
            )
        if len(self.tap.encode(errors="surrogateescape")) > _MAX_NAME:
            raise ConfigError(
                "--net tap", f"{self.tap!r} is longer than the {_MAX_NAME} bytes of an interface"
            )
        if self.fd is not None and self.fd < 3:
            raise ConfigError("--net fd", f"{self.fd} is a standard stream; pass the tap as 3 or above")
        if self.fd is not None and self.address is not None:
            raise ConfigError(
                "--net ip", f"{self.address.ip}: the tap of fd={self.fd} has its address already"
            )
        if self.mac is not None and (len(self.mac) != 6 or self.mac[0] & 1 or not any(self.mac)):
            raise ConfigError(
                "--net mac", f"{self.mac.hex(':')} is no address of one card (multicast, or all zero)"
            )
        if self.mtu is not None and not _MIN_MTU <= self.mtu <= _MAX_MTU:
            raise ConfigError("--net mtu", f"{self.mtu} is not within {_MIN_MTU} … {_MAX_MTU}")
        if self.engine not in {"native", "python"}:
            raise ConfigError("--net engine", f"{self.engine!r} is neither native nor python")
        if not 4 <= self.queue_size <= 16384 or self.queue_size & (self.queue_size - 1):
            raise ConfigError("--net queue_size", f"{self.queue_size} is not a power of two from 4 to 16384")


def _parse_mac(text: str) -> bytes:
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not of the form 02:50:a4:00:00:01")
    return bytes.fromhex(text.replace(":", ""))


def _parse_ip(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not of the form 192.168.9.1") from None


def _address(ip: IPv4Address | None, mask: IPv4Address | None) -> IPv4Interface | None:
    if ip is None:
        if mask is not None:
            raise ConfigError("--net mask", f"{mask} belongs to ip=, which is missing")
        return None
    try:
        return IPv4Interface(f"{ip}/{mask or DEFAULT_ADDRESS.netmask}")
    except ValueError:
        raise ConfigError("--net mask", f"{mask} is no network mask, such as 255.255.255.0") from None
