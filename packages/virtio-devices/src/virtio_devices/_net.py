"""virtio-net: a network card on a tap (VIRTIO 1.2 section 5.1)."""

import enum
import errno
import os
import selectors
import struct
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Final, Literal, final

import attrs
from virtio_queue import ChainBatch, DescriptorChain
from vmm_memory import GuestMemory

from virtio_devices._context import DeviceContext
from virtio_devices._device import StateValue
from virtio_devices._errors import SavedStateError
from virtio_devices._ffi import NativePort
from virtio_devices._log import GuestLog
from virtio_devices._net_port import NetBackend, NetCounters, Offload, Port, PortFlag
from virtio_devices._net_python import PythonReceiver, PythonTransmitter
from virtio_devices._net_work import RECEIVE_CHAINS, TRANSMIT_CHAINS, ReceiveWork, TransmitWork
from virtio_devices._pcap import PcapWriter
from virtio_devices._server import QueueServer
from virtio_devices._spec import DeviceId

__all__ = ("NetFeature", "NetStats", "VirtioNet", "random_mac")

_CONFIG: Final = struct.Struct("<6sHHH")  # mac, status, max_virtqueue_pairs, mtu: section 5.1.4
_LINK_UP: Final = 1
_RECEIVE, _TRANSMIT, _CONTROL = 0, 1, 2
_CONTROL_SIZE: Final = 64
_MAC_SIZE: Final = 6
_MIN_MTU, _MAX_MTU = 68, 65521  # section 5.1.4.1; what a tap can have


class NetFeature(enum.IntFlag):
    """Feature bits of virtio-net that this device may offer (VIRTIO 1.2 section 5.1.3)."""

    CSUM = 1 << 0
    GUEST_CSUM = 1 << 1
    CTRL_GUEST_OFFLOADS = 1 << 2
    MTU = 1 << 3
    MAC = 1 << 5
    GUEST_TSO4 = 1 << 7
    GUEST_TSO6 = 1 << 8
    GUEST_ECN = 1 << 9
    HOST_TSO4 = 1 << 11
    HOST_TSO6 = 1 << 12
    HOST_ECN = 1 << 13
    MRG_RXBUF = 1 << 15
    STATUS = 1 << 16
    CTRL_VQ = 1 << 17


_ALWAYS: Final = NetFeature.MAC | NetFeature.STATUS | NetFeature.MRG_RXBUF
_TO_GUEST: Final = {
    NetFeature.GUEST_CSUM: Offload.CSUM,
    NetFeature.GUEST_TSO4: Offload.TSO4,
    NetFeature.GUEST_TSO6: Offload.TSO6,
    NetFeature.GUEST_ECN: Offload.ECN,
}
_TO_HOST: Final = {
    NetFeature.CSUM: Offload.CSUM,
    NetFeature.HOST_TSO4: Offload.TSO4,
    NetFeature.HOST_TSO6: Offload.TSO6,
    NetFeature.HOST_ECN: Offload.ECN,
}


class _Command(enum.IntEnum):
    """The control queue, section 5.1.6.5."""

    GUEST_OFFLOADS = 5  # class
    GUEST_OFFLOADS_SET = 0
    OK = 0
    ERR = 1


@attrs.frozen
class NetStats:
    """Counters since the device was made, a copy.

    Attributes:
        rx: frames to the guest.
        tx: frames of the guest.
    """

    rx: NetCounters
    tx: NetCounters


def random_mac() -> bytes:
    """Return a random unicast MAC address of the locally administered kind, 6 bytes."""
    first, *rest = os.urandom(_MAC_SIZE)
    return bytes([first & 0xFC | 2, *rest])


def _offloads(features: int, table: Mapping[NetFeature, Offload]) -> Offload:
    found = Offload(0)
    for feature, offload in table.items():
        if features & feature:
            found |= offload
    return _consistent(found)


def _consistent(found: Offload) -> Offload:
    # VIRTIO 1.2 section 5.1.3.1: none of the others without CSUM, ECN not without TSO.
    if not found & Offload.CSUM:
        return Offload(0)
    return found if found & (Offload.TSO4 | Offload.TSO6) else Offload.CSUM


@final
class VirtioNet:
    """A network card with one pair of queues. Has the shape of `VirtioDevice`.

    What the host refuses (a tap that is down, a header it does not like) is dropped and counted, as a real
    card would, with one rate-limited log line. When the back end's far end is gone for good, the link goes
    down.

    Args:
        id: name of the device.
        backend: the other end; owned from now on (closed with the device).
        mac: 6 bytes, unicast; None: random.
        mtu: what the guest is told, 68 to 65521 bytes; None: nothing.
        queue_size: of each direction, a power of two from 4 to 16384.
        native: batches in C; False: the data path in Python, the same to the guest.
        capture: where each frame goes as well; owned from now on.

    Raises:
        ValueError: an argument is out of range; back end and capture stay open and the caller's.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the name every device has
        backend: NetBackend,
        *,
        mac: bytes | None = None,
        mtu: int | None = None,
        queue_size: int = 256,
        native: bool = True,
        capture: PcapWriter | None = None,
    ) -> None:
        if queue_size < 4 or queue_size > 16384 or queue_size & (queue_size - 1):
            raise ValueError(f"queue_size={queue_size}: must be a power of two from 4 to 16384")
        if mac is not None and (len(mac) != _MAC_SIZE or mac[0] & 1 or not any(mac)):
            raise ValueError(
                f"mac={mac.hex(':')}: must be 6 bytes, neither multicast (odd first byte) nor all zero"
            )
        if mtu is not None and not _MIN_MTU <= mtu <= _MAX_MTU:
            raise ValueError(f"mtu={mtu}: must be from {_MIN_MTU} to {_MAX_MTU}")
        self.id = id
        self.device_id = int(DeviceId.NET)
        self.queue_sizes = (queue_size, queue_size, _CONTROL_SIZE)
        self.mac = mac or random_mac()
        self.mtu = mtu
        self.native = native
        self.features = int(self._offered(backend))
        self.negotiated = 0
        self._backend = backend
        self._transmit_fd = os.dup(backend.fd)  # so that each direction can be watched by itself
        self._capture = capture
        self._log = GuestLog(id)
        self._link_up = True
        self._counters = (NetCounters(), NetCounters())
        self._guest_offloads: Offload | None = None  # as the control queue set them, None: as negotiated
        self._context: DeviceContext | None = None
        self._receiver: Port | None = None

    def _offered(self, backend: NetBackend) -> NetFeature:
        features = _ALWAYS | (NetFeature.MTU if self.mtu is not None else NetFeature(0))
        for table in (_TO_GUEST, _TO_HOST):
            for feature, offload in table.items():
                if backend.offloads & offload:
                    features |= feature
        if backend.offloads:
            features |= NetFeature.CTRL_VQ | NetFeature.CTRL_GUEST_OFFLOADS
        return features

    # VirtioDevice

    def read_config(self, offset: int, size: int) -> bytes:
        """Bytes of `struct virtio_net_config`."""
        config = _CONFIG.pack(self.mac, _LINK_UP if self._link_up else 0, 1, self.mtu or 0)
        return config[offset : offset + size]

    def write_config(self, offset: int, data: bytes) -> None:
        """Nothing to write."""

    def activate(self, context: DeviceContext) -> None:
        """Serve both directions, and the control queue if it was negotiated."""
        self._context = context
        self.negotiated = context.features
        offloads = self._guest_offloads
        if offloads is None:
            offloads = _offloads(context.features, _TO_GUEST)
        self._offload(offloads)
        merge = PortFlag.MRG if context.features & NetFeature.MRG_RXBUF else PortFlag(0)
        self._receiver = self._port("receive", PortFlag(offloads) | merge)
        self._serve_receive(context, self._receiver)
        self._serve_transmit(context, self._port("transmit", PortFlag(_offloads(context.features, _TO_HOST))))
        if context.features & NetFeature.CTRL_VQ:
            context.serve_chains(_CONTROL, self._control)

    def reset(self) -> None:
        """No offloads, nothing negotiated; a frame that waited for buffers is gone."""
        self.negotiated = 0
        self._guest_offloads = None
        self._context = self._receiver = None
        self._offload(Offload(0))

    def describe(self) -> Mapping[str, StateValue]:
        """No properties."""
        return {}

    def state(self) -> Mapping[str, StateValue]:
        """The address, the link, and the offloads as the control queue set them (-1: it did not)."""
        offloads = -1 if self._guest_offloads is None else int(self._guest_offloads)
        return {"mac": self.mac, "link_up": int(self._link_up), "guest_offloads": offloads}

    def restore(self, state: Mapping[str, StateValue]) -> None:
        """Take address, link and offloads over.

        Raises:
            SavedStateError: a value is impossible; nothing changed.
        """
        mac, link, offloads = state.get("mac"), state.get("link_up"), state.get("guest_offloads")
        if not isinstance(mac, bytes) or len(mac) != _MAC_SIZE or mac[0] & 1 or not any(mac):
            raise SavedStateError("mac", mac, "6 bytes, unicast, not all zero")
        if link not in (0, 1):
            raise SavedStateError("link_up", link, "0 or 1")
        if not isinstance(offloads, int) or (offloads & ~int(self._backend.offloads) and offloads != -1):
            raise SavedStateError(
                "guest_offloads", offloads, f"-1 or bits of {int(self._backend.offloads):#x}"
            )
        if offloads != -1 and _consistent(Offload(offloads)) != offloads:
            raise SavedStateError("guest_offloads", offloads, "CSUM (1) with any, TSO with ECN (8)")
        self.mac, self._link_up = mac, bool(link)
        self._guest_offloads = None if offloads == -1 else Offload(offloads)

    def close(self) -> None:
        """Close back end and capture file; idempotent."""
        fd, self._transmit_fd = self._transmit_fd, -1
        if fd >= 0:
            os.close(fd)
        self._backend.close()
        if self._capture is not None:
            self._capture.close()

    # Beyond VirtioDevice

    @property
    def link_up(self) -> bool:
        """What the guest is told of its cable; settable, any thread but with the transport's lock held."""
        return self._link_up

    @link_up.setter
    def link_up(self, up: bool) -> None:
        context = self._context
        with nullcontext() if context is None else context.config_update():
            self._link_up = up

    def stats(self) -> NetStats:
        """Counters of this moment; frames in work may be missing."""
        rx, tx = self._counters
        return NetStats(attrs.evolve(rx), attrs.evolve(tx))

    # Inside

    def _offload(self, offload: Offload) -> None:
        """Tell the back end; frames that ask for less, or for more, are dealt with one by one."""
        try:
            self._backend.set_offload(offload)
        except OSError as error:
            self._log.warning("offloads %#x refused: %s", int(offload), error.strerror)

    def _port(self, direction: Literal["receive", "transmit"], flags: PortFlag) -> Port:
        receive = direction == "receive"
        fd = self._backend.fd if receive else self._transmit_fd
        counters = self._counters[_RECEIVE if receive else _TRANSMIT]
        if self.native:
            return NativePort(self.id, direction, fd, counters, capture=self._capture, flags=flags)
        kind = PythonReceiver if receive else PythonTransmitter
        return kind(fd, counters, capture=self._capture, flags=flags)

    def _serve_receive(self, context: DeviceContext, port: Port) -> None:
        size = self.queue_sizes[_RECEIVE]
        room = max(1024, size)
        # One more than a ring has: that a batch is not full means that the ring is empty.
        batches = ChainBatch(RECEIVE_CHAINS, room), ChainBatch(size + 1, room)
        fd = self._backend.fd

        def readable() -> None:
            if not server.serve_now():
                context.unwatch(fd)

        work = ReceiveWork(port, batches, _watcher(context, fd, readable), self._backend_closed)
        server = context.serve_rounds(_RECEIVE, work)

    def _serve_transmit(self, context: DeviceContext, port: Port) -> None:
        fd = self._transmit_fd
        batch = ChainBatch(TRANSMIT_CHAINS, max(1024, self.queue_sizes[_TRANSMIT]))

        def writable() -> None:
            context.unwatch(fd)
            server.serve_now()

        watch = _watcher(context, fd, writable, events=selectors.EVENT_WRITE)
        server: QueueServer = context.serve_rounds(_TRANSMIT, TransmitWork(port, batch, watch, self._refused))

    def _refused(self, code: int) -> None:
        name = errno.errorcode.get(code, str(code))
        self._log.warning("frame dropped, the host refused it: %s (%s)", name, os.strerror(code))

    def _backend_closed(self, code: int) -> None:
        # Rate-limited: a driver that resets and begins again finds it closed each time.
        self._log.warning("link down, no more frames: %s", os.strerror(code) if code else "closed")
        self.link_up = False

    def _control(self, memory: GuestMemory, chain: DescriptorChain) -> int:  # noqa: ARG002 - the chain has it
        """One command; the only one there is sets the offloads (section 5.1.6.5.6)."""
        reader, writer = chain.reader(), chain.writer()
        size = min(reader.available, 16)
        command = reader.read(size)
        accepted = size == 10 and reader.available == 0
        if accepted:
            kind, number, wanted = struct.unpack("<BBQ", command)
            accepted = (
                kind == _Command.GUEST_OFFLOADS
                and number == _Command.GUEST_OFFLOADS_SET
                and self._set_guest_offloads(wanted)
            )
        writer.write(bytes([_Command.OK if accepted else _Command.ERR]))
        return 1

    def _set_guest_offloads(self, wanted: int) -> bool:
        offered = sum(feature for feature in _TO_GUEST if self.negotiated & feature)
        offloads = _offloads(wanted, _TO_GUEST)
        port = self._receiver
        if not self.negotiated & NetFeature.CTRL_GUEST_OFFLOADS or wanted & ~offered or port is None:
            return False
        try:
            self._backend.set_offload(offloads)
        except OSError as error:
            self._log.warning("guest offloads %#x refused: %s", wanted, error.strerror)
            return False
        self._guest_offloads = offloads
        port.flags = PortFlag(offloads) | port.flags & PortFlag.MRG
        return True


def _watcher(
    context: DeviceContext, fd: int, callback: Callable[[], None], *, events: int = selectors.EVENT_READ
) -> Callable[[bool], None]:
    def watch(wanted: bool, /) -> None:
        if wanted:
            context.watch(fd, callback, events=events)
        else:
            context.unwatch(fd)

    return watch
