"""The software vCPU keeps the promises of the Protocol it stands for."""

import threading

import pytest
from vm_hypervisor import Halt, Kicked, MmioRead, MmioWrite, PioRead, PioWrite, Shutdown, VcpuStateError
from vm_hypervisor.testing import RecordingOps, SoftVcpu


def adder():
    """Read two numbers, write their sum."""
    first = int.from_bytes((yield PioRead(0x10, 2, 1)), "little")
    second = int.from_bytes((yield MmioRead(0xD000_0000, 4)), "little")
    yield None
    yield MmioWrite(0xD000_0004, (first + second).to_bytes(8, "little"))
    yield PioWrite(0x11, 1, b"ab")


def test_with_ops():
    """Accesses go to the ops, strings element by element, and the end is a halt."""
    ops = RecordingOps()
    ops.answers = {("pio", 0x10): [7], ("mmio", 0xD000_0000): [35]}
    vcpu = SoftVcpu(0, adder)
    assert vcpu.run(ops) == Halt()
    assert ops.log[2:] == [
        ("mmio", "write", 0xD000_0004, 8, 42),
        ("pio", "write", 0x11, 1, ord("a")),
        ("pio", "write", 0x11, 1, ord("b")),
    ]
    assert vcpu.retired == 5


def test_without_ops():
    """Accesses are exits; a read that nobody answers is all ones."""
    vcpu = SoftVcpu(0, adder)
    assert vcpu.run() == PioRead(0x10, 2, 1)
    with pytest.raises(ValueError, match=r"^reply: 1 bytes, the read takes 2$"):
        vcpu.reply(b"x")
    vcpu.reply(b"\1\0")
    with pytest.raises(VcpuStateError, match=r"^reply: no read of vCPU 0 waits"):
        vcpu.reply(b"\1\0")
    assert vcpu.run() == MmioRead(0xD000_0000, 4)
    assert vcpu.run() == MmioWrite(0xD000_0004, (0x1_0000_0000).to_bytes(8, "little"))


def test_kicks_are_counted_once_and_complete_the_access():
    """Two kicks before a run are one; the read before them has its answer."""
    vcpu = SoftVcpu(0, adder)
    vcpu.run()
    vcpu.kick()
    vcpu.kick()
    assert vcpu.run() == Kicked()
    assert vcpu.run() == MmioRead(0xD000_0000, 4)


def test_one_thread_at_a_time():
    """A second runner and a close from outside are refused while it runs."""
    inside, leave = threading.Event(), threading.Event()

    class Slow(RecordingOps):
        def pio_read(self, port, size, /):
            inside.set()
            leave.wait(60)
            return 0

    vcpu = SoftVcpu(3, adder)
    thread = threading.Thread(target=vcpu.run, args=(Slow(),))
    thread.start()
    assert inside.wait(60)
    for call in (vcpu.run, vcpu.close):
        with pytest.raises(VcpuStateError, match="vCPU 3 is running"):
            call()
    leave.set()
    thread.join()
    vcpu.close()
    with pytest.raises(VcpuStateError, match="vCPU 3 is closed"):
        vcpu.run()


def test_other_exits_leave_the_guest():
    """Whatever is no access is the run's result, and the guest can be entered again."""

    def stubborn():
        while True:
            yield Shutdown()

    vcpu = SoftVcpu(0, stubborn)
    assert [vcpu.run(RecordingOps()), vcpu.run()] == [Shutdown(), Shutdown()]
