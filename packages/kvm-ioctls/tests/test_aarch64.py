"""Tiny guests on an AArch64 host's KVM: target, init, registers by id, exits."""

import errno
import mmap
import struct
import threading

import kvm_ioctls as kvm
import pytest
from kvm_ioctls._ffi import ffi

arm64_code = pytest.importorskip("arm64_code", reason="its assembler is in the repository's tools")
PSCI_SYSTEM_OFF, Code = arm64_code.PSCI_SYSTEM_OFF, arm64_code.Code

pytestmark = pytest.mark.arm64

RAM, SIZE = 0x4000_0000, 0x1_0000
DEVICE = 0x900_0000
PC, PSTATE = kvm.arm64_core_reg(256), kvm.arm64_core_reg(264)
PSCI_0_2 = 1 << 2
MIDR_EL1, MPIDR_EL1 = kvm.arm64_sys_reg(3, 0, 0, 0, 0), kvm.arm64_sys_reg(3, 0, 0, 0, 5)


@pytest.fixture
def vm():
    """A VM with 64 KiB of memory in its attribute `memory`."""
    memory = mmap.mmap(-1, SIZE)
    with kvm.Kvm() as host, host.create_vm() as machine:
        # SAFETY: the mapping outlives the VM, which the block closes.
        address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
        machine.set_user_memory_region(0, guest_phys_addr=RAM, memory_size=SIZE, userspace_addr=address)
        yield machine, memory


def start(vm, memory, code):
    """Return a vCPU that begins with `code`."""
    memory[: 4 * len(code)] = bytes(code)
    vcpu = vm.create_vcpu(0)
    init = vm.arm_preferred_target()
    vcpu.arm_vcpu_init(kvm.Arm64VcpuInit(target=init.target, features=(PSCI_0_2, *init.features[1:])))
    vcpu.set_one_reg(PC, RAM)
    return vcpu


def test_registers_by_id(vm):
    """Core and system registers keep what is written; the list names them; a strange one is refused."""
    vcpu = start(*vm, Code())
    assert vcpu.get_one_reg(PSTATE) & 0xF == 5  # EL1h after reset
    listed = vcpu.get_reg_list()
    for number in range(31):
        register = kvm.arm64_core_reg(8 * number)
        assert register in listed
        vcpu.set_one_reg(register, number << 56 | number)
        assert vcpu.get_one_reg(register) == number << 56 | number
    assert MIDR_EL1 in listed
    assert vcpu.get_one_reg(MIDR_EL1) != 0
    assert vcpu.get_one_reg(MPIDR_EL1) & 0xFF_FFFF == 0
    with pytest.raises(kvm.KvmOSError) as info:
        vcpu.get_one_reg(kvm.arm64_core_reg(0x3_0000))
    assert info.value.errno in (errno.ENOENT, errno.EINVAL)
    vcpu.close()


def test_uninitialised_vcpu_does_not_run(vm):
    """KVM_RUN before KVM_ARM_VCPU_INIT is ENOEXEC."""
    machine, _ = vm
    with machine.create_vcpu(0) as vcpu:
        with pytest.raises(kvm.KvmOSError) as info:
            vcpu.run()
        assert info.value.errno == errno.ENOEXEC


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_mmio_of_each_width(vm, size):
    """A load takes the answer, a store carries its low bytes, and PSCI ends it."""
    mask = (1 << 8 * size) - 1
    code = Code().move(1, DEVICE).load(2, 1, size).add(2, 1).store(2, 1, size)
    vcpu = start(*vm, code.move(0, PSCI_SYSTEM_OFF).hvc())
    assert vcpu.run() == kvm.MmioRead(DEVICE, size)
    value = 0x0123_4567_89AB_CDEF & mask
    vcpu.set_io_result(value.to_bytes(size, "little"))
    assert vcpu.run() == kvm.MmioWrite(DEVICE, size, ((value + 1) & mask).to_bytes(size, "little"))
    end = vcpu.run()
    assert isinstance(end, kvm.SystemEvent)
    assert end.type == 1
    vcpu.close()


def test_kick_ends_a_guest_that_never_exits(vm):
    """A loop without exits is left by a kick, and goes on with its registers."""
    vcpu = start(*vm, Code().add(5, 1).jump(0))
    timer = threading.Timer(0.3, vcpu.kick)
    timer.start()
    assert vcpu.run() == kvm.Intr()
    timer.join()
    counted = vcpu.get_one_reg(kvm.arm64_core_reg(40))
    assert counted > 0
    vcpu.kick()
    assert vcpu.run() == kvm.Intr()
    assert vcpu.get_one_reg(kvm.arm64_core_reg(40)) >= counted
    vcpu.close()


def test_native_table_answers_mmio(vm):
    """What the table has never leaves C."""
    code = Code().move(1, DEVICE).load(2, 1).store(2, 1).move(1, DEVICE + 0x1000).store(2, 1)
    vcpu = start(*vm, code)
    table = kvm.NativeExits([kvm.NativeRange("mmio", DEVICE, 4, read=kvm.Constant(77), write=kvm.Drop())])
    assert vcpu.run(table) == kvm.MmioWrite(DEVICE + 0x1000, 4, struct.pack("<I", 77))
    assert vcpu.stats().native == 2
    vcpu.close()


def test_x86_calls_are_refused(vm):
    """A method of another architecture says so."""
    vcpu = start(*vm, Code())
    with pytest.raises(kvm.WrongArchitectureError, match="x86_64 only; this host is aarch64"):
        vcpu.get_sregs()
    vcpu.close()
