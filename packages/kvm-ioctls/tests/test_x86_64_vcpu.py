"""vCPU state of x86-64, written to and read back from the kernel."""

import attrs
import pytest
from kvm_ioctls import (
    Cap,
    CpuidEntry,
    Debug,
    DebugRegs,
    GuestDebug,
    Hlt,
    IrqWindowOpen,
    KvmOSError,
    MpState,
    MsrEntry,
    MsrError,
    Regs,
)
from kvm_ioctls.testing import TinyGuest

pytestmark = pytest.mark.kvm

HLT = b"\xf4"
EFER_SCE = 1


@pytest.fixture
def vcpu():
    """Yield the vCPU of a fresh guest without irqchip."""
    with TinyGuest(HLT) as guest:
        yield guest.vcpu


@pytest.fixture
def long_guest():
    """Yield a 64-bit guest with irqchip."""
    with TinyGuest(HLT, long_mode=True, irqchip=True, memory_size=0x20_0000) as guest:
        yield guest


def test_general_registers_round_trip(vcpu):
    """Every general register keeps its own value."""
    names = [field.name for field in attrs.fields(Regs) if field.name != "rflags"]
    regs = Regs(**{name: 0x1111_0000 + i for i, name in enumerate(names)})
    vcpu.set_regs(regs)

    assert vcpu.get_regs() == regs


def test_segments_and_control_registers_round_trip(long_guest):
    """The 64-bit start state reads back as it was set."""
    sregs = long_guest.vcpu.get_sregs()

    assert (sregs.cr3, sregs.cr4 >> 5 & 1, sregs.efer & 0x500) == (0x9000, 1, 0x500)
    assert (sregs.cs.selector, sregs.cs.l, sregs.ds.selector) == (8, 1, 16)


def test_sregs2_agrees_with_sregs(long_guest):
    """The newer form says the same."""
    if not long_guest.vm.check_extension(Cap.SREGS2):
        pytest.skip("kvm lacks Cap.SREGS2")
    old, new = long_guest.vcpu.get_sregs(), long_guest.vcpu.get_sregs2()
    long_guest.vcpu.set_sregs2(new)

    assert (new.cs, new.cr0, new.efer) == (old.cs, old.cr0, old.efer)


def test_impossible_control_registers_are_refused(vcpu):
    """Paging without protection is the kernel's EINVAL."""
    sregs = vcpu.get_sregs()
    sregs.cr0 = 1 << 31

    with pytest.raises(KvmOSError, match=r"^KVM_SET_SREGS on vCPU 0: Invalid argument \(EINVAL\)$"):
        vcpu.set_sregs(sregs)


def test_fpu_round_trip(vcpu):
    """x87 control word and XMM registers keep their bytes."""
    fpu = vcpu.get_fpu()
    fpu.xmm = bytes(range(256))
    fpu.fcw = 0x27F
    vcpu.set_fpu(fpu)

    back = vcpu.get_fpu()
    assert (back.xmm, back.fcw) == (bytes(range(256)), 0x27F)


def test_xsave_round_trip(vcpu):
    """The XSAVE area can be saved and restored, and holds the SSE registers."""
    fpu = vcpu.get_fpu()
    fpu.xmm = b"\x5a" * 256
    vcpu.set_fpu(fpu)
    area = vcpu.get_xsave()
    vcpu.set_xsave(area)

    assert len(area) >= 4096
    assert vcpu.get_fpu().xmm == fpu.xmm
    with pytest.raises(ValueError, match=r"^XSAVE state has 100 bytes, this VM's has \d+$"):
        vcpu.set_xsave(bytes(100))


def test_xcrs_round_trip(long_guest):
    """XCR0 has the x87 bit and can be set again."""
    if not long_guest.vm.check_extension(Cap.XCRS):
        pytest.skip("this processor has no XSAVE, so kvm lacks Cap.XCRS")
    vcpu = long_guest.vcpu
    xcrs = vcpu.get_xcrs()
    vcpu.set_xcrs(xcrs)

    assert vcpu.get_xcrs() == xcrs
    assert xcrs[0].xcr == 0
    assert xcrs[0].value & 1
    with pytest.raises(ValueError, match=r"^17 XCRs, the ABI has room for 16$"):
        vcpu.set_xcrs([*xcrs[:1]] * 17)


def test_msr_round_trip(vcpu):
    """MSRs read back what was written, in order."""
    wanted = [
        MsrEntry(0x174, 0x10),
        MsrEntry(0x175, 0x1234_5678_9ABC),
        MsrEntry(0x176, 0xFFFF_8000_0000_1000),
    ]
    vcpu.set_msrs(wanted)

    assert vcpu.get_msrs([0x174, 0x175, 0x176]) == wanted


def test_refused_msr_is_named(vcpu):
    """A short count becomes an error that names the MSR; those before it are set."""
    entries = [MsrEntry(0x174, 0x18), MsrEntry(0xDEAD_0000, 1), MsrEntry(0x175, 7)]
    with pytest.raises(MsrError, match=r"^KVM_SET_MSRS on vCPU 0: .*MSR 0xdead0000 \(entry 1 of 3\)") as err:
        vcpu.set_msrs(entries)

    assert (err.value.index, err.value.completed) == (0xDEAD_0000, 1)
    assert vcpu.get_msrs([0x174])[0].data == 0x18


def test_too_many_msrs_are_refused(vcpu):
    """The kernel takes 256 at a time, and we say so."""
    with pytest.raises(ValueError, match=r"^257 MSRs in one call, the kernel takes at most 256$"):
        vcpu.get_msrs([0x174] * 257)


def test_cpuid_round_trip():
    """Every leaf that says something reads back; a kernel may leave out all-zero ones."""
    with TinyGuest(HLT) as guest:
        leaves = guest.kvm.get_supported_cpuid()
        next(leaf for leaf in leaves if leaf.function == 1).ecx |= 1 << 31
        guest.vcpu.set_cpuid2(leaves)
        back = {(leaf.function, leaf.index): leaf for leaf in guest.vcpu.get_cpuid2()}

        assert back[1, 0].ecx >> 31 == 1
        full = {(leaf.function, leaf.index) for leaf in leaves if leaf.eax | leaf.ebx | leaf.ecx | leaf.edx}
        assert full <= back.keys() <= {(leaf.function, leaf.index) for leaf in leaves}


def test_too_many_cpuid_leaves_are_refused(vcpu):
    """The kernel takes 256, and we say so."""
    with pytest.raises(ValueError, match=r"^257 CPUID entries, the kernel takes at most 256$"):
        vcpu.set_cpuid2([CpuidEntry()] * 257)


@pytest.mark.kvm_full
def test_guest_sees_the_cpuid_it_was_given():
    """CPUID in the guest gives the leaf that was set."""
    with TinyGuest(bytes.fromhex("66b800000040 0fa2 f4")) as guest:  # mov eax,0x40000000; cpuid
        guest.vcpu.set_cpuid2([CpuidEntry(0, eax=0x4000_0000), CpuidEntry(0x4000_0000, ebx=0x12345678)])
        assert guest.vcpu.run() == Hlt()
        assert guest.vcpu.get_regs().rbx & 0xFFFF_FFFF == 0x12345678


def test_lapic_round_trip(long_guest):
    """The local APIC's 1024 bytes can be saved and restored; its id register is there."""
    state = long_guest.vcpu.get_lapic()
    long_guest.vcpu.set_lapic(state)

    assert len(state) == 1024
    assert state[0x20:0x24] == bytes(4)
    with pytest.raises(ValueError, match=r"^local APIC state has 3 bytes, not 1024$"):
        long_guest.vcpu.set_lapic(bytes(3))


def test_lapic_needs_an_irqchip(vcpu):
    """Without in-kernel controllers there is no local APIC to read."""
    with pytest.raises(KvmOSError, match=r"^KVM_GET_LAPIC on vCPU 0: "):
        vcpu.get_lapic()


def test_mp_state_round_trip(long_guest):
    """The boot processor is runnable and can be parked."""
    assert long_guest.vcpu.get_mp_state() == MpState.RUNNABLE
    long_guest.vcpu.set_mp_state(MpState.HALTED)
    assert long_guest.vcpu.get_mp_state() == MpState.HALTED


def test_events_round_trip(vcpu):
    """Pending events can be saved and restored."""
    events = vcpu.get_vcpu_events()
    events.nmi_masked = 1
    vcpu.set_vcpu_events(events)

    assert vcpu.get_vcpu_events().nmi_masked == 1


def test_nmi_is_pending_after_queueing(vcpu):
    """A queued NMI shows in the events."""
    vcpu.nmi()

    assert vcpu.get_vcpu_events().nmi_pending


def test_debug_registers_round_trip(vcpu):
    """Breakpoint addresses read back."""
    regs = DebugRegs(db=(0x1000, 0x2000, 0, 0), dr6=0xFFFF0FF0, dr7=0x400)
    vcpu.set_debug_regs(regs)

    assert vcpu.get_debug_regs() == regs


@pytest.mark.kvm_full
def test_single_step_stops_after_each_instruction():
    """With single-step each instruction ends in a Debug exit at the next one."""
    with TinyGuest(bytes.fromhex("40 40 f4")) as guest:
        guest.vcpu.set_guest_debug(GuestDebug(control=3))
        exit_ = guest.vcpu.run()

        assert isinstance(exit_, Debug)
        assert exit_.pc == 0x1001


def test_tsc_frequency_is_plausible(vcpu):
    """The TSC runs at 100 MHz..20 GHz, and setting it to what it is works."""
    khz = vcpu.get_tsc_khz()
    vcpu.set_tsc_khz(khz)

    assert 100_000 < khz < 20_000_000


def test_interrupt_vector_must_be_a_byte(vcpu):
    """There are 256 vectors."""
    with pytest.raises(ValueError, match=r"^vector=256 is not in 0\.\.255$"):
        vcpu.interrupt(256)


def test_injected_interrupt_runs_the_handler():
    """Without irqchip, KVM_INTERRUPT makes the guest take a vector."""
    code = bytes.fromhex("c7068000 0011 c706820000 00 fb 90 e684 f4")  # IVT[0x20]=0:1100; sti; nop; out
    with TinyGuest(code) as guest:
        guest.memory[0x1100:0x1105] = bytes.fromhex("b042 e680 f4")
        assert guest.vcpu.run().port == 0x84
        assert guest.vcpu.ready_for_interrupt()
        guest.vcpu.interrupt(0x20)
        exit_ = guest.vcpu.run()

        assert (exit_.port, exit_.data) == (0x80, b"\x42")


@pytest.mark.kvm_full
def test_interrupt_window_opens_when_asked():
    """request_interrupt_window brings an exit as soon as interrupts are on."""
    with TinyGuest(bytes.fromhex("fa e684 fb 90 90 f4")) as guest:
        assert guest.vcpu.run().port == 0x84
        guest.vcpu.request_interrupt_window()
        assert guest.vcpu.run() == IrqWindowOpen()
        guest.vcpu.request_interrupt_window(False)
        assert guest.vcpu.run() == Hlt()


def test_translate_follows_the_page_tables(long_guest):
    """Mapped addresses lead to themselves, unmapped ones are invalid."""
    mapped, unmapped = long_guest.vcpu.translate(0x1234), long_guest.vcpu.translate(0x40_0000_0000)

    assert (mapped.valid, mapped.physical_address, unmapped.valid) == (1, 0x1234, 0)


def test_kvmclock_ctrl_needs_a_kvmclock(vcpu):
    """A guest without kvmclock cannot be told that it was paused."""
    with pytest.raises(KvmOSError, match=r"^KVM_KVMCLOCK_CTRL on vCPU 0: Invalid argument \(EINVAL\)$"):
        vcpu.kvmclock_ctrl()


def test_unknown_vcpu_capability_is_refused(vcpu):
    """The kernel's refusal names the ioctl."""
    with pytest.raises(KvmOSError, match=r"^KVM_ENABLE_CAP on vCPU 0: "):
        vcpu.enable_cap(60000)
