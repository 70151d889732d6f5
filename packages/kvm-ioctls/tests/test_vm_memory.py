"""Private memory, attributes, and lines with an answer."""

import mmap
import os

import pytest
from kvm_ioctls import Cap, Hlt, Kvm, KvmOSError, MemFlags, MemoryAttributes
from kvm_ioctls._ffi import ffi
from kvm_ioctls.testing import TinyGuest

SW_PROTECTED = 1


@pytest.mark.kvm_full
def test_private_memory_belongs_to_a_guest_memfd():
    """A VM takes a guest_memfd in a slot, and makes a page private and shared again where it can."""
    with Kvm() as kvm:
        protected = kvm.check_extension(Cap.VM_TYPES) >> SW_PROTECTED & 1
        with kvm.create_vm(SW_PROTECTED * protected) as vm, mmap.mmap(-1, 0x4000) as memory:
            possible = vm.check_extension(Cap.MEMORY_ATTRIBUTES)
            assert bool(possible & MemoryAttributes.PRIVATE) >= bool(protected)
            fd = vm.create_guest_memfd(0x4000)
            address = ffi.cast("uintptr_t", ffi.from_buffer(memory))
            vm.set_user_memory_region2(
                0,
                guest_phys_addr=0,
                memory_size=0x4000,
                userspace_addr=int(address),
                guest_memfd=fd,
                flags=MemFlags.GUEST_MEMFD if protected else 0,
            )
            vm.set_memory_attributes(0x1000, 0x1000, possible)
            vm.set_memory_attributes(0x1000, 0x1000, MemoryAttributes.NONE)
            with pytest.raises(KvmOSError, match=r"^KVM_SET_MEMORY_ATTRIBUTES on .*EINVAL"):
                vm.set_memory_attributes(0x1001, 0x1000, MemoryAttributes.NONE)
            os.close(fd)


@pytest.mark.kvm_full
def test_memory_is_mapped_ahead():
    """All of a slot can be faulted in before the guest runs, where the kernel has the capability."""
    with TinyGuest(b"\xf4", long_mode=True) as guest:
        if guest.vm.check_extension(Cap.PRE_FAULT_MEMORY):
            assert guest.vcpu.pre_fault_memory(0, 0x10000) == 0
        with pytest.raises(ValueError, match=r"^gpa=-0x1 is not in 0\.\.0xf{16}$"):
            guest.vcpu.pre_fault_memory(-1, 0x1000)
        assert guest.vcpu.run() == Hlt()


@pytest.mark.kvm
def test_a_line_says_what_came_of_it():
    """Raising a line of the chips tells whether it went anywhere; a number too wide is refused."""
    with TinyGuest(b"\xf4", irqchip=True) as guest:
        assert guest.vm.irq_line_status(4, True) >= -1
        assert guest.vm.irq_line_status(4, False) >= -1
        with pytest.raises(ValueError, match=r"^gsi=4294967296 does not fit 32 bits$"):
            guest.vm.irq_line_status(1 << 32, True)


@pytest.mark.kvm
def test_impossible_ranges_are_refused():
    """Before the kernel sees them."""
    with Kvm() as kvm, kvm.create_vm() as vm:
        with pytest.raises(ValueError, match=r"^size=-0x1 is not in 0\.\.0xf{16}$"):
            vm.set_memory_attributes(0, -1, 0)
        with pytest.raises(ValueError, match=r"^size=0x1(0{16}) is not in 0\.\.0xf{16}$"):
            vm.create_guest_memfd(1 << 64)
        with pytest.raises(ValueError, match=r"^flags=-0x1 is not in 0\.\.0xf{16}$"):
            vm.create_guest_memfd(4096, -1)
