"""What `--net` names, opened: a tap with its address, a capture file; refusals with the option's name."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from virtio_devices import CaptureError, Offload, PcapWriter, Tap, TapError, VirtioNet

from vmm_reference._config_net import DEFAULT_ADDRESS, NetConfig
from vmm_reference._errors import ConfigError


def open_net(name: str, net: NetConfig, on_capture_failure: Callable[[str], None]) -> VirtioNet:
    """Open tap and capture file and make the card; a refusal is told in the option's words."""
    with ExitStack() as undo:
        tap = _open_tap(net)
        undo.callback(tap.close)
        if not net.offload_csum:
            tap.offloads = Offload(0)
        elif not net.offload_tso:
            tap.offloads = Offload.CSUM
        capture = None if net.pcap is None else _open_capture(net.pcap, on_capture_failure)
        if capture is not None:
            undo.callback(capture.close)
        card = VirtioNet(
            name,
            tap,
            mac=net.mac,
            mtu=net.mtu,
            queue_size=net.queue_size,
            native=net.engine == "native",
            capture=capture,
        )
        undo.pop_all()
    return card


def _open_capture(path: Path, on_failure: Callable[[str], None]) -> PcapWriter:
    try:
        return PcapWriter(path, on_failure=on_failure)
    except CaptureError as error:
        raise ConfigError("--net pcap", str(error)) from None


def _open_tap(net: NetConfig) -> Tap:
    """The tap, with address and MTU, switched on; what another program passed is left as it is."""
    if net.fd is not None:
        return _passed_tap(net.fd)
    address = net.address or (None if net.tap else DEFAULT_ADDRESS)
    try:
        tap = Tap.open(net.tap) if net.tap else Tap.create()
    except TapError as error:
        raise ConfigError("--net tap", str(error)) from None
    try:
        if address is not None:
            tap.set_address(address)
        if net.mtu is not None:
            tap.set_mtu(net.mtu)
        tap.set_up()
    except TapError as error:
        tap.close()
        raise ConfigError("--net tap", str(error)) from None
    return tap


def _passed_tap(number: int) -> Tap:
    try:
        fd = os.dup(number)
    except (OSError, OverflowError):
        raise ConfigError(
            "--net fd", f"{number}: no such descriptor; the caller must pass an open tap"
        ) from None
    try:
        return Tap.from_fd(fd)
    except TapError as error:
        os.close(fd)
        raise ConfigError("--net fd", f"{number}: {error}") from None
