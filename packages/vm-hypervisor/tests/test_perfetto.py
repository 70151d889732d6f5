"""The trace format, read back by Perfetto's own classes."""

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import DebugAnnotation, Trace, TrackEvent
from vm_hypervisor._perfetto import SliceFile, field, varint

U64 = st.integers(0, 2**64 - 1)
TIMES = st.integers(0, 2**63 - 1)


@given(number=st.sampled_from([3, 7]), value=U64)
def test_numbers(number, value):
    """Any 64-bit number arrives, in the fewest bytes."""
    ours = DebugAnnotation.FromString(field(number, value))
    theirs = DebugAnnotation(uint_value=value) if number == 3 else DebugAnnotation(pointer_value=value)
    assert ours == theirs
    assert field(number, value) == theirs.SerializeToString()
    assert len(varint(value)) == max(1, -(-value.bit_length() // 7))


@given(text=st.text(max_size=300))
def test_texts(text):
    """Any text arrives."""
    assert field(6, text) == DebugAnnotation(string_value=text).SerializeToString()


@given(
    slices=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.text(max_size=5),
            st.dictionaries(st.text(max_size=3), U64 | st.text()),
            TIMES,
        )
    )
)
def test_slices(slices):
    """What was put in is what Perfetto's classes read: process, tracks, each slice begun and ended."""
    out, before = io.BytesIO(), time.monotonic_ns()
    file = SliceFile(out, "a machine", 4711)
    tracks = [file.add_track(name) for name in ("vcpu0", "vcpu1")]
    for where, name, details, when in slices:
        file.add(tracks[where], file.event(tracks[where], name, "native", details), when, when // 2)
    trace = Trace.FromString(out.getvalue())

    clocks = {clock.clock_id: clock.timestamp for clock in trace.packet[0].clock_snapshot.clocks}
    assert clocks.keys() == {1, 3, 6}
    assert before <= clocks[3] <= time.monotonic_ns()
    process, *named = [p.track_descriptor for p in trace.packet if p.HasField("track_descriptor")]
    assert (process.process.pid, process.process.process_name) == (4711, "a machine")
    assert [(t.uuid, t.name, t.parent_uuid) for t in named] == [
        (tracks[0], "vcpu0", process.uuid),
        (tracks[1], "vcpu1", process.uuid),
    ]
    events = [p for p in trace.packet if p.HasField("track_event")]
    assert {p.timestamp_clock_id for p in events} <= {3}
    assert {p.trusted_packet_sequence_id for p in trace.packet} == {1}
    for (where, name, details, when), begin, end in zip(slices, events[::2], events[1::2], strict=True):
        assert (begin.timestamp, end.timestamp) == (when, when // 2)
        assert {begin.track_event.track_uuid, end.track_event.track_uuid} == {tracks[where]}
        assert begin.track_event.type == TrackEvent.TYPE_SLICE_BEGIN
        assert end.track_event.type == TrackEvent.TYPE_SLICE_END
        assert (begin.track_event.name, list(begin.track_event.categories)) == (name, ["native"])
        assert {note.name: value_of(note) for note in begin.track_event.debug_annotations} == details


def value_of(note):
    """The value of an annotation, whichever kind it is."""
    return getattr(note, note.WhichOneof("value"))


@pytest.mark.parametrize(
    ("value", "expected"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\1"), (300, b"\xac\2")]
)
def test_varints_of_the_specification(value, expected):
    """The examples of protobuf's encoding page."""
    assert varint(value) == expected
