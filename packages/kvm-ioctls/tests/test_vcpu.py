"""Running and kicking, on the real /dev/kvm with guests of a few bytes."""

import os
import random

import pytest
from kvm_ioctls import (
    ClosedError,
    Constant,
    Counter,
    Drop,
    Eventfd,
    ExitReason,
    ForkedError,
    Hlt,
    IoIn,
    IoOut,
    KvmOSError,
    Latch,
    MmioRead,
    MmioWrite,
    NativeExits,
    NativeRange,
    Regs,
    Shutdown,
)
from kvm_ioctls.testing import TinyGuest

pytestmark = pytest.mark.kvm

SPIN = bytes.fromhex("ebfe")  # jmp $
HLT = b"\xf4"
OUT_LOOP = bytes.fromhex("ba0006 ee ebfd")  # mov dx,0x600; l: out dx,al; jmp l
REP_OUTSB = bytes.fromhex("fc ba0006 be0020 b90500 f36e f4")  # cld; rep outsb of 5 bytes at 0x2000
REP_INSW = bytes.fromhex("fc ba0006 bf0020 b90300 f36d f4")  # cld; rep insw of 3 words to 0x2000


def test_port_output_then_halt():
    """OUT gives the byte, HLT ends."""
    code = bytes.fromhex("ba f803 00d8 0430 ee f4")
    with TinyGuest(code, regs=Regs(rax=2, rbx=3)) as guest:
        assert guest.vcpu.run() == IoOut(0x3F8, 1, 1, b"5")
        assert guest.vcpu.run() == Hlt()


@pytest.mark.parametrize("seed", range(3))
def test_random_computation_in_long_mode(seed):
    """A 64-bit guest multiplies and adds random numbers as the host does."""
    rng = random.Random(seed)
    a, b, c = (rng.getrandbits(64) for _ in range(3))
    code = bytes.fromhex("480fafc3 4801c8 48f7d0 f4")  # imul rax,rbx; add rax,rcx; not rax; hlt
    with TinyGuest(code, long_mode=True, memory_size=0x20_0000, regs=Regs(rax=a, rbx=b, rcx=c)) as guest:
        assert guest.vcpu.run() == Hlt()

        assert guest.vcpu.get_regs().rax == ~(a * b + c) % 2**64


@pytest.mark.parametrize(
    ("code", "answer"), [("e560", b"\x34\x12"), ("66e560", b"\x78\x56\x34\x12"), ("e460", b"\x9a")]
)
def test_port_input_is_answered(code, answer):
    """set_io_result supplies what IN reads, in each width."""
    with TinyGuest(bytes.fromhex(code) + HLT) as guest:
        assert guest.vcpu.run() == IoIn(0x60, len(answer), 1)
        guest.vcpu.set_io_result(answer)
        guest.vcpu.run()

        assert guest.vcpu.get_regs().rax == int.from_bytes(answer, "little")


def test_unanswered_input_reads_all_ones():
    """Nobody's answer is all-ones, not what the page held before."""
    with TinyGuest(bytes.fromhex("b055 e680 e560 f4")) as guest:  # out 0x80,al first
        guest.vcpu.run()
        guest.vcpu.run()
        guest.vcpu.run()

        assert guest.vcpu.get_regs().rax & 0xFFFF == 0xFFFF


def test_string_output_comes_whole():
    """REP OUTS gives all elements, in one exit or several."""
    with TinyGuest(REP_OUTSB) as guest:
        guest.memory[0x2000:0x2005] = b"hello"
        got = b""
        while isinstance(exit_ := guest.vcpu.run(), IoOut):
            assert (exit_.port, exit_.size, len(exit_.data)) == (0x600, 1, exit_.count)
            got += exit_.data

        assert (got, exit_) == (b"hello", Hlt())


def test_string_input_is_answered():
    """REP INS takes set_io_result's bytes element by element."""
    words = [0x1122, 0x3344, 0x5566]
    with TinyGuest(REP_INSW) as guest:
        left = list(words)
        while isinstance(exit_ := guest.vcpu.run(), IoIn):
            assert (exit_.port, exit_.size) == (0x600, 2)
            taken, left = left[: exit_.count], left[exit_.count :]
            guest.vcpu.set_io_result(b"".join(w.to_bytes(2, "little") for w in taken))

        assert (exit_, left) == (Hlt(), [])
        assert guest.memory[0x2000:0x2006] == bytes.fromhex("221144336655")


def test_mmio_both_ways():
    """Accesses outside memory are MMIO exits with address and width."""
    # mov ax,0x2000; mov ds,ax; mov al,[8]; mov [0x10],ax; hlt
    code = bytes.fromhex("b80020 8ed8 a00800 a31000 f4")
    with TinyGuest(code) as guest:
        assert guest.vcpu.run() == MmioRead(0x20008, 1)
        guest.vcpu.set_io_result(b"\x42")
        assert guest.vcpu.run() == MmioWrite(0x20010, 2, b"\x42\x20")
        assert guest.vcpu.run() == Hlt()


def test_raw_path_answers_without_objects():
    """run_raw gives the reason, io the rest, set_value the answer."""
    with TinyGuest(bytes.fromhex("e560 e780 f4")) as guest:
        io = guest.vcpu.io
        assert guest.vcpu.run_raw() == ExitReason.IO
        assert io.fields() == (False, False, 0x60, 2, 1, 0xFFFF)
        io.set_value(0xBEEF)
        assert guest.vcpu.run_raw() == ExitReason.IO
        assert (io.is_write, io.addr, io.size, io.count, io.value, io.data) == (
            True,
            0x80,
            2,
            1,
            0xBEEF,
            b"\xef\xbe",
        )
        assert guest.vcpu.run_raw() == ExitReason.HLT


def test_answer_without_question_is_refused():
    """Answering a write, or with the wrong length, changes nothing."""
    with TinyGuest(bytes.fromhex("e680 e460 f4")) as guest:
        guest.vcpu.run()
        with pytest.raises(KvmOSError, match=r"set_io_result on vCPU 0: .*ENODATA"):
            guest.vcpu.set_io_result(b"\0")
        with pytest.raises(KvmOSError, match="answering a read on vCPU 0"):
            guest.vcpu.io.set_value(1)
        guest.vcpu.run()
        with pytest.raises(ValueError, match=r"^set_io_result got 2 bytes, the exit wants 1$"):
            guest.vcpu.set_io_result(b"\0\0")
        with pytest.raises(KvmOSError, match="ENODATA"):
            guest.vcpu.set_msr_result(1)
        with pytest.raises(KvmOSError, match="ENODATA"):
            guest.vcpu.set_hypercall_result(1)


def test_native_exits_stay_in_c():
    """Ten thousand port writes reach the counter without one Python exit."""
    # mov cx,10000; mov dx,0x600; l: out dx,al; dec cx; jnz l; in al,0x10; out 0x80,al
    code = bytes.fromhex("b91027 ba0006 ee 49 75fc e410 e680 f4")
    counter = Counter()
    table = NativeExits(
        [NativeRange("pio", 0x600, 1, write=counter), NativeRange("pio", 0x10, 1, read=Constant(0x5A))]
    )
    with TinyGuest(code) as guest:
        assert guest.vcpu.run(table) == IoOut(0x80, 1, 1, b"\x5a")
        stats = guest.vcpu.stats()

    assert counter.value == 10000
    assert (stats.native, stats.exits[ExitReason.IO]) == (10001, 10002)


def test_native_string_io():
    """String instructions are answered in C as well: constant for INS, last element for a latch."""
    latch = Latch()
    with TinyGuest(REP_INSW) as guest:
        table = NativeExits([NativeRange("pio", 0x600, 2, read=Constant(0xABCD), write=Drop())])
        assert guest.vcpu.run(table) == Hlt()
        assert guest.memory[0x2000:0x2006] == b"\xcd\xab" * 3
    with TinyGuest(REP_OUTSB) as guest:
        guest.memory[0x2000:0x2005] = b"hello"
        assert guest.vcpu.run(NativeExits([NativeRange("pio", 0x600, 1, write=latch)])) == Hlt()

    assert latch.value == ord("o")


def test_native_eventfd(eventfd):
    """Each written element counts: five OUTs of a byte one each, a string of five likewise."""
    outs = bytes.fromhex("ba0006 b90500 ee e2fd f4")  # mov dx, 0x600; mov cx, 5; l: out dx, al; loop l; hlt
    table = NativeExits([NativeRange("pio", 0x600, 1, write=Eventfd(eventfd))])
    for code in (outs, REP_OUTSB):
        with TinyGuest(code) as guest:
            assert guest.vcpu.run(table) == Hlt()
            assert (os.eventfd_read(eventfd), guest.vcpu.stats().exits[ExitReason.HLT]) == (5, 1)


def test_native_mmio():
    """MMIO ranges are answered in C: what was latched is read back."""
    # mov ax,0x2000; mov ds,ax; mov [0x10],ax; mov ax,[0x10]; hlt -> via latch
    code = bytes.fromhex("b80020 8ed8 b83412 a31000 31c0 a11000 f4")
    latch = Latch()
    with TinyGuest(code) as guest:
        table = NativeExits([NativeRange("mmio", 0x20010, 4, read=latch, write=latch)])
        assert guest.vcpu.run(table) == Hlt()
        assert guest.vcpu.get_regs().rax == 0x1234


def test_closed_vcpu_refuses_calls_but_takes_kicks():
    """After close every call says so; a late kick is harmless."""
    with TinyGuest(HLT) as guest:
        guest.vcpu.close()
        guest.vcpu.close()
        guest.vcpu.kick()

        for call in (guest.vcpu.run, guest.vcpu.get_regs, guest.vcpu.fileno, guest.vcpu.complete_pending):
            with pytest.raises(ClosedError, match=r"^vCPU 0 is closed$"):
                call()


def test_forked_child_is_refused_and_parent_runs_on():
    """In a child every object raises ForkedError; closing there does not disturb the parent."""
    with TinyGuest(bytes.fromhex("e680 f4")) as guest:
        pid = os.fork()
        if pid == 0:
            refused = 0
            for call in (
                guest.vcpu.run,
                guest.vcpu.kick,
                guest.vcpu.get_regs,
                guest.vm.fileno,
                guest.kvm.fileno,
            ):
                try:
                    call()
                except ForkedError:
                    refused += 1
            guest.vcpu.close()
            guest.vm.close()
            guest.kvm.close()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5

        assert guest.vcpu.run() == IoOut(0x80, 1, 1, b"\0")


def test_triple_fault_is_shutdown():
    """An exception without any handler table ends in Shutdown."""
    code = bytes.fromhex("0f0b")  # ud2
    with TinyGuest(code, long_mode=True, memory_size=0x20_0000) as guest:
        assert guest.vcpu.run() == Shutdown()


def test_dropped_vcpu_warns():
    """Forgetting close() is reported, and the descriptor is closed all the same."""
    with TinyGuest(HLT) as guest:
        extra = guest.vm.create_vcpu(1)
        fd = extra.fileno()
        with pytest.warns(ResourceWarning, match=r"^vCPU 1 was never closed$"):
            del extra

        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_repr_names_the_vcpu():
    """Repr shows id and descriptor."""
    with TinyGuest(HLT) as guest:
        assert repr(guest.vcpu) == f"<VcpuFd 0 fd={guest.vcpu.fileno()}>"


def test_forked_child_cannot_answer_an_exit():
    """Calls that would touch the run page, which a child does not have, are refused instead of crashing."""
    with TinyGuest(bytes.fromhex("e480 f4")) as guest:
        vcpu = guest.vcpu
        assert vcpu.run() == IoIn(0x80, 1, 1)
        pid = os.fork()
        if pid == 0:
            refused = 0
            for call in (
                lambda: vcpu.set_io_result(b"x"),
                vcpu.request_interrupt_window,
                vcpu.ready_for_interrupt,
            ):
                try:
                    call()
                except ForkedError:
                    refused += 1
            try:
                vcpu.io.set_value(1)
            except KvmOSError:
                refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4

        vcpu.set_io_result(b"\x2a")
        assert vcpu.run() == Hlt()
        assert vcpu.get_regs().rax & 0xFF == 0x2A
