"""Traces of machines: as many slices as the run loop has counted, balanced, whatever the disk does."""

import contextlib
import os
import resource
import signal
import threading
import time
from collections import Counter

import pytest
from kvm_ioctls import ExitReason, KvmStateError
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import NativeAnswer, VcpuManager
from vm_hypervisor.testing import RecordingOps
from vm_hypervisor.trace import ExitTrace

pytestmark = pytest.mark.kvm

TALK = "e6 80 e4 70 eb fa"  # l: out 0x80, al; in al, 0x70; jmp l


def slices(path):
    """Return (track, name, category, arguments, begin, end) of each slice; they must be balanced."""
    trace = Trace.FromString(path.read_bytes())
    names = {p.track_descriptor.uuid: p.track_descriptor.name for p in trace.packet}
    found, opened, last = [], {}, {}
    for packet in trace.packet:
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        track = names[event.track_uuid]
        assert packet.timestamp >= last.get(track, 0), "times go on"
        last[track] = packet.timestamp
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert track not in opened, "no exit within another"
            notes = {note.name: getattr(note, note.WhichOneof("value")) for note in event.debug_annotations}
            opened[track] = (track, event.name, event.categories[0], notes, packet.timestamp)
        else:
            found.append((*opened.pop(track), packet.timestamp))
    assert not opened, "each is ended"
    return found


def counted(stats):
    """The counters of a vCPU as slices have them: Counter of (name, category)."""
    exits = Counter({ExitReason(reason).name: count for reason, count in stats.exits.items()})
    other = {"kick": stats.kicks, "signal": stats.interrupted, "wait": stats.waits}
    return exits + Counter(other), stats.native


def check_totals(path, vcpus):
    """Every vCPU's slices are what it has counted."""
    found = slices(path)
    for vcpu in vcpus:
        mine = [s for s in found if s[0] == f"vcpu{vcpu.index}"]
        by_name, native = counted(vcpu.stats())
        assert Counter(s[1] for s in mine) == by_name
        assert sum(s[2] == "native" for s in mine) == native
    return found


def machine_of(machine, count):
    """Two or more vCPUs that talk to ports for ever; port 0x80 is answered in C."""
    machine.vm.set_native_answers([NativeAnswer(AddressRange(AddressSpace.PIO, 0x80, 1), drop_writes=True)])
    vcpus = [machine.vcpu(TALK, index=0)]
    for index in range(1, count):
        vcpus.append(machine.vcpu(TALK, index=index))
        vcpus[-1].fd.set_mp_state(0)  # no start-up message for this one
    ops = RecordingOps()
    manager = VcpuManager(vcpus, lambda _: ops, lambda stop: pytest.fail(str(stop)))
    return vcpus, ops, manager


def run_until(vcpus, exits):
    """Wait until each vCPU has had so many exits."""
    end = time.monotonic() + 60
    while min(sum(vcpu.stats().exits.values()) for vcpu in vcpus) < exits:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("count", [1, 2])
def test_totals_are_those_of_the_run_loop(machine, tmp_path, count):
    """Through pauses and full buffers, on each vCPU; what it is about is in the arguments."""
    vcpus, ops, manager = machine_of(machine, count)
    trace = ExitTrace(tmp_path / "t.pftrace", vcpus)
    manager.start()
    for _ in range(5):
        manager.pause()
        manager.resume()
    run_until(vcpus, 10_000)  # more than one buffer of 4096
    manager.stop()
    trace.close()

    found = check_totals(tmp_path / "t.pftrace", vcpus)
    kinds = {(name, category, tuple(sorted(notes.items()))) for _, name, category, notes, *_ in found}
    common = (("bytes", 1), ("elements", 1))
    assert kinds == {
        ("IO", "native", (("access", "write"), *common, ("port", 0x80))),
        ("IO", "exit", (("access", "read"), *common, ("port", 0x70))),
        ("kick", "kick", ()),
    }
    assert sum(s[2] == "exit" for s in found) == len(ops.log)
    assert list(tmp_path.iterdir()) == [tmp_path / "t.pftrace"]


def test_time_outside_the_guest(machine, tmp_path):
    """A slice is as long as the device takes, and a pause is a long kick."""
    vcpus, ops, manager = machine_of(machine, 1)
    read, slow = ops.pio_read, threading.Event()

    def answer(port, size):
        if not slow.is_set():
            slow.set()
            time.sleep(0.2)
        return read(port, size)

    ops.pio_read = answer
    trace = ExitTrace(tmp_path / "t", vcpus)
    manager.start()
    assert slow.wait(60)
    manager.pause()
    time.sleep(0.1)
    manager.resume()
    run_until(vcpus, 100)
    manager.stop()
    trace.close()

    found = check_totals(tmp_path / "t", vcpus)
    longest = {
        kind: max(end - begin for *_, c, _, begin, end in found if c == kind) for kind in ("exit", "kick")
    }
    assert longest["exit"] >= 200_000_000
    assert longest["kick"] >= 100_000_000


def test_a_machine_that_never_ran(machine, tmp_path):
    """Tracks without slices."""
    vcpus, _, _ = machine_of(machine, 1)
    ExitTrace(tmp_path / "t", vcpus).close()
    assert slices(tmp_path / "t") == []


def test_a_file_that_cannot_be_made(machine, tmp_path):
    """An error at once, and nothing is traced."""
    vcpus, _, manager = machine_of(machine, 1)
    with pytest.raises(FileNotFoundError):
        ExitTrace(tmp_path / "none" / "t", vcpus)
    manager.start()
    run_until(vcpus, 5000)
    manager.stop()


@contextlib.contextmanager
def small_files():
    """Inside, no file grows beyond 100 KB; not a fixture, since pytest's own output may be longer."""
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


def test_a_full_disk_ends_the_trace_and_not_the_machine(machine, tmp_path, caplog):
    """What it took is a trace; what is missing is said, in few words."""
    vcpus, _, manager = machine_of(machine, 1)
    with small_files():
        trace = ExitTrace(tmp_path / "t", vcpus)
        manager.start()
        run_until(vcpus, 20_000)
        manager.stop()
        trace.close()

    assert "exits of vCPU 0 are missing" in caplog.text
    assert "trace: the rest is lost: File too large" in caplog.text
    assert len(caplog.records) <= 4
    assert (tmp_path / "t").stat().st_size <= 100_000


def test_a_trace_that_cannot_begin_leaves_no_vcpu_traced(machine, tmp_path):
    """The second vCPU gets no file any more: the first one runs on, its records go nowhere."""
    vcpus, _, manager = machine_of(machine, 2)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.open(os.devnull, os.O_RDONLY)
    second = os.dup(first)
    os.close(first)
    os.close(second)
    resource.setrlimit(resource.RLIMIT_NOFILE, (second + 1, limit[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            ExitTrace(tmp_path / "trace", vcpus)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert os.open(os.devnull, os.O_RDONLY) == first
    os.close(first)
    manager.start()
    run_until(vcpus, 5000)  # more than a buffer
    manager.stop()


def test_a_vcpu_closed_too_early_leaves_no_file_open(machine, tmp_path):
    """The order is wrong and said so; the trace's files are closed, and the other vCPU is free of it."""
    vcpus, _, _ = machine_of(machine, 2)
    trace = ExitTrace(tmp_path / "trace", vcpus)
    files = {str(tmp_path / "trace"), str(tmp_path)}
    assert open_in(files)
    vcpus[0].close()
    with pytest.raises(KvmStateError, match="closed"):
        trace.close()
    assert not open_in(files)
    vcpus[1].kick()
    vcpus[1].run(RecordingOps())
    vcpus[1].fd.trace_exits(None)


def open_in(places):
    """The descriptors of this process that lead to these places, or to unnamed files there."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [t for t in targets if t in places or os.path.dirname(t) in places]
