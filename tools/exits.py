"""Where the time of a machine's exits went: a table of a trace that `vmm run --trace` wrote.

Usage: python tools/exits.py TRACE [--most N]

A row is what a vCPU asked for, by how often it left the guest for it or how long it stayed outside.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent


@attrs.frozen
class Slice:
    """One time outside the guest.

    Attributes:
        track: Name of the vCPU.
        name: Reason of the exit, or kick, signal, wait.
        category: exit, native, kick, signal or wait.
        details: The arguments.
        begin_ns: When KVM_RUN was back.
        end_ns: When the guest was entered again.
    """

    track: str
    name: str
    category: str
    details: dict[str, int | str]
    begin_ns: int
    end_ns: int


def slices(path: Path) -> Iterator[Slice]:
    """Read a trace, whose slices are not nested.

    Raises:
        ValueError: A slice begins within another, ends without one, or never ends.
    """
    trace = Trace.FromString(path.read_bytes())
    tracks = {p.track_descriptor.uuid: p.track_descriptor.name for p in trace.packet}
    opened: dict[int, tuple[TrackEvent, int]] = {}
    for packet in trace.packet:
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        if (event.type == TrackEvent.TYPE_SLICE_BEGIN) == (event.track_uuid in opened):
            raise ValueError(f"{path}: {tracks[event.track_uuid]} is not balanced at {packet.timestamp}")
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            opened[event.track_uuid] = event, packet.timestamp
            continue
        first, begin_ns = opened.pop(event.track_uuid)
        details = {note.name: getattr(note, note.WhichOneof("value")) for note in first.debug_annotations}
        track = tracks[event.track_uuid]
        yield Slice(track, first.name, first.categories[0], details, begin_ns, packet.timestamp)
    if opened:
        raise ValueError(f"{path}: {len(opened)} slices never end")


def what(slice_: Slice) -> str:
    """What a row of the table is called."""
    place = next((f" {slice_.details[key]:#x}" for key in ("port", "address") if key in slice_.details), "")
    access = f" {slice_.details['access']}" if "access" in slice_.details else ""
    return f"{slice_.name}{place}{access} ({slice_.category})"


def table(found: Sequence[Slice], most: int) -> list[str]:
    """Return the lines of the table, those with the most time first."""
    counts: defaultdict[str, int] = defaultdict(int)
    spent: defaultdict[str, int] = defaultdict(int)
    for one in found:
        counts[what(one)] += 1
        spent[what(one)] += one.end_ns - one.begin_ns
    first = min((one.begin_ns for one in found), default=0)
    last = max((one.end_ns for one in found), default=0)
    outside = sum(spent.values())
    lines = [
        f"{len(found)} slices in {(last - first) / 1e9:.3f} s, {outside / 1e9:.3f} s of it outside the guest",
        f"{'count':>9} {'ms':>10} {'us each':>9}  what",
    ]
    for name in sorted(spent, key=spent.__getitem__, reverse=True)[:most]:
        each = spent[name] / counts[name] / 1e3
        lines.append(f"{counts[name]:>9} {spent[name] / 1e6:>10.1f} {each:>9.1f}  {name}")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--most", type=int, default=25, help="rows (default: %(default)s)")
    options = parser.parse_args()
    print("\n".join(table(list(slices(options.trace)), options.most)))


if __name__ == "__main__":
    main()
