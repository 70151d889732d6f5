"""The KVM backend under threads: swapped answers, pauses that are proven, interrupts."""

import os
import sys
import threading
import time

import pytest
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import Kicked, NativeAnswer, Shutdown, VcpuManager
from vm_hypervisor.testing import RecordingOps

pytestmark = pytest.mark.kvm

PIO = AddressSpace.PIO
COUNTER = 0x4000
SPIN = "66 ff 06 00 40  eb f9"  # inc dword [0x4000]; jmp back
DONE = "e6 f4"  # out 0xf4, al


def test_swapping_native_answers_under_a_running_guest(machine):
    """Each new table is in force once the vCPU has been seen with it, and never a mixture."""
    # in al, 0x70; mov [0x4000], al; jmp back
    vcpu = machine.vcpu("e4 70 a2 00 40 eb f9")
    where = AddressRange(PIO, 0x70, 1)
    manager = VcpuManager([vcpu], lambda _: Silence(), lambda stop: pytest.fail(str(stop)))
    machine.vm.set_native_answers([NativeAnswer(where, read=1)])
    manager.start()
    try:
        for value in range(2, 120):
            machine.vm.set_native_answers([NativeAnswer(where, read=value)])
            deadline = time.monotonic() + 60
            while machine.memory.read(COUNTER, 1)[0] != value:
                assert time.monotonic() < deadline, f"answer {value} never arrived"
            time.sleep(0.0002)
            assert machine.memory.read(COUNTER, 1)[0] == value
    finally:
        manager.stop()


class Silence:
    """Ops for a guest whose accesses are all native."""

    def pio_read(self, port, size, /):
        raise AssertionError(f"port {port:#x} is native")


def test_pause_stands_still_many_times(machine):
    """A counter in guest memory moves while running and not at all while paused."""
    vcpu = machine.vcpu(SPIN)
    manager = VcpuManager(
        [vcpu],
        lambda _: RecordingOps(),
        lambda stop: pytest.fail(str(stop)),
        on_thread_start=machine.hypervisor.prepare_vcpu_thread,
    )
    manager.start()
    try:
        for _ in range(100):
            before = machine.memory.load(COUNTER, 4)
            deadline = time.monotonic() + 60
            while machine.memory.load(COUNTER, 4) == before:
                assert time.monotonic() < deadline, "the guest does not run"
            manager.pause(10)
            standing = machine.memory.load(COUNTER, 4)
            time.sleep(0.0005)
            assert machine.memory.load(COUNTER, 4) == standing
            manager.resume()
    finally:
        manager.stop()


def test_pause_of_a_halted_guest(machine):
    """A vCPU asleep in the kernel's HLT parks, resumes and stops like any other."""
    manager = VcpuManager(
        [machine.vcpu("fa f4 eb fd")], lambda _: RecordingOps(), lambda stop: pytest.fail(str(stop))
    )
    manager.start()
    for _ in range(10):
        manager.pause(10)
        manager.resume()
    manager.stop()


def test_pending_read_is_completed_by_a_kick(machine):
    """After Kicked the guest has taken the answer: the state holds no half-done access."""
    vcpu = machine.vcpu("e4 70 a2 00 40 eb fe")
    ops = machine.ops(vcpu)

    def answer(port, size):
        vcpu.kick()
        return 0x5A

    ops.pio_read = answer
    assert vcpu.run(ops) == Kicked()
    regs = vcpu.fd.get_regs()
    assert (regs.rax & 0xFF, regs.rip) == (0x5A, 0x1002)


def test_an_exception_of_a_device_leaves_the_vcpu_usable(machine):
    """What a device raises comes out of run; the access reads as all ones and the guest goes on."""
    vcpu = machine.vcpu(f"e4 70 e6 80 {DONE}")
    ops = machine.ops(vcpu)
    ops.pio_read = lambda port, size: 1 // 0
    with pytest.raises(ZeroDivisionError):
        vcpu.run(ops)
    assert machine.run(vcpu) == [("pio", "write", 0x80, 1, 0xFF)]


def test_triple_fault_is_shutdown(machine):
    """A guest that faults with an empty interrupt table ends as Shutdown."""
    vcpu = machine.vcpu("0f 0b")  # ud2
    sregs = vcpu.fd.get_sregs()
    sregs.idt.limit = 0
    vcpu.fd.set_sregs(sregs)
    assert vcpu.run(RecordingOps()) == Shutdown()


def test_threads_that_ask_for_a_line_get_the_same_one(machine):
    """A pin has one irqfd, though several threads want it at once: a second one would outlive the VM."""
    threads = 4
    start, found = threading.Barrier(threads), [[] for _ in range(threads)]

    def ask(mine):
        for gsi in range(24):
            start.wait(60)
            mine.append(machine.vm.irq_line(gsi))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asking = [threading.Thread(target=ask, args=(mine,)) for mine in found]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert [len(set(map(id, lines))) for lines in zip(*found, strict=True)] == [1] * 24


def test_irq_line_edges(machine):
    """A trigger and the line's eventfd both interrupt the guest, once each."""
    vcpu = machine.vcpu(irq_guest(machine), entry=0x1000)
    line = machine.vm.irq_line(4)
    assert machine.vm.irq_line(4) is line
    served = threading.Semaphore(0)
    ops = machine.ops(vcpu)
    ops.pio_write = lambda port, size, value: served.release() if port == 0x80 else None
    manager = VcpuManager([vcpu], lambda _: ops, lambda stop: pytest.fail(str(stop)))
    manager.start()
    try:
        assert served.acquire(timeout=60), "the guest never got ready"
        for ring in (line.trigger, lambda: os.eventfd_write(line.eventfd, 1)):
            ring()
            assert served.acquire(timeout=60)
            assert not served.acquire(timeout=0.02), "one edge, one interrupt"
        line.set_level(True)
        assert served.acquire(timeout=60)
        line.set_level(False)
    finally:
        manager.stop()
    assert machine.memory.load(COUNTER, 4) == 3


def irq_guest(machine):
    """Return a guest that takes edges of IRQ 4, counts them at 0x4000 and tells port 0x80 of each."""
    handler = "66 ff 06 00 40  b0 20 e6 20  e6 80  cf"  # inc dword [0x4000]; EOI; out 0x80, al; iret
    machine.memory.write(0x2000, bytes.fromhex(handler))
    machine.memory.write(0x24 * 4, (0x2000).to_bytes(4, "little"))
    pic = "b0 11 e6 20  b0 20 e6 21  b0 04 e6 21  b0 01 e6 21  b0 ef e6 21"  # ICW1-4, mask all but 4
    return f"31 c0 8e d8 8e d0  {pic}  e6 80  fb f4 eb fc"  # … out 0x80; sti; hlt; jmp back
