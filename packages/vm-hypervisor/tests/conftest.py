"""A tiny guest on this host's KVM, for the tests marked kvm."""

from contextlib import ExitStack

import pytest
from kvm_ioctls import Regs
from vm_hypervisor import Kicked, KvmHypervisor, MemorySlots
from vm_hypervisor.testing import RecordingOps
from vmm_memory import GuestMemoryAtomic, GuestRegionMmap

CODE, STACK = 0x1000, 0x8000
RAM = 0x1_0000


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


class Machine:
    """64 KiB of RAM from address 0, vCPUs in real mode; everything is closed by the fixture."""

    def __init__(self, stack):
        self._stack = stack
        self.hypervisor = stack.enter_context(KvmHypervisor())
        self.vm = self.hypervisor.create_vm()
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


@pytest.fixture
def machine():
    """A VM with memory, on the real /dev/kvm."""
    with ExitStack() as stack:
        yield Machine(stack)
