"""The exits that only a complete KVM makes, each from a real guest; hand-made ones are in test_exits.py."""

import struct

import pytest
from kvm_ioctls import (
    Cap,
    CpuidEntry,
    DirtyRingFull,
    FailEntry,
    Hlt,
    Hypercall,
    HypervSynic,
    InternalError,
    IoapicEoi,
    MsiRoute,
    Regs,
    SetTpr,
    SystemEvent,
    TprAccess,
    XenHcall,
)
from kvm_ioctls.testing import TinyGuest

pytestmark = pytest.mark.kvm_full

VMMCALL = bytes.fromhex("0f01d9 f4")  # vmmcall; hlt
WRITE_MSR = bytes.fromhex("0f30 f4")  # wrmsr; hlt
APIC = 0xFEE0_0000
MAP_GPA_RANGE = 12


def hyperv(guest):
    """Offer the guest what makes KVM be Hyper-V: the interface leaf with its signature."""
    leaves = [leaf for leaf in guest.kvm.get_supported_cpuid() if leaf.function >> 8 != 0x40_0000]
    leaves += [CpuidEntry(0x4000_0000, eax=0x4000_0001), CpuidEntry(0x4000_0001, eax=0x3123_7648)]
    guest.vcpu.set_cpuid2(leaves)


def apic_page(guest):
    """Let DS reach the local APIC from real mode."""
    sregs = guest.vcpu.get_sregs()
    sregs.ds.base = APIC
    guest.vcpu.set_sregs(sregs)


def test_hypercall_with_its_arguments():
    """KVM_HC_MAP_GPA_RANGE comes here when asked for; the answer is in EAX."""
    with TinyGuest(VMMCALL, regs=Regs(rax=MAP_GPA_RANGE, rbx=0x2000, rcx=3, rdx=0x10)) as guest:
        guest.vm.enable_cap(Cap.EXIT_HYPERCALL, [1 << MAP_GPA_RANGE])
        exit_ = guest.vcpu.run()
        assert isinstance(exit_, Hypercall)
        assert (exit_.nr, exit_.args[:3]) == (MAP_GPA_RANGE, (0x2000, 3, 0x10))
        guest.vcpu.set_hypercall_result(77)
        assert guest.vcpu.run() == Hlt()
        assert guest.vcpu.get_regs().rax == 77


def test_a_state_that_the_processor_refuses():
    """A code segment that is 64 and 32 bits wide passes KVM's checks and fails VMRUN."""
    with TinyGuest(b"\xf4", long_mode=True) as guest:
        sregs = guest.vcpu.get_sregs()
        sregs.cs.db = 1
        guest.vcpu.set_sregs(sregs)
        exit_ = guest.vcpu.run()
        assert isinstance(exit_, FailEntry)
        assert exit_.reason & 0xFFFF_FFFF == 0xFFFF_FFFF  # SVM's VMEXIT_INVALID


def test_lowering_the_task_priority():
    """Without a local APIC in the kernel a smaller CR8 is told, a greater one is not."""
    code = bytes.fromhex("440f22c0 440f22c3 f4")  # mov cr8, rax; mov cr8, rbx; hlt
    with TinyGuest(code, long_mode=True, regs=Regs(rax=9, rbx=2)) as guest:
        assert guest.vcpu.run() == SetTpr()
        assert guest.vcpu.get_sregs().cr8 == 2
        assert guest.vcpu.run() == Hlt()


def test_task_priority_register_accesses_are_told():
    """With reporting on, a load of the local APIC's TPR names the instruction."""
    with TinyGuest(bytes.fromhex("66a18000 f4"), irqchip=True) as guest:  # mov eax, [0x80]
        apic_page(guest)
        guest.vcpu.set_tpr_access_reporting(True)
        exit_ = guest.vcpu.run()
        assert isinstance(exit_, TprAccess)
        assert exit_.is_write is False
        assert 0x1000 <= exit_.rip <= 0x1004


def test_code_where_no_memory_is():
    """KVM cannot emulate an instruction that it cannot fetch."""
    with TinyGuest(bytes.fromhex("ea00000020")) as guest:  # jmp 0x2000:0
        exit_ = guest.vcpu.run()
        assert isinstance(exit_, InternalError)
        assert exit_.suberror == 1  # KVM_INTERNAL_ERROR_EMULATION


def test_a_crash_told_to_hyperv():
    """A write to the crash control MSR is an event without data; the five parameters are in their MSRs."""
    parameter, control, values = 0x4000_0100, 0x4000_0105, [7 << 32 | 0x4000_0100 + n for n in range(5)]
    code = bytes.fromhex(
        "6689c8 0f30 6641 6681f905010040 75f0"  # mov eax, ecx; wrmsr; inc ecx; cmp ecx, control; jne
        "66ba00000080 0f30 f4"  # mov edx, 1 << 31; wrmsr; hlt
    )
    with TinyGuest(code, regs=Regs(rcx=parameter, rdx=7), irqchip=True) as guest:
        hyperv(guest)
        assert guest.vcpu.run() == SystemEvent(3, ())  # KVM_SYSTEM_EVENT_CRASH
        assert guest.vcpu.get_regs().rcx == control
        kept = guest.vcpu.get_msrs(range(parameter, control))
        assert [entry.data for entry in kept] == values


def test_the_end_of_an_interrupt_at_a_split_irqchip():
    """A level-triggered vector of the route table comes back as the guest acknowledges it."""

    def split(vm):
        vm.enable_cap(Cap.SPLIT_IRQCHIP, [24])
        vm.set_gsi_routing([MsiRoute(gsi=5, address=APIC, data=1 << 15 | 1 << 14 | 0x40)])

    with TinyGuest(bytes.fromhex("fb f4"), prepare=split) as guest:  # sti; hlt
        guest.memory[0x100:0x104] = struct.pack("<HH", 0x1100, 0)
        guest.memory[0x1100:0x1105] = bytes.fromhex("66a3b000 f4")  # mov [0xb0], eax; hlt
        apic = bytearray(guest.vcpu.get_lapic())
        apic[0xF0:0xF4] = struct.pack("<I", 0x1FF)  # enabled
        guest.vcpu.set_lapic(bytes(apic))
        sregs = guest.vcpu.get_sregs()
        sregs.ds.base = APIC
        guest.vcpu.set_sregs(sregs)
        assert guest.vm.signal_msi(APIC, 1 << 15 | 1 << 14 | 0x40)
        assert guest.vcpu.run() == IoapicEoi(0x40)


def test_a_synic_message_page_is_told():
    """A write to Hyper-V's SynIC control MSR brings its registers."""
    with TinyGuest(WRITE_MSR, regs=Regs(rcx=0x4000_0080, rax=1), irqchip=True) as guest:
        hyperv(guest)
        guest.vcpu.enable_cap(Cap.HYPERV_SYNIC2)
        exit_ = guest.vcpu.run()
        assert isinstance(exit_, HypervSynic)
        assert (exit_.msr, exit_.control) == (0x4000_0080, 1)


def test_a_xen_hypercall_with_its_arguments():
    """Intercepted, a hypercall comes with the number and the registers of its mode."""
    with TinyGuest(VMMCALL, regs=Regs(rax=17, rbx=1, rcx=2, rdx=3)) as guest:
        guest.vm.xen_hvm_config(1 << 1, 0x4000_0000)  # on only with an MSR for the hypercall page
        exit_ = guest.vcpu.run()
        assert isinstance(exit_, XenHcall)
        assert (exit_.longmode, exit_.cpl, exit_.input, exit_.params[:3]) == (False, 0, 17, (1, 2, 3))
        guest.vcpu.set_exit_result(55)
        assert guest.vcpu.run() == Hlt()
        assert guest.vcpu.get_regs().rax == 55


def test_a_dirty_ring_that_is_full():
    """A guest that writes more pages than the ring has room for stops until they are harvested."""
    pages, ring_bytes = 300, 4096
    # mov [rdi], al; add rdi, 0x1000; dec ecx; jnz; hlt
    code = bytes.fromhex("8807 4881c700100000 ffc9 75f3 f4")

    def ring(vm):
        cap, _ = vm.dirty_ring_cap()
        vm.enable_cap(cap, [ring_bytes])

    with TinyGuest(
        code,
        long_mode=True,
        memory_size=0x20_0000,
        regs=Regs(rdi=0x1_0000, rcx=pages),
        flags=1,
        prepare=ring,
    ) as guest:
        written = set()
        with guest.vcpu.map_dirty_ring(ring_bytes) as dirty:
            while (exit_ := guest.vcpu.run()) == DirtyRingFull():
                written |= {page.page for page in dirty.harvest()}
                guest.vm.reset_dirty_rings()
            assert exit_ == Hlt()
            assert 0 < len(written) < pages  # it was full at least once, and not at the very end
            written |= {page.page for page in dirty.harvest()}
        assert set(range(0x10, 0x10 + pages)) <= written
