"""Frames as a guest's network driver sends and receives them, and a socket in the place of a tap."""

import itertools
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final, final

import attrs
from virtio_queue.testing import Completion

from virtio_devices._net import NetFeature
from virtio_devices._net_port import BODY_MAX, HEADER, Offload
from virtio_devices._spec import DeviceId
from virtio_devices.testing._mmio_driver import DeviceRefusedError, MmioDriver

_HEADER: Final = struct.Struct("<BBHHHHH")
_SEND_ROOM: Final = 8 << 20
_ALL: Final = Offload.CSUM | Offload.TSO4 | Offload.TSO6 | Offload.ECN
RX, TX, CONTROL = 0, 1, 2


@attrs.frozen
class NetHeader:
    """`struct virtio_net_hdr_v1` (VIRTIO 1.2 section 5.1.6).

    Args:
        flags, gso_type: VIRTIO_NET_HDR_F_* and VIRTIO_NET_HDR_GSO_*, 8 bits each.
        hdr_len, gso_size: Bytes of the headers, and of a segment's payload, 16 bits each.
        csum_start, csum_offset: Where checksumming begins, and where in that the sum goes; 16 bits each.
        num_buffers: Buffers that hold the frame, 16 bits.
    """

    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    num_buffers: int = 0

    def encode(self) -> bytes:
        """The 12 bytes."""
        return _HEADER.pack(*attrs.astuple(self))

    @classmethod
    def decode(cls, data: bytes) -> "NetHeader":
        """Read 12 bytes."""
        return cls(*_HEADER.unpack(data[:HEADER]))


@attrs.frozen
class ReceivedFrame:
    """A frame that the device gave: its `header`, and `body`, the bytes from the Ethernet header on."""

    header: NetHeader
    body: bytes


@final
class NetDriver:
    """Frames on top of `MmioDriver` (VIRTIO 1.2 section 5.1.6).

    Args:
        driver: an initialised driver of a network device, queues 0 and 1 (and 2 for commands) set up.

    Raises:
        DeviceRefusedError: the device is no network card.
    """

    def __init__(self, driver: MmioDriver) -> None:
        self.driver = driver
        self._arrived: deque[Completion] = deque()
        kind = driver.probe()
        if kind != DeviceId.NET:
            raise DeviceRefusedError("DeviceID", kind, "1 (network)")

    @property
    def mac(self) -> bytes:
        """The address in the configuration space, 6 bytes."""
        return bytes(self.driver.read_config(i, 1) for i in range(6))

    @property
    def link_up(self) -> bool:
        """Bit 0 of the status in the configuration space."""
        return bool(self.driver.read_config(6, 2) & 1)

    @property
    def mtu(self) -> int:
        """The MTU in the configuration space."""
        return self.driver.read_config(10, 2)

    def provide(self, *sizes: int, cut: int | None = None, indirect: bool = False) -> None:
        """Give the device receive buffers.

        Args:
            sizes: bytes of each.
            cut: cut each into descriptors of this size; None: one each.
            indirect: put the descriptors of each into an indirect table.
        """
        for size in sizes:
            parts = [size] if cut is None else [min(cut, size - i) for i in range(0, size, cut)]
            self.driver.queues[RX].request((), parts, indirect=indirect)
        self.driver.kick(RX)

    def receive(self) -> ReceivedFrame:
        """Wait for one frame.

        Raises:
            DriverTimeoutError: none came in time.
            DeviceRefusedError: the number of buffers in its header is impossible.
        """
        first = self._next_buffer()
        header = NetHeader.decode(first)
        merged = self.driver.features & NetFeature.MRG_RXBUF
        if header.num_buffers < 1 or (header.num_buffers > 1 and not merged):
            raise DeviceRefusedError("num_buffers", header.num_buffers, "1, or more with MRG_RXBUF")
        rest = [self._next_buffer() for _ in range(header.num_buffers - 1)]
        return ReceivedFrame(header, b"".join([first[HEADER:], *rest]))

    def _next_buffer(self) -> bytes:
        if not self._arrived:
            self._arrived.extend(self.driver.wait(RX))
        return b"".join(self._arrived.popleft().data)

    def post(
        self,
        body: bytes,
        header: NetHeader | None = None,
        *,
        cuts: Sequence[int] = (HEADER,),
        indirect: bool = False,
    ) -> int:
        """Make a frame available to the device and kick.

        Args:
            body: from the Ethernet header on.
            header: None for one that asks for nothing.
            cuts: where the bytes of header and body are cut into descriptors, ascending.
            indirect: put the descriptors into an indirect table.

        Returns:
            The head of the chain.
        """
        data = (header or NetHeader()).encode() + body
        edges = [0, *[cut for cut in cuts if 0 < cut < len(data)], len(data)]
        parts = [data[a:b] for a, b in itertools.pairwise(edges)]
        head = self.driver.queues[TX].request(parts, indirect=indirect)
        self.driver.kick(TX)
        return head

    def send(
        self,
        body: bytes,
        header: NetHeader | None = None,
        *,
        cuts: Sequence[int] = (HEADER,),
        indirect: bool = False,
    ) -> None:
        """As `post`, and wait until the device has taken the frame.

        Raises:
            DriverTimeoutError: it did not in time.
        """
        self.post(body, header, cuts=cuts, indirect=indirect)
        self.driver.wait(TX)

    def command(self, kind: int, number: int, data: bytes = b"") -> int:
        """One command on the control queue; its acknowledgement, 0 for OK."""
        done = self.driver.request([bytes([kind, number]), data], [1], queue=CONTROL)
        return done.data[0][0]

    def set_guest_offloads(self, bits: int) -> int:
        """VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET (section 5.1.6.5.6); the acknowledgement."""
        return self.command(5, 0, struct.pack("<Q", bits))


@final
class SocketBackend:
    """A pair of sockets that keeps message boundaries, in the place of a tap; has the shape of `NetBackend`.

    Args:
        offloads: what the far end can do.
        room: bytes that each end may have on the way (as SO_SNDBUF, the kernel has a limit of its own).

    Attributes:
        far: the other end, where a test reads and writes frames (12 bytes of header first).
        offload: what `set_offload` was last called with.
    """

    def __init__(self, offloads: Offload = _ALL, *, room: int = _SEND_ROOM) -> None:
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        for end in (near, self.far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        self._near = near
        self.fd = near.fileno()
        self.offloads = offloads
        self.offload: Offload | None = None

    def set_offload(self, offload: Offload) -> None:
        """Remember it."""
        self.offload = offload

    def give(self, body: bytes, header: NetHeader | None = None) -> None:
        """Send a frame to the guest."""
        self.far.send((header or NetHeader()).encode() + body)

    def take(self, timeout: float = 60.0) -> tuple[NetHeader, bytes]:
        """Wait for a frame of the guest."""
        self.far.settimeout(timeout)
        data = self.far.recv(HEADER + BODY_MAX + 1)
        return NetHeader.decode(data), data[HEADER:]

    def close(self) -> None:
        """Close the near end; `far` stays the test's."""
        self._near.close()
