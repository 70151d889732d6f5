"""A tiny guest on this host's KVM, for the tests marked kvm."""

import threading
from contextlib import ExitStack

import pytest
from kvm_ioctls import Regs
from vm_hypervisor import Irqchip, Kicked, KvmHypervisor, MemorySlots
from vm_hypervisor.arch.aarch64 import EntryState, Gic
from vm_hypervisor.kvm_arm64 import KvmArm64Hypervisor
from vm_hypervisor.testing import RecordingOps
from vmm_memory import GuestMemoryAtomic, GuestRegionMmap

CODE, STACK, HANDLERS = 0x1000, 0x8000, 0x3000
LOCAL_APIC = 0xFEE0_0000
RAM = 0x1_0000
ARM64_RAM, ARM64_SIZE = 0x4000_0000, 0x20_0000


class EndingOps(RecordingOps):
    """Note every access; a write to port 0xf4 ends the run."""

    def __init__(self, vcpu):
        super().__init__()
        self._vcpu = vcpu

    def pio_write(self, port, size, value, /):
        """Note the write, and kick when it is the last one."""
        super().pio_write(port, size, value)
        if port == 0xF4:
            self._vcpu.kick()


class Idle:
    """Call something once, when nothing has restarted it for some seconds."""

    def __init__(self, call):
        self._call, self._timer = call, None

    def restart(self, seconds):
        """Start to wait anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self._call)
        self._timer.daemon = True
        self._timer.start()


class Machine:
    """64 KiB of RAM from address 0, vCPUs in real mode; everything is closed by the fixture."""

    def __init__(self, stack, irqchip=Irqchip.KERNEL):
        self._stack = stack
        self.hypervisor = stack.enter_context(KvmHypervisor())
        self.vm = self.hypervisor.create_vm(irqchip=irqchip)
        stack.callback(self.vm.close)
        self.slots = MemorySlots(self.vm)
        self.atomic = GuestMemoryAtomic()
        self.atomic.add_listener(self.slots)
        self.atomic.insert_region(GuestRegionMmap.memfd(0, RAM, name="test"))
        self.memory = self.atomic.memory()

    def vcpu(self, code, *, index=0, entry=CODE, **registers):
        """Return a vCPU that starts at `code` (hex), with the registers given."""
        self.memory.write(entry, bytes.fromhex(code))
        vcpu = self.vm.create_vcpu(index)
        self._stack.callback(vcpu.close)
        sregs = vcpu.fd.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        vcpu.fd.set_sregs(sregs)
        vcpu.fd.set_regs(Regs(rip=entry, rsp=STACK, rflags=2, **registers))
        return vcpu

    def interruptible(self, *vectors, index=0):
        """Return a vCPU that halts, and for each interrupt writes its vector to port 0x80, then ends it."""
        vcpu = self.vcpu("fb f4 eb fd", index=index)  # sti; hlt; jmp to the hlt
        for vector in vectors:
            place = HANDLERS + 0x20 * (vector & 0xF)
            self.memory.write(4 * vector, place.to_bytes(4, "little"))
            # mov al, vector; out 0x80, al; mov dword es:[0xb0], 0 (EOI); iret
            code = f"b0 {vector:02x} e6 80 66 26 c7 06 b0 00 00 00 00 00 cf"
            self.memory.write(place, bytes.fromhex(code))
        self.use_local_apic(vcpu)
        return vcpu

    @staticmethod
    def use_local_apic(vcpu):
        """Switch the local APIC on, and show it to the guest through es."""
        sregs = vcpu.fd.get_sregs()
        sregs.es.base = LOCAL_APIC
        vcpu.fd.set_sregs(sregs)
        lapic = bytearray(vcpu.fd.get_lapic())
        lapic[0xF0:0xF4] = (0x1FF).to_bytes(4, "little")  # spurious vector register: enabled
        vcpu.fd.set_lapic(bytes(lapic))

    def interrupts(self, vcpu, expected, on_interrupt=lambda _count: None):
        """Run until `expected` interrupts came and no further one for a while; return their vectors."""
        ops, came = RecordingOps(), []
        timer = Idle(vcpu.kick)

        def note(port, _size, value):
            assert port == 0x80
            came.append(value)
            on_interrupt(len(came))
            timer.restart(0.2 if len(came) >= expected else 60)

        ops.pio_write = note
        timer.restart(60 if expected else 0.2)
        assert vcpu.run(ops) == Kicked()
        return came

    ops = staticmethod(EndingOps)

    def run(self, vcpu, **answers):
        """Run to the end, with what pio_ADDR and mmio_ADDR answer; return what was logged before it."""
        ops = EndingOps(vcpu)
        for key, values in answers.items():
            space, address = key.split("_")
            ops.answers[space, int(address, 16)] = values
        assert vcpu.run(ops) == Kicked()
        assert ops.log.pop()[:3] == ("pio", "write", 0xF4)
        return ops.log


class Arm64Machine:
    """2 MiB of RAM, vCPUs, and a GIC once all of them are there; everything is closed by the fixture."""

    gic = Gic()
    ram = ARM64_RAM

    def __init__(self, stack):
        self._stack = stack
        self.hypervisor = stack.enter_context(KvmArm64Hypervisor())
        self.vm = self.hypervisor.create_vm()
        stack.callback(self.vm.close)
        self.atomic = GuestMemoryAtomic()
        self.atomic.add_listener(MemorySlots(self.vm))
        self.atomic.insert_region(GuestRegionMmap.memfd(ARM64_RAM, ARM64_SIZE, name="test"))
        self.memory = self.atomic.memory()

    def vcpu(self, index=0):
        """Return a new vCPU."""
        vcpu = self.vm.create_vcpu(index)
        self._stack.callback(vcpu.close)
        return vcpu

    def start(self, code, **entry):
        """Return vCPU 0 at `code`, alone with a GIC."""
        self.memory.write(ARM64_RAM, bytes(code))
        vcpu = self.vcpu()
        self.vm.create_gic(self.gic)
        vcpu.set_entry_state(EntryState(pc=ARM64_RAM, **entry))
        return vcpu

    def another(self):
        """Return a second machine like it."""
        return Arm64Machine(self._stack)


@pytest.fixture
def machine():
    """A VM with memory, on the real /dev/kvm."""
    with ExitStack() as stack:
        yield Machine(stack)


@pytest.fixture
def split_machine():
    """The same with the I/O APIC in user space."""
    with ExitStack() as stack:
        yield Machine(stack, Irqchip.SPLIT)


@pytest.fixture(params=list(Irqchip), ids=lambda chip: chip.value)
def any_machine(request):
    """The same with either irqchip."""
    with ExitStack() as stack:
        yield Machine(stack, request.param)


@pytest.fixture
def arm64_machine():
    """The same on a host of AArch64, without vCPUs."""
    with ExitStack() as stack:
        yield Arm64Machine(stack)
