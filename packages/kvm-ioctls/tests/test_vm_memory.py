"""Private memory, attributes, and lines with an answer."""

import mmap
import os
from contextlib import ExitStack

import pytest
from kvm_ioctls import Cap, GuestMemfdFlags, Hlt, Kvm, KvmOSError, MemFlags, MemoryAttributes
from kvm_ioctls._ffi import ffi
from kvm_ioctls.testing import TinyGuest

SW_PROTECTED = 1


def slot(vm, gpa, memory, fd, flags=MemFlags.GUEST_MEMFD):
    """Put all of `memory`, which is `fd`'s too, into slot 1."""
    # SAFETY: the mapping outlives the slot: each test closes it after the VM.
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
    vm.set_user_memory_region2(
        1,
        guest_phys_addr=gpa,
        memory_size=len(memory),
        userspace_addr=address,
        guest_memfd=fd,
        flags=flags,
    )


@pytest.mark.kvm
def test_a_guest_runs_in_a_guest_memfd():
    """Host and guest read what the other wrote to a shared guest_memfd (Linux 6.18), or none is made."""
    code = bytes.fromhex("a00000 fec0 a20100 f4")  # mov al, [0]; inc al; mov [1], al; hlt
    with ExitStack() as stack:
        guest = stack.enter_context(TinyGuest(code))
        wanted = GuestMemfdFlags.MMAP | GuestMemfdFlags.INIT_SHARED
        if guest.vm.check_extension(Cap.GUEST_MEMFD_FLAGS) & wanted != wanted:
            with pytest.raises(KvmOSError, match=r"^KVM_CREATE_GUEST_MEMFD on .*E(INVAL|NOTTY)"):
                guest.vm.create_guest_memfd(0x4000, wanted)
            return
        fd = guest.vm.create_guest_memfd(0x4000, wanted)
        stack.callback(os.close, fd)
        with mmap.mmap(fd, 0x4000) as memory:
            slot(guest.vm, 0x2_0000, memory, fd)
            sregs = guest.vcpu.get_sregs()
            sregs.ds.base = 0x2_0000
            guest.vcpu.set_sregs(sregs)
            memory[0] = 41
            assert guest.vcpu.run() == Hlt()
            assert memory[:2] == bytes([41, 42])
            guest.close()


@pytest.mark.kvm
def test_private_memory_where_a_kind_of_vm_has_it():
    """A slot takes a guest_memfd, a page of it becomes private and shared again; or there is no such kind.

    The kind needs CONFIG_KVM_SW_PROTECTED_VM, which distributions leave out.
    """
    with Kvm() as kvm:
        if not kvm.check_extension(Cap.VM_TYPES) >> SW_PROTECTED & 1:
            with pytest.raises(KvmOSError, match=r"^KVM_CREATE_VM on .*EINVAL"):
                kvm.create_vm(SW_PROTECTED)
            return
        with kvm.create_vm(SW_PROTECTED) as vm, mmap.mmap(-1, 0x4000) as memory:
            assert vm.check_extension(Cap.MEMORY_ATTRIBUTES) & MemoryAttributes.PRIVATE
            fd = vm.create_guest_memfd(0x4000)
            slot(vm, 0, memory, fd)
            vm.set_memory_attributes(0x1000, 0x1000, MemoryAttributes.PRIVATE)
            vm.set_memory_attributes(0x1000, 0x1000, MemoryAttributes.NONE)
            with pytest.raises(KvmOSError, match=r"^KVM_SET_MEMORY_ATTRIBUTES on .*EINVAL"):
                vm.set_memory_attributes(0x1001, 0x1000, MemoryAttributes.NONE)
            os.close(fd)


@pytest.mark.kvm_full
def test_an_ordinary_vm_has_a_guest_memfd_and_no_private_memory():
    """The file is made, of its size; no page takes the attribute, nor before Linux 6.18 a slot the file."""
    with Kvm() as kvm, kvm.create_vm() as vm, mmap.mmap(-1, 0x4000) as memory:
        fd = vm.create_guest_memfd(0x4000)
        assert os.fstat(fd).st_size == 0x4000
        if not vm.check_extension(Cap.GUEST_MEMFD_FLAGS):
            with pytest.raises(KvmOSError, match=r"^KVM_SET_USER_MEMORY_REGION2 on .*EINVAL"):
                slot(vm, 0, memory, fd)
        slot(vm, 0, memory, 0, MemFlags.NONE)
        assert not vm.check_extension(Cap.MEMORY_ATTRIBUTES) & MemoryAttributes.PRIVATE
        with pytest.raises(KvmOSError, match=r"^KVM_SET_MEMORY_ATTRIBUTES on .*E(INVAL|NOTTY)"):
            vm.set_memory_attributes(0x1000, 0x1000, MemoryAttributes.PRIVATE)
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
