"""The user-space I/O APIC on a real KVM: tiny guests that take interrupts."""

import threading

import kvm_ioctls
import pytest
from vm_hypervisor import IoapicEoi, Irqchip, KvmHypervisor, UnsupportedFeatureError
from vm_hypervisor.arch import x86_64
from vm_hypervisor.testing import RecordingOps

# Those marked kvm_full as well need local APICs that wait for the guest's EOI: a KVM that interprets
# ring 0 was seen to acknowledge an interrupt by itself when it begins.
pytestmark = pytest.mark.kvm

LEVEL, MASKED, REMOTE_IRR = 1 << 15, 1 << 16, 1 << 14
VECTOR, OTHER = 0x41, 0x42
PIN = 10


def program(ioapic, pin, low, high=0):
    """Write a redirection entry as a guest does."""
    for index, value in ((0x11 + 2 * pin, high), (0x10 + 2 * pin, low)):
        ioapic.write(0, 4, index)
        ioapic.write(0x10, 4, value)


def entry(ioapic, pin):
    """Return the low half of a redirection entry."""
    return ioapic.state().entries[pin] & 0xFFFF_FFFF


def soon(action, delay=0.1):
    """Do something a moment later, on another thread."""
    timer = threading.Timer(delay, action)
    timer.daemon = True
    timer.start()
    return timer


def interrupts_of(machine, vcpu, action):
    """Do something while the guest runs; return the interrupts that come before it and for a while after."""
    timer, came = soon(action), []
    while timer.is_alive():
        came += machine.interrupts(vcpu, 0)
    return came + machine.interrupts(vcpu, 0)


def test_messages_reach_the_guest(any_machine):
    """A message route interrupts where it points, follows a change, and is silent before and after."""
    machine = any_machine
    vcpu = machine.interruptible(VECTOR, OTHER)
    route = machine.vm.msi_route()
    route.interrupt.trigger()  # no message yet
    assert machine.interrupts(vcpu, 0) == []
    route.set_message(0xFEE0_0000, VECTOR)
    soon(route.interrupt.trigger)
    assert machine.interrupts(vcpu, 1) == [VECTOR]
    route.set_message(0xFEE0_0000, OTHER)
    soon(route.interrupt.trigger)
    assert machine.interrupts(vcpu, 1) == [OTHER]
    route.set_message(0xFEE0_5000, VECTOR)  # a processor that does not exist
    assert interrupts_of(machine, vcpu, route.interrupt.trigger) == []
    route.close()
    assert machine.vm.msi_route().interrupt.eventfd is not None


def test_a_message_for_each_vcpu(any_machine):
    """The destination of a message chooses the processor."""
    first = any_machine.interruptible(VECTOR)
    second = any_machine.interruptible(VECTOR, index=1)
    second.fd.set_mp_state(kvm_ioctls.MpState.RUNNABLE)
    routes = [any_machine.vm.msi_route() for _ in range(2)]
    for number, route in enumerate(routes):
        route.set_message(0xFEE0_0000 | number << 12, VECTOR)
    routes[1].interrupt.trigger()
    assert any_machine.interrupts(first, 0) == []
    assert any_machine.interrupts(second, 1) == [VECTOR]


def test_edges_go_through_the_eventfd(split_machine):
    """A line's eventfd delivers what its pin is programmed to, at once and not while it is masked."""
    machine, ioapic = split_machine, split_machine.vm.ioapic
    vcpu = machine.interruptible(VECTOR, OTHER)
    line = machine.vm.irq_line(PIN)
    assert machine.vm.irq_line(PIN) is line
    line.trigger()  # masked since reset
    assert machine.interrupts(vcpu, 0) == []  # KVM drops it on a thread of its own
    program(ioapic, PIN, VECTOR)
    assert machine.interrupts(vcpu, 0) == []
    soon(line.trigger)
    assert machine.interrupts(vcpu, 1) == [VECTOR]
    program(ioapic, PIN, OTHER)
    soon(line.trigger)
    assert machine.interrupts(vcpu, 1) == [OTHER]
    program(ioapic, PIN, OTHER | MASKED)
    assert interrupts_of(machine, vcpu, line.trigger) == []


def test_a_line_made_after_its_pin_was_programmed(split_machine):
    """A device that joins later finds its pin as the guest left it."""
    program(split_machine.vm.ioapic, PIN, VECTOR)
    vcpu = split_machine.interruptible(VECTOR)
    line = split_machine.vm.irq_line(PIN)
    soon(line.trigger)
    assert split_machine.interrupts(vcpu, 1) == [VECTOR]


@pytest.mark.kvm_full
def test_a_level_comes_again_until_it_is_released(split_machine):
    """Each EOI of the guest leaves KVM, reaches the I/O APIC, and does not end the run."""
    machine, ioapic = split_machine, split_machine.vm.ioapic
    vcpu = machine.interruptible(VECTOR)
    line = machine.vm.irq_line(PIN)
    program(ioapic, PIN, VECTOR | LEVEL)
    soon(lambda: line.set_level(True))
    came = machine.interrupts(vcpu, 5, lambda count: line.set_level(count < 5))
    assert came == [VECTOR] * 5
    assert entry(ioapic, PIN) == VECTOR | LEVEL
    assert vcpu.fd.stats().exits[kvm_ioctls.ExitReason.IOAPIC_EOI] == 5


@pytest.mark.kvm_full
def test_a_pin_masked_while_it_is_handled(split_machine):
    """The EOI of a masked level pin is seen: without it the line would be dead for ever."""
    machine, ioapic = split_machine, split_machine.vm.ioapic
    vcpu = machine.interruptible(VECTOR)
    line = machine.vm.irq_line(PIN)
    program(ioapic, PIN, VECTOR | LEVEL)
    soon(lambda: line.set_level(True))
    came = machine.interrupts(vcpu, 1, lambda _: program(ioapic, PIN, VECTOR | LEVEL | MASKED))
    assert came == [VECTOR]
    assert entry(ioapic, PIN) == VECTOR | LEVEL | MASKED
    soon(lambda: program(ioapic, PIN, VECTOR | LEVEL))
    assert machine.interrupts(vcpu, 1, lambda _: line.set_level(False)) == [VECTOR]


@pytest.mark.kvm_full
def test_a_destination_without_a_processor(split_machine):
    """What a guest programs wrongly is lost for the device, and heals when the guest mends it."""
    machine, ioapic = split_machine, split_machine.vm.ioapic
    vcpu = machine.interruptible(VECTOR)
    line = machine.vm.irq_line(PIN)
    program(ioapic, PIN, VECTOR | LEVEL, 7 << 24)
    line.set_level(True)
    assert not entry(ioapic, PIN) & REMOTE_IRR
    soon(lambda: program(ioapic, PIN, VECTOR | LEVEL))
    assert machine.interrupts(vcpu, 1, lambda _: line.set_level(False)) == [VECTOR]


@pytest.mark.kvm_full
def test_without_an_ioapic_of_ours_the_eoi_is_an_exit(split_machine):
    """A caller that keeps the I/O APIC elsewhere gets the acknowledgement as an exit."""
    machine = split_machine
    vcpu = machine.interruptible(VECTOR)
    line = machine.vm.irq_line(PIN)
    program(machine.vm.ioapic, PIN, VECTOR | LEVEL)
    line.set_level(True)
    vcpu._ioapic = None
    assert vcpu.run(RecordingOps()) == IoapicEoi(VECTOR)


def test_first_state_of_a_vcpu(split_machine):
    """Without a PIC nothing is wired to LINT0, which stays masked; LINT1 is the NMI."""
    vcpu = split_machine.vcpu("f4")
    x86_64.prepare_vcpu(vcpu, split_machine.hypervisor.supported_cpuid(), index=0)
    lapic = vcpu.fd.get_lapic()
    assert (lapic[0x351] & 7, lapic[0x352] & 1) == (0, 1)
    assert lapic[0x361] & 7 == 4


@pytest.mark.parametrize("gsi", [-1, 24, 4096])
def test_lines_that_do_not_exist(split_machine, gsi):
    """Only the I/O APIC's pins have lines."""
    with pytest.raises(ValueError, match=rf"^gsi {gsi} is not within 0 … 23$"):
        split_machine.vm.irq_line(gsi)


def test_only_a_split_vm_has_an_ioapic(machine, split_machine):
    """The default keeps it in the kernel."""
    assert machine.vm.ioapic is None
    assert split_machine.vm.ioapic is split_machine.vm.ioapic is not None


def test_a_kvm_without_it_is_refused_with_the_cure(monkeypatch):
    """Nothing is created, and the message says what to do."""
    monkeypatch.setattr(kvm_ioctls.VmFd, "check_extension", lambda *_: 0)
    with KvmHypervisor() as hypervisor:
        with pytest.raises(
            UnsupportedFeatureError, match=r"^split irqchip: .*\(121\).*use the in-kernel irqchip$"
        ):
            hypervisor.create_vm(irqchip=Irqchip.SPLIT)


@pytest.mark.kvm_full
def test_many_assertions_from_a_device_thread(split_machine):
    """A device that raises its line whenever the guest lowered it never waits in vain."""
    machine, ioapic = split_machine, split_machine.vm.ioapic
    vcpu = machine.interruptible(VECTOR)
    line = machine.vm.irq_line(PIN)
    program(ioapic, PIN, VECTOR | LEVEL)
    rounds, served = 200, threading.Semaphore(0)

    def device():
        for _ in range(rounds):
            line.set_level(True)
            assert served.acquire(timeout=60)

    def handler(_count):
        line.set_level(False)
        served.release()

    thread = threading.Thread(target=device)
    thread.start()
    came = machine.interrupts(vcpu, rounds, handler)
    thread.join(60)
    assert not thread.is_alive()
    assert came == [VECTOR] * rounds
