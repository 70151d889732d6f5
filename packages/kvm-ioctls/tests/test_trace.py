"""Traces of exits: complete, in order, equal to the counters, whatever the room."""

import errno
import os
import signal
import threading
import time
from collections import Counter as Tally

import pytest
from kvm_ioctls import (
    TRACED_EXIT_BYTES,
    ClosedError,
    Constant,
    Drop,
    ExitReason,
    Hlt,
    Intr,
    NativeExits,
    NativeRange,
    Regs,
    RunEnd,
    VcpuBusyError,
    traced_exits,
)
from kvm_ioctls._ffi import ffi, lib
from kvm_ioctls.testing import TinyGuest

SPIN = bytes.fromhex("ebfe")
# mov dx,0x600; l: out dx,al; in eax,0x70 (66: 32 bits); dec cx; jnz l; hlt
TALK = bytes.fromhex("ba0006 ee 66e570 49 75f9 f4")


@pytest.fixture
def records():
    """A list, and a sink that fills it."""
    found = []
    return found, lambda data: found.extend(traced_exits(data))


def check_counters(records, stats):
    """The records and the counters say the same."""
    exits = Tally(r.reason for r in records if r.end in (RunEnd.EXIT, RunEnd.NATIVE))
    assert exits == stats.exits
    ends = Tally(r.end for r in records)
    assert ends[RunEnd.NATIVE] == stats.native
    assert [ends[end] for end in (RunEnd.KICK, RunEnd.SIGNAL, RunEnd.WAIT)] == [
        stats.kicks,
        stats.interrupted,
        stats.waits,
    ]


def check_times(records):
    """Each run begins after the one before has ended."""
    times = [time for r in records for time in (r.entered_ns, r.left_ns)]
    assert times == sorted(times)


def test_record_has_the_layout_of_c():
    """The Python format and the C struct are the same."""
    struct = ffi.new("struct kvmx_traced *")
    struct.entered, struct.left, struct.addr = 1, 2, 3
    struct.reason, struct.count, struct.how, struct.is_write, struct.size = 4, 5, 6, 7, 8
    (record,) = traced_exits(bytes(ffi.buffer(struct)))

    assert ffi.sizeof("struct kvmx_traced") == TRACED_EXIT_BYTES
    assert tuple(record) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert list(RunEnd) == [lib.KVMX_TO_CALLER, lib.KVMX_IN_C, lib.KVMX_KICK, lib.KVMX_SIGNAL, lib.KVMX_WAIT]


def test_part_of_a_record_is_refused():
    """A cut file is an error, not one record less."""
    with pytest.raises(ValueError, match=r"^41 bytes are not whole records of 40$"):
        traced_exits(bytes(41))


@pytest.mark.kvm
@pytest.mark.parametrize("room", [1, 2, 7, 4096])
def test_every_exit_is_there_whatever_the_room(records, room):
    """Exits of C and of Python, and the last one; a full buffer only empties it."""
    found, sink = records
    table = NativeExits([NativeRange("pio", 0x600, 1, write=Drop())])
    before = time.monotonic_ns()
    with TinyGuest(TALK, regs=Regs(rcx=20)) as guest:
        guest.vcpu.trace_exits(sink, room=room)
        while guest.vcpu.run(table) != Hlt():
            pass
        guest.vcpu.trace_exits(None)
        check_counters(found, guest.vcpu.stats())
    check_times([*found])

    assert before <= found[0].entered_ns
    assert found[-1].left_ns <= time.monotonic_ns()
    pair = [
        (0x600, ExitReason.IO, 1, RunEnd.NATIVE, 1, 1),
        (0x70, ExitReason.IO, 1, RunEnd.EXIT, 0, 4),
    ]
    assert [r[2:] for r in found] == [*pair * 20, (0, ExitReason.HLT, 0, RunEnd.EXIT, 0, 0)]


@pytest.mark.kvm
def test_kicks_and_signals_are_there(records):
    """What ends a run without an exit is a record as well."""
    found, sink = records
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with TinyGuest(SPIN) as guest:
            guest.vcpu.trace_exits(sink)
            main = threading.get_ident()

            def disturb():
                while not guest.vcpu.stats().interrupted:
                    signal.pthread_kill(main, signal.SIGUSR1)
                    time.sleep(0.001)
                guest.vcpu.kick()

            helper = threading.Thread(target=disturb)
            helper.start()
            assert guest.vcpu.run() == Intr()
            helper.join()
            guest.vcpu.kick()
            assert guest.vcpu.run() == Intr()
            guest.vcpu.trace_exits(None)
            check_counters(found, guest.vcpu.stats())
    finally:
        signal.signal(signal.SIGUSR1, old)
    check_times(found)

    assert [r.end for r in found[-2:]] == [RunEnd.KICK] * 2


@pytest.mark.kvm
def test_pending_accesses_are_there(records):
    """complete_pending finds room, and what it finishes or finds is counted once."""
    found, sink = records
    with TinyGuest(TALK, regs=Regs(rcx=2)) as guest:
        guest.vcpu.trace_exits(sink, room=1)
        for _ in range(4):
            guest.vcpu.run()
            assert guest.vcpu.complete_pending() is None
        assert guest.vcpu.run() == Hlt()
        guest.vcpu.trace_exits(None)
        check_counters(found, guest.vcpu.stats())

    assert len(found) == 5


@pytest.mark.kvm
def test_a_sink_that_fails_is_the_callers_error(records):
    """Its exception comes out of run; the guest has not moved and goes on."""
    found, sink = records

    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with TinyGuest(TALK, regs=Regs(rcx=1)) as guest:
        guest.vcpu.trace_exits(fail, room=1)
        guest.vcpu.run()
        with pytest.raises(OSError, match="No space left"):
            guest.vcpu.run()
        guest.vcpu.trace_exits(sink)
        assert guest.vcpu.run().port == 0x70
        assert guest.vcpu.run() == Hlt()
        guest.vcpu.trace_exits(None)

    assert [r.reason for r in found] == [ExitReason.IO, ExitReason.HLT]


@pytest.mark.kvm
def test_an_ended_trace_costs_and_says_nothing(records):
    """After None the sink is not called; a new trace begins where it was asked for."""
    found, sink = records
    table = NativeExits([NativeRange("pio", 0, 0x1000, read=Constant(), write=Drop())])
    with TinyGuest(bytes.fromhex("e680 e680 f4 e680 f4")) as guest:
        guest.vcpu.trace_exits(sink, room=2)
        guest.vcpu.trace_exits(None)
        assert guest.vcpu.run(table) == Hlt()
        assert found == []
        guest.vcpu.trace_exits(sink)
        assert guest.vcpu.run(table) == Hlt()
        guest.vcpu.trace_exits(None)

    assert [(r.reason, r.addr) for r in found] == [(ExitReason.IO, 0x80), (ExitReason.HLT, 0)]


@pytest.mark.kvm
def test_refusals(records):
    """A room out of range, a vCPU in use, a closed one: nothing is changed."""
    _, sink = records
    with TinyGuest(SPIN) as guest:
        for room in (0, (1 << 20) + 1):
            with pytest.raises(ValueError, match=rf"^room={room} is not in 1\.\.1048576$"):
                guest.vcpu.trace_exits(sink, room=room)
        thread = threading.Thread(target=guest.vcpu.run)
        thread.start()
        while not lib.kvmx_vcpu_user(guest.vcpu._vcpu):
            time.sleep(0.001)
        with pytest.raises(VcpuBusyError):
            guest.vcpu.trace_exits(sink)
        guest.vcpu.kick()
        thread.join()
        guest.vcpu.close()
        with pytest.raises(ClosedError):
            guest.vcpu.trace_exits(None)
