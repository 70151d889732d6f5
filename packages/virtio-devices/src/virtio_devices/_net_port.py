"""What both data paths of virtio-net share: limits, negotiated bits, what a turn came to, the other end."""

import enum
from typing import Final, NamedTuple, Protocol

import attrs
from virtio_queue import ChainBatch, DriverError
from vmm_memory import GuestMemory

__all__ = (
    "BODY_MAX",
    "BODY_MIN",
    "HEADER",
    "NetBackend",
    "NetCounters",
    "Offload",
    "Port",
    "PortFlag",
    "Stop",
    "Turn",
)

HEADER: Final = 12
"""Bytes of a struct virtio_net_hdr_v1 (VIRTIO 1.2 section 5.1.6)."""
BODY_MIN: Final = 14
"""Fewest bytes behind it: an Ethernet header."""
BODY_MAX: Final = 65554
"""Most: a segment of 64 KiB with Ethernet header and VLAN tag."""


class Offload(enum.IntFlag):
    """Work on frames that one end may leave to the other by their header (TUN_F_* of linux/if_tun.h)."""

    CSUM = 1
    TSO4 = 2
    TSO6 = 4
    ECN = 8


class PortFlag(enum.IntFlag):
    """VNET_* of csrc/net.h: what was negotiated for one direction."""

    CSUM = 1
    TSO4 = 2
    TSO6 = 4
    ECN = 8
    MRG = 16


class Stop(enum.IntEnum):
    """Why a turn ended: VNET_MORE … VNET_CLOSED of csrc/net.h."""

    MORE = 0
    BLOCKED = 1
    STARVED = 2
    CLOSED = 3


class Turn(NamedTuple):
    """What one turn over a batch came to.

    Attributes:
        used: so many chains, from the first on, are done; the others are to be given back.
        stop: why it ended.
        broken: what the driver did wrong with the chain at `used`, or with a later one.
        error: errno of the read, with CLOSED; 0: the other end closed.
    """

    used: int
    stop: Stop
    broken: DriverError | None
    error: int


@attrs.define
class NetCounters:
    """Frames of one direction since the device was made.

    Attributes:
        packets: moved.
        bytes: of them, without virtio header.
        csum: of them, with a checksum that the receiver has to finish or to trust.
        gso: of them, larger than the link's packets.
        merged: of them, in more than one receive buffer.
        invalid: dropped for an impossible length, or a header that asks for what was not negotiated.
        oversized: dropped because the driver's receive buffers are too small.
        refused: dropped because the host refused them (a tap that is down, a header that is wrong).
    """

    packets: int = 0
    bytes: int = 0
    csum: int = 0
    gso: int = 0
    merged: int = 0
    invalid: int = 0
    oversized: int = 0
    refused: int = 0


class NetBackend(Protocol):
    """The other end of a network device: a tap, or anything else whose fd carries frames.

    Each read or write of the fd is one frame with `struct virtio_net_hdr_v1` (12 bytes, little-endian) before
    it: a tap with IFF_VNET_HDR, or a socket that keeps message boundaries. A read of 0 bytes means that the
    far end is closed.
    """

    @property
    def fd(self) -> int:
        """Non-blocking, pollable, open as long as the device is."""
        ...

    @property
    def offloads(self) -> Offload:
        """What headers may ask of the other side, in either direction."""
        ...

    def set_offload(self, offload: Offload) -> None:
        """Let the headers of frames to the guest ask for these from now on.

        Raises:
            OSError: the host refuses.
        """
        ...

    def close(self) -> None:
        """Release the fd; idempotent."""
        ...


class Port(Protocol):
    """One direction of one device, in C or in Python; `flags` is what was negotiated for it."""

    flags: PortFlag

    @property
    def pending(self) -> bool:
        """Whether a received frame waits for more buffers."""
        ...

    def drop_pending(self) -> None:
        """Give that frame up: no number of buffers will do."""
        ...

    def run(self, memory: GuestMemory, batch: ChainBatch) -> Turn:
        """Move frames; `written` is set in the chains that are done."""
        ...

    def take_error(self) -> int:
        """Errno of the first frame that the host refused since the last call, 0 for none."""
        ...
