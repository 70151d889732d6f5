"""Level lines of two eventfds on a real KVM: raised by one, told of each end by the other, and again."""

import contextlib
import gc
import os
import select
import struct
import threading
from contextlib import contextmanager

import kvm_ioctls
import pytest
from vm_device import ClosedError, EventManager
from vm_hypervisor import Irqchip

pytestmark = pytest.mark.kvm

LEVEL, MASKED = 1 << 15, 1 << 16
VECTOR, PIN, PIC_PIN = 0x41, 10, 4
REDIRECTIONS = 24  # offset in struct kvm_ioapic_state


def program(machine, low):
    """Write the redirection entry of the pin, wherever the I/O APIC is."""
    if machine.vm.ioapic is not None:
        for index, value in ((0x11 + 2 * PIN, 0), (0x10 + 2 * PIN, low)):
            machine.vm.ioapic.write(0, 4, index)
            machine.vm.ioapic.write(0x10, 4, value)
        return
    state = bytearray(machine.vm._vm.get_irqchip(kvm_ioctls.IrqchipId.IOAPIC))
    struct.pack_into("<Q", state, REDIRECTIONS + 8 * PIN, low)
    machine.vm._vm.set_irqchip(kvm_ioctls.IrqchipId.IOAPIC, bytes(state))


@contextmanager
def device(*sources):
    """Let an event loop look at the causes of lines whenever it is asked to; give how often it was."""
    asked = threading.Semaphore(0)

    def look(line):
        line.resample()
        asked.release()

    with EventManager() as events:
        for source in sources:
            events.add(source.interrupt.resamplefd, lambda _, line=source.interrupt: look(line))
        events.start()
        yield asked
        for source in sources:
            events.remove(source.interrupt.resamplefd)


def soon(action):
    """Do something a moment later, on another thread."""
    timer = threading.Timer(0.1, action)
    timer.daemon = True
    timer.start()


def let_end(machine, vcpu, asked, ends):
    """Run until so many ends have been told; no interrupt comes."""
    for _ in range(ends):
        while not asked.acquire(blocking=False):
            assert machine.interrupts(vcpu, 0) == []


def check_causes(machine, vcpu, source):
    """Five interrupts for a cause that is up at four looks; none after it went, and one when it is back."""
    line = source.interrupt
    with device(source) as asked:
        soon(lambda: line.set_level(True))
        assert machine.interrupts(vcpu, 5, lambda count: line.set_level(count < 5)) == [VECTOR] * 5
        let_end(machine, vcpu, asked, 5)
        soon(lambda: line.set_level(True))
        assert machine.interrupts(vcpu, 1, lambda _: line.set_level(False)) == [VECTOR]


def pic_guest(machine):
    """Return a vCPU that takes level interrupts of a PIC's pin: vector to port 0x80, then EOI."""
    handler = f"b0 {VECTOR:02x} e6 80 b0 20 e6 20 cf"  # mov al; out 0x80; EOI; iret
    machine.memory.write(0x3000, bytes.fromhex(handler))
    machine.memory.write(4 * (0x20 + PIC_PIN), (0x3000).to_bytes(4, "little"))
    level = f"ba d0 04 b0 {1 << PIC_PIN:02x} ee"  # mov dx, 0x4d0 (ELCR); out dx, al
    pic = "b0 11 e6 20 b0 20 e6 21 b0 04 e6 21 b0 01 e6 21 b0 ef e6 21"  # ICW1-4, mask all but 4
    return machine.vcpu(f"31 c0 8e d8 8e d0 {level} {pic} fb f4 eb fd")


def test_a_pic_pin_comes_again_until_its_cause_is_gone(machine):
    """An interrupt for each look at a cause that is up; none after it went, and again when it is back."""
    vcpu = pic_guest(machine)
    check_causes(machine, vcpu, machine.vm.resampled_line(PIC_PIN))


@pytest.mark.kvm_full
def test_an_io_apic_pin_comes_again_until_its_cause_is_gone(any_machine):
    """The same from an I/O APIC, in the kernel or here."""
    vcpu = any_machine.interruptible(VECTOR)
    program(any_machine, VECTOR | LEVEL)
    check_causes(any_machine, vcpu, any_machine.vm.resampled_line(PIN))


@pytest.mark.kvm_full
def test_a_device_that_has_only_the_descriptors(any_machine):
    """As VFIO has it: one write, one interrupt, one end told; nothing more comes of itself."""
    vcpu = any_machine.interruptible(VECTOR)
    program(any_machine, VECTOR | LEVEL)
    line = any_machine.vm.resampled_line(PIN).interrupt
    raised, ended = os.dup(line.eventfd), os.dup(line.resamplefd)
    try:
        for _ in range(3):
            soon(lambda: os.eventfd_write(raised, 1))
            assert any_machine.interrupts(vcpu, 1) == [VECTOR]
            while not select.select([ended], [], [], 0)[0]:
                assert any_machine.interrupts(vcpu, 0) == []
            assert os.eventfd_read(ended) == 1
    finally:
        os.close(raised)
        os.close(ended)


@pytest.mark.kvm_full
def test_two_devices_on_one_pin(any_machine):
    """Each end is told to both, and the pin comes until neither has a cause."""
    vcpu = any_machine.interruptible(VECTOR)
    program(any_machine, VECTOR | LEVEL)
    first, second = any_machine.vm.resampled_line(PIN), any_machine.vm.resampled_line(PIN)
    lines = first.interrupt, second.interrupt

    def served(count):
        if count in (2, 4):
            lines[count // 2 - 1].set_level(False)

    with device(first, second):
        soon(lambda: [line.set_level(True) for line in lines])
        came = any_machine.interrupts(vcpu, 4, served)
    # Without remote IRR in the way, what one raises while the other's is handled can come once more.
    assert set(came) == {VECTOR}
    assert 4 <= len(came) <= 6
    first.close()
    with device(second):
        soon(lambda: lines[1].set_level(True))
        assert set(any_machine.interrupts(vcpu, 1, lambda _: lines[1].set_level(False))) == {VECTOR}


@pytest.mark.kvm_full
def test_a_cause_that_comes_while_the_pin_is_masked(split_machine):
    """It is not lost: unmasking asks for it, as an end that was told while masked did."""
    vcpu = split_machine.interruptible(VECTOR)
    program(split_machine, VECTOR | LEVEL)
    source = split_machine.vm.resampled_line(PIN)
    line = source.interrupt
    with device(source) as asked:
        soon(lambda: line.set_level(True))
        assert split_machine.interrupts(
            vcpu, 1, lambda _: program(split_machine, VECTOR | LEVEL | MASKED)
        ) == [VECTOR]
        let_end(split_machine, vcpu, asked, 1)
        soon(lambda: program(split_machine, VECTOR | LEVEL))
        assert split_machine.interrupts(vcpu, 1, lambda _: line.set_level(False)) == [VECTOR]


@pytest.mark.kvm_full
def test_many_causes_from_a_device_thread(any_machine):
    """A device that has a cause whenever the guest served the last one never waits in vain."""
    vcpu = any_machine.interruptible(VECTOR)
    program(any_machine, VECTOR | LEVEL)
    source = any_machine.vm.resampled_line(PIN)
    line, rounds, served = source.interrupt, 200, threading.Semaphore(0)
    failed = []

    def causes():
        for number in range(rounds):
            line.set_level(True)
            if not served.acquire(timeout=60):
                failed.append(number)
                return

    def handler(_count):
        line.set_level(False)
        served.release()

    with device(source):
        thread = threading.Thread(target=causes)
        thread.start()
        came = any_machine.interrupts(vcpu, rounds, handler)
        thread.join(120)
    assert (failed, set(came)) == ([], {VECTOR})
    assert len(came) >= rounds


def eventfds():
    """How many this process has; others may go meanwhile, since earlier tests left them to the collector."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return targets.count("anon_inode:[eventfd]")


@pytest.mark.parametrize("irqchip", list(Irqchip))
def test_every_descriptor_is_given_back(machine, irqchip):
    """By its owner, twice even, or by the VM; several threads take and give as they like."""
    gc.collect()
    before = eventfds()
    vm = machine.hypervisor.create_vm(irqchip=irqchip)

    def churn():
        for number in range(30):
            vm.resampled_line(number % 24).close()

    threads = [threading.Thread(target=churn) for _ in range(4)]
    kept = [vm.resampled_line(PIN) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    taken = eventfds()
    kept[0].close()
    kept[0].close()
    vm.close()
    assert (taken, eventfds()) == (before + 2 * len(kept), before)
    for source in kept:
        with pytest.raises(ClosedError):
            source.interrupt.trigger()


def test_lines_that_do_not_exist(any_machine):
    """Only the I/O APIC's pins have lines, and a refusal takes nothing."""
    before = eventfds()
    with pytest.raises(ValueError, match=r"^gsi 24 is not within 0 … 23$"):
        any_machine.vm.resampled_line(24)
    assert eventfds() == before
