"""The KVM backend with tiny hand-assembled guests on the real /dev/kvm."""

import os
import re
from types import SimpleNamespace

import kvm_ioctls as kvm
import pytest
from vm_device import EventFd
from vm_device.platform import AddressRange, AddressSpace
from vm_hypervisor import (
    HypervisorUnavailableError,
    Kicked,
    KvmHypervisor,
    MmioRead,
    MmioWrite,
    NativeAnswer,
    PioRead,
    PioWrite,
    SlotError,
    UnsupportedFeatureError,
    unclaimed_ports,
)

pytestmark = pytest.mark.kvm

PIO, MMIO = AddressSpace.PIO, AddressSpace.MMIO
PAGE = 4096
OUTSIDE = 0x2_0000  # first address that real mode reaches beyond the guest's RAM with es = 0x2000
COUNTER = 0x4000
SPIN = "66 ff 06 00 40  eb f9"  # inc dword [0x4000]; jmp back
DONE = "e6 f4"  # out 0xf4, al


def test_exits_without_ops(machine):
    """With no VmOps every access is an exit, replies reach the guest, silence is all ones."""
    vcpu = machine.vcpu("b0 41 e6 80  e4 81 e6 82  ed ef  a1 00 00", rdx=0x90)
    assert vcpu.run() == PioWrite(0x80, 1, b"A")
    assert vcpu.run() == PioRead(0x81, 1, 1)
    vcpu.reply(b"\x33")
    assert vcpu.run() == PioWrite(0x82, 1, b"\x33")
    assert vcpu.run() == PioRead(0x90, 2, 1)
    assert vcpu.run() == PioWrite(0x90, 2, b"\xff\xff")
    assert dict(vcpu.stats().exits) == {2: 5}  # KVM_EXIT_IO


def test_mmio_exits_without_ops(machine):
    """Reads and writes outside RAM are exits with address, width and data."""
    vcpu = machine.vcpu("b8 00 20 8e c0  26 a1 04 00  26 a3 08 00")
    assert vcpu.run() == MmioRead(OUTSIDE + 4, 2)
    vcpu.reply(b"\x34\x12")
    assert vcpu.run() == MmioWrite(OUTSIDE + 8, b"\x34\x12")


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8])
def test_reply_of_another_length(machine, length):
    """A reply must have the read's length; a wrong one changes nothing."""
    vcpu = machine.vcpu("66 e5 80  66 e7 81")  # in eax, 0x80; out 0x81, eax
    assert vcpu.run() == PioRead(0x80, 4, 1)
    if length != 4:
        with pytest.raises(ValueError, match=str(length)):
            vcpu.reply(bytes(length))
    vcpu.reply(b"abcd")
    assert vcpu.run() == PioWrite(0x81, 4, b"abcd")


@pytest.mark.parametrize(("size", "opcodes"), [(1, "ec ee"), (2, "ed ef"), (4, "66 ed 66 ef")])
def test_ports_through_ops(machine, size, opcodes):
    """In and out of each width reach pio_read and pio_write with whole values."""
    value = 0x1234_5678 & (1 << 8 * size) - 1
    log = machine.run(machine.vcpu(f"{opcodes} {DONE}", rdx=0x5F0), pio_5f0=[value])
    assert log == [("pio", "read", 0x5F0, size, value), ("pio", "write", 0x5F0, size, value)]


def test_a_device_that_answers_too_much_is_cut(machine):
    """Only the access's own bytes of an answer reach the guest, by the string path as well."""
    vcpu = machine.vcpu(f"ec ee  bf 00 50 b9 02 00 f3 6c {DONE}", rdx=0x80)
    ops = machine.ops(vcpu)
    ops.pio_read = lambda _port, _size: 0xABCD
    assert vcpu.run(ops) == Kicked()
    assert ops.log[0] == ("pio", "write", 0x80, 1, 0xCD)
    assert machine.memory.read(0x5000, 2) == b"\xcd\xcd"


@pytest.mark.parametrize(("size", "opcode"), [(1, "f3 6e"), (2, "f3 6f"), (4, "66 f3 6f")])
def test_rep_outs(machine, size, opcode):
    """A string output arrives element by element in order."""
    text = bytes(range(1, 49))
    machine.memory.write(0x3000, text)
    count = len(text) // size
    vcpu = machine.vcpu(f"fc {opcode} {DONE}", rsi=0x3000, rcx=count, rdx=0x3F8)
    parts = [int.from_bytes(text[i : i + size], "little") for i in range(0, len(text), size)]
    assert machine.run(vcpu) == [("pio", "write", 0x3F8, size, part) for part in parts]


@pytest.mark.parametrize(("size", "opcode"), [(1, "f3 6c"), (2, "f3 6d"), (4, "66 f3 6d")])
def test_rep_ins(machine, size, opcode):
    """A string input asks once an element and lands in guest memory in order."""
    text = bytes(range(100, 148))
    parts = [int.from_bytes(text[i : i + size], "little") for i in range(0, len(text), size)]
    vcpu = machine.vcpu(f"fc {opcode} {DONE}", rdi=0x3000, rcx=len(parts), rdx=0x1F0)
    asked = machine.run(vcpu, pio_1f0=list(parts))
    assert asked == [("pio", "read", 0x1F0, size, part) for part in parts]
    assert machine.memory.read(0x3000, len(text)) == text


@pytest.mark.parametrize(
    ("size", "opcodes"),
    [(1, "26 a0 10 00 26 a2 20 00"), (2, "26 a1 10 00 26 a3 20 00"), (4, "66 26 a1 10 00 66 26 a3 20 00")],
)
def test_mmio_through_ops(machine, size, opcodes):
    """Loads and stores of each width reach mmio_read and mmio_write."""
    value = 0xCAFE_F00D & (1 << 8 * size) - 1
    log = machine.run(machine.vcpu(f"b8 00 20 8e c0 {opcodes} {DONE}"), mmio_20010=[value])
    assert log == [
        ("mmio", "read", OUTSIDE + 0x10, size, value),
        ("mmio", "write", OUTSIDE + 0x20, size, value),
    ]


def test_mmio_across_a_page_keeps_its_bytes(machine):
    """A store and a load that straddle a page arrive whole, however the processor splits them."""
    # es = 0x2000; mov dword es:[0xffd], 0x44332211; mov eax, es:[0x1ffd]; mov [0x5000], eax
    code = f"b8 00 20 8e c0  66 26 c7 06 fd 0f 11 22 33 44  66 26 a1 fd 1f  66 a3 00 50 {DONE}"
    vcpu = machine.vcpu(code)
    ops = machine.ops(vcpu)
    written = {}
    ops.mmio_write = lambda address, size, value: written.update(
        {address + i: byte for i, byte in enumerate(value.to_bytes(size, "little"))}
    )
    ops.mmio_read = lambda address, size: int.from_bytes(
        bytes((address + i) & 0xFF for i in range(size)), "little"
    )
    assert vcpu.run(ops) == Kicked()
    assert written == {OUTSIDE + 0xFFD + i: 0x11 * (i + 1) for i in range(4)}
    assert machine.memory.read(0x5000, 4) == bytes((0x1FFD + i) & 0xFF for i in range(4))


def test_writes_to_read_only_memory_are_mmio(machine):
    """A read-only slot is read by the guest directly, and its writes come to the VMM."""
    from vmm_memory import FileOffset, GuestRegionMmap

    fd = os.memfd_create("rom")
    os.write(fd, b"ROM!" * 1024)
    region = GuestRegionMmap.from_file(OUTSIDE, PAGE, FileOffset(fd, 0), shared=True, read_only=True)
    machine.atomic.insert_region(region)
    log = machine.run(machine.vcpu(f"b8 00 20 8e c0  26 a0 00 00  26 a2 01 00 {DONE}"))
    os.close(fd)
    assert log == [("mmio", "write", OUTSIDE + 1, 1, ord("R"))]


def test_dirty_log(machine):
    """Pages the guest wrote are in the log once."""
    from vmm_memory import GuestRegionMmap

    region = GuestRegionMmap.memfd(OUTSIDE, 4 * PAGE, name="tracked", dirty=True)
    machine.atomic.insert_region(region)
    machine.run(machine.vcpu(f"b8 00 20 8e c0  26 a2 01 20 {DONE}"))  # mov es:[0x2001], al
    slot = machine.slots.slot_of(region)
    assert machine.vm.dirty_log(slot) == (1 << 2).to_bytes(8, "little")
    assert machine.vm.dirty_log(slot) == bytes(8)


def test_slots_that_kvm_refuses(machine):
    """An overlap is a SlotError with KVM's reason; unknown slots are one as well."""
    host = machine.slots.regions[0].host_address
    with pytest.raises(SlotError, match=r"^memory slot 9 \(guest 0x1000, 0x1000 bytes\): ") as caught:
        machine.vm.set_memory_slot(9, 0x1000, 0x1000, host)
    assert (caught.value.slot, caught.value.base, caught.value.size) == (9, 0x1000, 0x1000)
    for call in (machine.vm.remove_memory_slot, machine.vm.dirty_log):
        with pytest.raises(SlotError, match=r"^memory slot 9 .*unknown slot$"):
            call(9)


@pytest.mark.parametrize("datamatch", [None, 5])
def test_doorbell(machine, datamatch):
    """A doorbell's write signals the eventfd without an exit; with a datamatch only that value does."""
    where = AddressRange(PIO, 0x510, 2)
    with EventFd() as bell:
        machine.vm.register_doorbell(bell.fd, where, datamatch)
        code = f"b8 05 00 ef  b8 06 00 ef {DONE}"  # mov ax, 5; out dx, ax; mov ax, 6; out dx, ax
        log = machine.run(machine.vcpu(code, rdx=0x510))
        assert bell.read() == (2 if datamatch is None else 1)
        assert log == ([] if datamatch is None else [("pio", "write", 0x510, 2, 6)])
        machine.vm.unregister_doorbell(bell.fd, where, datamatch)
        with pytest.raises(OSError, match=r"(?i)ioevent"):
            machine.vm.unregister_doorbell(bell.fd, where, datamatch)


def test_mmio_doorbell(machine):
    """Doorbells work on MMIO, by width."""
    with EventFd() as bell:
        machine.vm.register_doorbell(bell.fd, AddressRange(MMIO, OUTSIDE + 0x50, 4))
        # es = 0x2000; mov dword es:[0x50], 1; mov word es:[0x50], 1
        code = f"b8 00 20 8e c0 66 26 c7 06 50 00 01 00 00 00 26 c7 06 50 00 01 00 {DONE}"
        log = machine.run(machine.vcpu(code))
        assert bell.read() == 1
        assert log == [("mmio", "write", OUTSIDE + 0x50, 2, 1)]


def test_unclaimed_ports_cost_no_trip(machine):
    """Native answers give all ones and swallow writes; a claimed port still comes to the VMM."""
    machine.vm.set_native_answers(unclaimed_ports([AddressRange(PIO, 0xF4, 1), AddressRange(PIO, 0x80, 1)]))
    log = machine.run(machine.vcpu(f"e4 70 e6 71 e6 80 {DONE}"))  # in al, 0x70; out 0x71, al; out 0x80, al
    assert log == [("pio", "write", 0x80, 1, 0xFF)]


def test_native_answers_do_not_interrupt_a_vcpu_that_never_ran(machine):
    """Its first run looks at the table anyway; later tables make it come back and look again."""
    vcpu = machine.vcpu("e6 80 e6 80")  # out 0x80, al; and again
    machine.vm.set_native_answers([NativeAnswer(AddressRange(PIO, 0x90, 1), read=1)])
    assert vcpu.run() == PioWrite(0x80, 1, b"\0")
    machine.vm.set_native_answers([])
    assert vcpu.run() == Kicked()


@pytest.mark.parametrize("gsi", [-1, 24, 4096])
def test_lines_that_do_not_exist(machine, gsi):
    """Only the I/O APIC's pins have lines."""
    with pytest.raises(ValueError, match=rf"^gsi {gsi} is not within 0 … 23$"):
        machine.vm.irq_line(gsi)


def test_message_routes_are_taken_by_kvm(machine):
    """KVM accepts messages, changes of them, and their end, without disturbing the pins."""
    routes = [machine.vm.msi_route() for _ in range(8)]
    for number, route in enumerate(routes):
        route.set_message(0xFEE0_0000, 0x40 + number)
        route.set_message(0xFEE0_1000, 0x50 + number)
    for route in routes:
        route.close()
    machine.vm.irq_line(5).trigger()


def test_vcpus_exist_once(machine):
    """A second vCPU of the same number is refused."""
    machine.vcpu("f4")
    with pytest.raises(ValueError, match=r"^vCPU 0 exists already$"):
        machine.vm.create_vcpu(0)


def test_an_apic_id_can_be_another_number(machine):
    """The VMM knows a vCPU by its index, KVM by its APIC id, which is its local APIC's; each exists once."""
    vcpu = machine.vm.create_vcpu(1, apic_id=6)
    assert (vcpu.index, vcpu.fd.id, vcpu.fd.get_lapic()[0x23]) == (1, 6, 6)
    with pytest.raises(kvm.KvmOSError, match=r"File exists"):
        machine.vm.create_vcpu(2, apic_id=6)
    vcpu.close()


def test_entry_state_is_what_was_asked(machine):
    """Segments, tables, control and general registers read back as set."""
    flat = SimpleNamespace(
        base=0, limit=0xFFFF_FFFF, selector=0x10, type=3, present=1, dpl=0, db=1, s=1, l=0, g=1
    )
    code = SimpleNamespace(**{**vars(flat), "selector": 8, "type": 11})
    task = SimpleNamespace(
        **{**vars(flat), "selector": 0x18, "type": 11, "s": 0, "limit": 0x67, "g": 0, "db": 0}
    )
    table = SimpleNamespace(base=0x500, limit=31)
    entry = SimpleNamespace(
        rip=0x1234, rsp=0x8000, rbp=0x8008, rsi=0x7000, rbx=0x6000, rflags=2,
        cr0=0x11, cr3=0, cr4=0, efer=0, gdt=table, idt=SimpleNamespace(base=0, limit=0),
        cs=code, ds=flat, es=flat, fs=flat, gs=flat, ss=flat, tr=task,
    )  # fmt: skip
    vcpu = machine.vcpu("f4")
    vcpu.set_entry_state(entry)
    regs, sregs = vcpu.fd.get_regs(), vcpu.fd.get_sregs()
    assert (regs.rip, regs.rsp, regs.rbp, regs.rsi, regs.rbx, regs.rax) == (
        0x1234,
        0x8000,
        0x8008,
        0x7000,
        0x6000,
        0,
    )
    assert (sregs.cs.selector, sregs.cs.type & ~1, sregs.ds.limit) == (8, 10, 0xFFFF_FFFF)
    assert (sregs.gdt.base, sregs.gdt.limit, sregs.cr0 & 1) == (0x500, 31, 1)


def test_first_state_of_a_vcpu(machine):
    """prepare_vcpu works on KVM: CPUID, MSRs, FPU and pins are as firmware leaves them."""
    from vm_hypervisor.arch import x86_64

    vcpu = machine.vcpu("f4")
    x86_64.prepare_vcpu(vcpu, machine.hypervisor.supported_cpuid(), index=0)
    assert vcpu.fd.get_fpu().fcw == 0x37F
    lapic = vcpu.fd.get_lapic()
    assert (lapic[0x351] & 7, lapic[0x361] & 7) == (7, 4)
    assert machine.hypervisor.supported_cpuid().value(1, "ecx") >> 24 & 1, "the TSC deadline timer is offered"


@pytest.mark.parametrize("path", ["/nonexistent/kvm", "/dev/null"])
def test_no_hypervisor_there(path):
    """A missing or foreign device is one error that names it."""
    with pytest.raises(HypervisorUnavailableError, match=re.escape(path)):
        KvmHypervisor(path)


def test_nothing_is_left_open(machine):
    """A VM with lines, routes and vCPUs gives every descriptor back."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        vm = machine.hypervisor.create_vm()
        vcpu = vm.create_vcpu(0)
        vm.irq_line(4)
        vm.msi_route().close()
        vcpu.close()
        vm.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["IMMEDIATE_EXIT", "IRQFD", "PIT2", "SET_IDENTITY_MAP_ADDR"])
def test_a_missing_capability_is_named(monkeypatch, name):
    """An older KVM, or no whole one: the capability, its number and the cure; no VM is created."""
    real = kvm.Kvm.check_extension
    monkeypatch.setattr(
        kvm.Kvm, "check_extension", lambda self, cap: 0 if cap == kvm.Cap[name] else real(self, cap)
    )
    monkeypatch.setattr(kvm.Kvm, "create_vm", lambda *_: pytest.fail("a VM was created"))
    with KvmHypervisor() as hypervisor, pytest.raises(UnsupportedFeatureError) as caught:
        hypervisor.create_vm()
    assert str(caught.value).startswith(f"this KVM lacks KVM_CAP_{name} ({int(kvm.Cap[name])}), which ")
    assert "boot a newer one, or run in an emulated host" in str(caught.value)
