"""Kicks: never lost, never doubled, harmless at any time."""

import os
import signal
import threading
import time

import pytest
from kvm_ioctls import (
    Drop,
    ExitReason,
    Hlt,
    Intr,
    IoOut,
    MpState,
    NativeExits,
    NativeRange,
    VcpuBusyError,
    block_signals,
)
from kvm_ioctls._ffi import lib
from kvm_ioctls.testing import TinyGuest

pytestmark = pytest.mark.kvm

SPIN = bytes.fromhex("ebfe")  # jmp $
HLT = b"\xf4"
OUT_LOOP = bytes.fromhex("ba0006 ee ebfd")  # mov dx,0x600; l: out dx,al; jmp l


def test_kick_before_run_is_not_lost():
    """A kick to an idle vCPU ends the next run, once."""
    with TinyGuest(bytes.fromhex("e680 f4")) as guest:
        guest.vcpu.kick()
        guest.vcpu.kick()

        assert [guest.vcpu.run() for _ in range(2)] == [Intr(), IoOut(0x80, 1, 1, b"\0")]
        assert guest.vcpu.stats().kicks == 1


def test_a_kick_finds_the_thread_of_a_forked_child():
    """The thread that forked has another number in the child, where kicks of new vCPUs go."""
    with TinyGuest(HLT) as guest:
        assert guest.vcpu.run() == Hlt()
    pid = os.fork()
    if pid == 0:
        with TinyGuest(SPIN) as guest:
            kicker = threading.Timer(0.1, guest.vcpu.kick)
            kicker.start()
            signal.alarm(20)  # a kick that goes elsewhere must not hang the run
            os._exit(0 if guest.vcpu.run() == Intr() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _spinner(guest, table=None):
    """Start a thread that runs until told; returns (thread, exits)."""
    exits = []
    thread = threading.Thread(target=lambda: exits.append(guest.vcpu.run(table)))
    thread.start()
    return thread, exits


def _wait_until_busy(vcpu):
    """Wait until a thread is inside the vCPU, without entering it oneself: that would refuse the thread."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if lib.kvmx_vcpu_user(vcpu._vcpu):
            return
        time.sleep(0.0005)
    pytest.fail("the vCPU thread did not start")


@pytest.mark.parametrize("code", [SPIN, OUT_LOOP], ids=["spinning", "in native exits"])
def test_kick_ends_a_running_guest(code):
    """A guest that never exits, and one that only has native exits, both end at a kick."""
    table = NativeExits([NativeRange("pio", 0x600, 1, write=Drop())])
    with TinyGuest(code) as guest:
        thread, exits = _spinner(guest, table)
        _wait_until_busy(guest.vcpu)
        guest.vcpu.kick()
        thread.join(60)

        assert exits == [Intr()]


def test_thousands_of_kicks_each_end_one_run():
    """Kicks racing with entry and exit are neither lost nor doubled."""
    rounds = 3000
    with TinyGuest(SPIN) as guest:
        ended = threading.Semaphore(0)

        def runner():
            for _ in range(rounds):
                assert guest.vcpu.run_raw() == ExitReason.INTR
                ended.release()

        thread = threading.Thread(target=runner)
        thread.start()
        for i in range(rounds):
            if i % 7 == 0:
                time.sleep(0.0001)
            guest.vcpu.kick()
            assert ended.acquire(timeout=60), f"kick {i} was lost"
        thread.join(60)

        assert guest.vcpu.stats().kicks == rounds


def test_kick_during_exits_is_reported_by_the_next_run():
    """A kick while Python handles an exit ends the next run before the guest goes on."""
    with TinyGuest(OUT_LOOP) as guest:
        guest.vcpu.run()
        guest.vcpu.kick()
        assert guest.vcpu.run() == Intr()
        assert isinstance(guest.vcpu.run(), IoOut)


def test_intr_implies_completed_access():
    """After Intr a pending read has reached its register, so state may be saved."""
    with TinyGuest(bytes.fromhex("e460 f4")) as guest:
        guest.vcpu.run()
        guest.vcpu.set_io_result(b"\x77")
        guest.vcpu.kick()
        assert guest.vcpu.run() == Intr()

        regs = guest.vcpu.get_regs()

    assert (regs.rax, regs.rip) == (0x77, 0x1002)


def test_complete_pending_runs_no_guest_code():
    """complete_pending finishes the read and stops before the next instruction."""
    with TinyGuest(bytes.fromhex("e460 40 f4")) as guest:  # in al,0x60; inc ax
        guest.vcpu.run()
        guest.vcpu.set_io_result(b"\x10")
        assert guest.vcpu.complete_pending() is None
        assert guest.vcpu.complete_pending() is None

        regs = guest.vcpu.get_regs()
        assert (regs.rax, regs.rip) == (0x10, 0x1002)
        assert guest.vcpu.run() == Hlt()
        assert guest.vcpu.get_regs().rax == 0x11


def test_complete_pending_keeps_a_kick():
    """A kick that comes first is still reported by the next run."""
    with TinyGuest(OUT_LOOP) as guest:
        guest.vcpu.run()
        guest.vcpu.kick()
        assert guest.vcpu.complete_pending() is None
        assert guest.vcpu.run() == Intr()


def test_other_signal_resumes_the_guest():
    """A signal that is no kick runs its Python handler and the guest goes on."""
    seen = []
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        with TinyGuest(SPIN) as guest:
            main = threading.get_ident()

            def disturb():
                _wait_until_busy(guest.vcpu)
                while not guest.vcpu.stats().interrupted:  # one just before KVM_RUN would be seen at the next
                    signal.pthread_kill(main, signal.SIGUSR1)
                    time.sleep(0.01)
                guest.vcpu.kick()

            helper = threading.Thread(target=disturb)
            helper.start()
            assert guest.vcpu.run() == Intr()
            helper.join(60)
            assert guest.vcpu.stats().interrupted >= 1
    finally:
        signal.signal(signal.SIGUSR1, old)

    assert seen


def test_worker_with_blocked_signals_can_be_kicked():
    """block_signals leaves the kick open."""
    with TinyGuest(SPIN) as guest:
        exits, masks = [], []

        def worker():
            block_signals()
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            exits.append(guest.vcpu.run())

        thread = threading.Thread(target=worker)
        thread.start()
        _wait_until_busy(guest.vcpu)
        guest.vcpu.kick()
        thread.join(60)

        assert exits == [Intr()]
        assert signal.SIGINT in masks[0]
        assert signal.SIGRTMIN not in masks[0]


def test_application_processor_waits_and_can_be_kicked():
    """An AP before its start-up message waits in run without an exit, and a kick ends it."""
    with TinyGuest(HLT, irqchip=True) as guest, guest.vm.create_vcpu(1) as ap:
        assert ap.get_mp_state() == MpState.UNINITIALIZED
        exits = []
        thread = threading.Thread(target=lambda: exits.append(ap.run()))
        thread.start()
        _wait_until_busy(ap)
        ap.kick()
        thread.join(60)

        assert exits == [Intr()]


def test_busy_vcpu_refuses_others_and_close():
    """While one thread runs the vCPU, others get VcpuBusyError and it stays open."""
    with TinyGuest(SPIN) as guest:
        thread, exits = _spinner(guest)
        _wait_until_busy(guest.vcpu)
        for call in (guest.vcpu.get_regs, guest.vcpu.run, guest.vcpu.close, guest.vcpu.complete_pending):
            with pytest.raises(
                VcpuBusyError, match=rf"^vCPU 0 is in use by thread {thread.native_id}; kick\(\) it"
            ):
                call()
        guest.vcpu.kick()
        thread.join(60)

        assert exits == [Intr()]
        assert not guest.vcpu.closed


def test_kicks_racing_with_close_are_harmless():
    """Threads that kick while the owner closes neither crash nor hang."""
    for _ in range(5):
        with TinyGuest(HLT) as guest:
            stop = threading.Event()
            vcpu = guest.vcpu

            def kicker(stop=stop, vcpu=vcpu):
                while not stop.is_set():
                    vcpu.kick()

            thread = threading.Thread(target=kicker)
            thread.start()
            vcpu.run()
            vcpu.close()
            stop.set()
            thread.join(60)

        assert vcpu.closed
