"""Perfetto's trace format, as far as slices on tracks need it.

A trace is a stream of protobuf messages (perfetto/protos/perfetto/trace: trace_packet.proto,
track_event/*.proto, clock_snapshot.proto); what is cut off is a shorter trace. The library would bring
the protobuf runtime into every VMM and build an object for each field; the tests decode with it instead.
"""

import time
from collections.abc import Mapping
from typing import BinaryIO, Final

_BOOTTIME, _MONOTONIC, _REALTIME = 6, 3, 1  # builtin_clock.proto
_BEGIN, _END = 1, 2  # TrackEvent.Type
_PROCESS: Final = 1  # uuid of the track that holds the others


def varint(value: int) -> bytes:
    """Encode a number of 0 … 2^64 - 1, seven bits a byte, least first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | str | bytes) -> bytes:
    """Encode a field: a number as varint, text and messages with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


_PACKET: Final = varint(1 << 3 | 2)
_TIMESTAMP: Final = varint(8 << 3)
_OURS: Final = field(10, 1)  # trusted_packet_sequence_id


def _nanoseconds(value: int) -> bytes:
    """Encode a number below 2^63 in nine bytes, without the loop: every slice has two of them."""
    groups = [value >> shift & 0x7F | 0x80 for shift in (0, 7, 14, 21, 28, 35, 42, 49)]
    return bytes((*groups, value >> 56))


class SliceFile:
    """Slices on named tracks, in the order they are given; times are nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self, out: BinaryIO, process: str, pid: int) -> None:
        """Begin a trace of one process.

        Raises:
            OSError: `out` does not take it.
        """
        self._out = out
        self._ends: list[bytes] = []
        # All at one time, so that a reader can place the slices among those of other traces.
        clocks = b"".join(field(1, field(1, clock) + field(2, now_ns)) for clock, now_ns in _now().items())
        self._packet(field(13, 1) + field(6, clocks))  # sequence_flags: nothing came before
        named = field(1, pid) + field(6, process)
        self._packet(field(60, field(1, _PROCESS) + field(3, named)))

    def add_track(self, name: str) -> int:
        """Begin a track and return its number.

        Raises:
            OSError: as the constructor.
        """
        uuid = _PROCESS + 1 + len(self._ends)
        self._packet(field(60, field(1, uuid) + field(2, name) + field(5, _PROCESS)))
        self._ends.append(_on_our_clock(field(9, _END) + field(11, uuid)))
        return uuid

    @staticmethod
    def event(track: int, name: str, category: str, details: Mapping[str, int | str]) -> bytes:
        """Return what is the same in all slices of this name on this track, for `add`."""
        notes = (
            field(4, field(10, key) + field(3 if isinstance(value, int) else 6, value))
            for key, value in details.items()
        )
        named = field(22, category) + field(23, name) + b"".join(notes)
        return _on_our_clock(field(9, _BEGIN) + field(11, track) + named)

    def add(self, track: int, event: bytes, begin_ns: int, end_ns: int) -> None:
        """Add a slice.

        Raises:
            OSError: as the constructor.
        """
        self._packet(_TIMESTAMP + _nanoseconds(begin_ns) + event)
        self._packet(_TIMESTAMP + _nanoseconds(end_ns) + self._ends[track - _PROCESS - 1])

    def _packet(self, body: bytes) -> None:
        self._out.write(_PACKET + varint(len(body) + len(_OURS)) + body + _OURS)


def _on_our_clock(event: bytes) -> bytes:
    return field(58, _MONOTONIC) + field(11, event)


def _now() -> dict[int, int]:
    return {
        _BOOTTIME: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        _MONOTONIC: time.monotonic_ns(),
        _REALTIME: time.time_ns(),
    }
