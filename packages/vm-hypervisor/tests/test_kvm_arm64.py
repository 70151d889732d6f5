"""The KVM backend of AArch64 with tiny hand-assembled guests, on a real host of that kind."""

import struct
import threading

import pytest
from vm_device import ClosedError, EventFd, EventManager
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import (
    Irqchip,
    Kicked,
    MmioRead,
    MmioWrite,
    SystemEvent,
    SystemEventKind,
    UnsupportedFeatureError,
)
from vm_hypervisor.arch.aarch64 import FIRST_SPI, EntryState, Gic
from vm_hypervisor.testing import RecordingOps

a64 = pytest.importorskip("arm64_code", reason="its assembler is in the repository's tools")
Code = a64.Code

pytestmark = pytest.mark.arm64

RAM = 0x4000_0000
DEVICE = 0x900_0000
GIC = Gic()
# Offsets of the GIC architecture (IHI 0069, chapter 12): distributor, redistributor, ITS.
GICD_CTLR, GICD_IGROUPR, GICD_ISENABLER, GICD_ICFGR = 0, 0x80, 0x100, 0xC00
GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER = 0, 0x70, 0x78
GITS_CTLR, GITS_CBASER, GITS_CWRITER, GITS_BASER, GITS_TRANSLATER = 0, 0x80, 0x88, 0x100, 0x1_0040
VALID = 1 << 63


@pytest.fixture
def machine(arm64_machine):
    """A VM with memory, on the real /dev/kvm."""
    return arm64_machine


def enable_interrupts(code):
    """Let every interrupt of group 1 come, of any priority."""
    code.poke(GIC.distributor + GICD_CTLR, 0x12)  # ARE, EnableGrp1
    code.move(1, 0xFF).msr(a64.ICC_PMR_EL1, 1).move(1, 1).msr(a64.ICC_IGRPEN1_EL1, 1)
    return code.isb()


def report_interrupts(code):
    """For each interrupt write its id to the device, for ever; it stays masked, so no vector is needed."""
    code.poke(DEVICE + 4, 0)  # ready
    place = len(code)
    code.wfi().mrs(2, a64.ICC_IAR1_EL1).move(1, DEVICE).store(2, 1).msr(a64.ICC_EOIR1_EL1, 2)
    return code.jump(place)


def line_listener(line, *, edge):
    """A guest that enables one line and reports it."""
    number = FIRST_SPI + line
    code = enable_interrupts(Code())
    code.poke(GIC.distributor + GICD_IGROUPR + number // 32 * 4, 0xFFFF_FFFF)
    code.poke(GIC.distributor + GICD_ICFGR + number // 16 * 4, 0xAAAA_AAAA if edge else 0)
    code.poke(GIC.distributor + GICD_ISENABLER + number // 32 * 4, 1 << number % 32)
    return report_interrupts(code)


def interrupt(vcpu):
    """Run until the guest reports an interrupt that is one (1023 means none is pending any more)."""
    guard = threading.Timer(30, vcpu.kick)
    guard.start()
    try:
        while (exit_ := vcpu.run()) == MmioWrite(DEVICE, struct.pack("<I", 1023)):
            pass
    finally:
        guard.cancel()
    assert isinstance(exit_, MmioWrite), exit_
    return int.from_bytes(exit_.data, "little")


def test_exits_and_entry_state(machine):
    """X0 is the tree's address; MMIO without ops is an exit; with ops it goes there; PSCI ends it."""
    code = Code().move(1, DEVICE).store(0, 1, 8).load(2, 1, 2).store(2, 1, 2)
    vcpu = machine.start(code.load(2, 1).store(2, 1).move(0, a64.PSCI_SYSTEM_OFF).hvc(), x0=0x4800_0000)
    assert vcpu.affinity == 0
    assert vcpu.run() == MmioWrite(DEVICE, struct.pack("<Q", 0x4800_0000))
    assert vcpu.run() == MmioRead(DEVICE, 2)
    vcpu.reply(b"\x34\x12")
    assert vcpu.run() == MmioWrite(DEVICE, b"\x34\x12")
    ops = RecordingOps()
    ops.answers["mmio", DEVICE] = [0x89AB_CDEF]
    assert vcpu.run(ops) == SystemEvent(SystemEventKind.SHUTDOWN, 1)
    assert [entry[:4] for entry in ops.log] == [
        ("mmio", "read", DEVICE, 4),
        ("mmio", "write", DEVICE, 4),
    ]


def test_reset_is_an_event(machine):
    """PSCI's SYSTEM_RESET comes as a reset."""
    vcpu = machine.start(Code().move(0, a64.PSCI_SYSTEM_RESET).hvc())
    assert vcpu.run() == SystemEvent(SystemEventKind.RESET, 2)


def test_second_vcpu_waits_for_psci(machine):
    """A vCPU that is off can be kicked, and starts where CPU_ON says, with its context."""
    first, second = machine.vcpu(0), machine.vcpu(1)
    machine.vm.create_gic(GIC)
    entry = RAM + 0x1000
    code = Code().move(0, a64.PSCI_CPU_ON).move(1, second.affinity).move(2, entry).move(3, 0xC0FFEE).hvc()
    machine.memory.write(RAM, bytes(code.move(1, DEVICE).store(0, 1)))
    machine.memory.write(entry, bytes(Code().move(1, DEVICE).store(0, 1)))
    first.set_entry_state(EntryState(pc=RAM))
    seen = []

    def run():
        machine.hypervisor.prepare_vcpu_thread()
        seen.extend(second.run() for _ in range(2))

    second.kick()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert first.run() == MmioWrite(DEVICE, bytes(4))  # PSCI: success
    thread.join(30)
    assert seen == [Kicked(), MmioWrite(DEVICE, struct.pack("<I", 0xC0FFEE))]


def test_edges_and_levels_of_a_line(machine):
    """An edge comes once for each trigger, a level as long as it is held."""
    edge = machine.start(line_listener(40, edge=True))
    assert edge.run() == MmioWrite(DEVICE + 4, bytes(4))
    line = machine.vm.irq_line(40)
    assert machine.vm.irq_line(40) is line
    for _ in range(3):
        line.trigger()
        assert interrupt(edge) == FIRST_SPI + 40


def test_level_stays_until_it_falls(machine):
    """A held line interrupts again after each end of interrupt; a fallen one does not."""
    vcpu = machine.start(line_listener(7, edge=False))
    assert vcpu.run() == MmioWrite(DEVICE + 4, bytes(4))
    line = machine.vm.irq_line(7)
    line.set_level(True)
    assert [interrupt(vcpu), interrupt(vcpu)] == [FIRST_SPI + 7] * 2
    line.set_level(False)
    timer = threading.Timer(0.5, vcpu.kick)
    timer.start()
    while isinstance(exit_ := vcpu.run(), MmioWrite):
        assert exit_.data in (struct.pack("<I", FIRST_SPI + 7), struct.pack("<I", 1023))
    assert exit_ == Kicked()
    timer.join()


def test_resampled_line(machine):
    """KVM lowers the line at each end and says so; it comes again as long as its device raises it again."""
    vcpu = machine.start(line_listener(9, edge=False))
    assert vcpu.run() == MmioWrite(DEVICE + 4, bytes(4))
    source = machine.vm.resampled_line(9)
    line = source.interrupt
    ends = []

    def on_end(_events):
        line.resample()
        ends.append(line)
        if len(ends) == 3:
            threading.Timer(0.5, vcpu.kick).start()

    with EventManager() as events:
        events.add(line.resamplefd, on_end)
        events.start()
        line.set_level(True)
        for _ in range(3):
            assert interrupt(vcpu) == FIRST_SPI + 9
        line.set_level(False)
        while isinstance(exit_ := vcpu.run(), MmioWrite):
            assert exit_.data == struct.pack("<I", 1023), "an interrupt without a cause"
        assert (exit_, len(ends)) == (Kicked(), 3)
        line.set_level(True)
        assert interrupt(vcpu) == FIRST_SPI + 9
        events.remove(line.resamplefd)
    source.close()
    line.set_level(False)
    with pytest.raises(ClosedError):
        line.set_level(True)
    with pytest.raises(ValueError, match=r"^gsi 224 is not within 0 … 223$"):
        machine.vm.resampled_line(224)


def its_guest(memory, device, event, lpi):
    """A guest with an ITS that turns `event` of `device` into `lpi`; tables lie from RAM + 1 MiB on."""
    place = [RAM + 0x10_0000 + 0x1_0000 * index for index in range(6)]
    properties, pending, devices, collections, queue, translations = place
    commands = [
        (0x08 | device << 32, 4, VALID | translations, 0),  # MAPD, 5 bits of events
        (0x09, 0, VALID, 0),  # MAPC: collection 0 is processor 0
        (0x0A | device << 32, event | lpi << 32, 0, 0),  # MAPTI
        (0x0C | device << 32, event, 0, 0),  # INV
        (0x05, 0, 0, 0),  # SYNC
    ]
    memory.write(queue, b"".join(struct.pack("<4Q", *command) for command in commands))
    memory.write(properties + lpi - 8192, b"\xa1")  # priority 0xa0, enabled
    redistributor, its = GIC.redistributors, GIC.its
    code = enable_interrupts(Code())
    code.poke(redistributor + GICR_PROPBASER, properties | 13, 8)
    code.poke(redistributor + GICR_PENDBASER, pending | 1 << 62, 8)
    code.poke(redistributor + GICR_CTLR, 1)
    for index, table in enumerate((devices, collections)):
        code.poke(its + GITS_BASER + 8 * index, VALID | table | 2 << 8, 8)
    code.poke(its + GITS_CBASER, VALID | queue, 8).poke(its + GITS_CTLR, 1)
    return report_interrupts(code.poke(its + GITS_CWRITER, 32 * len(commands), 8))


def test_messages_through_the_its(machine):
    """A message of a known device and event is the LPI that the guest mapped; of another device nothing."""
    vcpu = machine.start(its_guest(machine.memory, 5, 3, 8200))
    assert vcpu.run() == MmioWrite(DEVICE + 4, bytes(4))
    stranger, route = machine.vm.msi_route(6), machine.vm.msi_route(5)
    for message in (stranger, route):
        message.set_message(GIC.its + GITS_TRANSLATER, 3)
    stranger.interrupt.trigger()
    timer = threading.Timer(0.5, vcpu.kick)
    timer.start()
    assert vcpu.run() == Kicked()
    for _ in range(2):
        route.interrupt.trigger()
        assert interrupt(vcpu) == 8200
    route.close()
    stranger.close()


def test_doorbell(machine):
    """A write to a doorbell signals its eventfd and does not exit."""
    vcpu = machine.start(Code().poke(DEVICE + 0x50, 3).poke(DEVICE + 0x50, 4))
    with EventFd() as event:
        where = AddressRange(AddressSpace.MMIO, DEVICE + 0x50, 4)
        machine.vm.register_doorbell(event.fd, where, 3)
        assert vcpu.run() == MmioWrite(DEVICE + 0x50, struct.pack("<I", 4))
        assert event.read() == 1
        machine.vm.unregister_doorbell(event.fd, where, 3)


def test_registers_move_to_another_vm(machine):
    """A vCPU made of another one's registers goes on where that one stood."""
    vcpu = machine.start(Code().move(5, 1).move(1, DEVICE).store(5, 1).add(5, 41).store(5, 1))
    assert vcpu.run() == MmioWrite(DEVICE, struct.pack("<I", 1))
    vcpu.kick()
    assert vcpu.run() == Kicked()  # completes the store
    saved = vcpu.registers()
    other = machine.another()
    other.memory.write(RAM, machine.memory.read(RAM, 0x1000))
    fresh = other.vcpu()
    other.vm.create_gic(GIC)
    fresh.set_registers(saved)
    again = dict(fresh.registers())
    clocks = {reg for reg, value in saved if again[reg] != value}
    assert len(clocks) <= 4, "only counters and timers move on"
    assert fresh.run() == MmioWrite(DEVICE, struct.pack("<I", 42))


def test_order_is_told(machine):
    """Lines need a GIC, vCPUs come before it, and there is one; a split irqchip does not exist."""
    with pytest.raises(ValueError, match="the VM has no GIC yet"):
        machine.vm.irq_line(0)
    machine.vcpu()
    with pytest.raises(ValueError, match="vCPU 0 exists already"):
        machine.vm.create_vcpu(0)
    machine.vm.create_gic(Gic(lines=64))
    with pytest.raises(ValueError, match="has its GIC already"):
        machine.vm.create_gic(GIC)
    with pytest.raises(ValueError, match="vCPU 1 comes after the GIC"):
        machine.vm.create_vcpu(1)
    with pytest.raises(ValueError, match="gsi 64 is not within 0 … 63"):
        machine.vm.irq_line(64)
    with pytest.raises(UnsupportedFeatureError, match="split"):
        machine.hypervisor.create_vm(irqchip=Irqchip.SPLIT)
