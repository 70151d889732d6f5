"""x86-64 ioctls beyond a boot: filters, machine checks, nested and synchronised state, Xen, Hyper-V."""

import ctypes
import errno
import os
import signal
import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import (
    Cap,
    Hlt,
    KvmOSError,
    MachineCheck,
    MsrEntry,
    MsrExits,
    MsrFilterFlags,
    MsrFilterRange,
    PmuEventFilter,
    RdMsr,
    Regs,
    SyncFields,
    UnsupportedError,
    WrMsr,
)
from kvm_ioctls._x86_64._filters import pack_msr_filter
from kvm_ioctls.testing import TinyGuest

HLT = b"\xf4"
READ_MSR = bytes.fromhex("0f32 f4")  # rdmsr; hlt
WRITE_MSR = bytes.fromhex("0f30 f4")  # wrmsr; hlt
EFER_BY_ID = 0x2030_0002_C000_0080  # x86, 64 bits, kind MSR
GET_XSAVE2 = 0x9000_AECF


@pytest.fixture
def guest():
    """Yield a guest with irqchip that halts."""
    with TinyGuest(HLT, irqchip=True) as guest:
        yield guest


class CRange(ctypes.Structure):
    """struct kvm_msr_filter_range by ctypes."""

    _fields_ = [("flags", ctypes.c_uint32), ("nmsrs", ctypes.c_uint32), ("base", ctypes.c_uint32)]
    _fields_ += [("bitmap", ctypes.c_void_p)]


class CFilter(ctypes.Structure):
    """struct kvm_msr_filter by ctypes."""

    _fields_ = [("flags", ctypes.c_uint32), ("ranges", CRange * 16)]


class CPmu(ctypes.Structure):
    """struct kvm_pmu_event_filter without its events, by ctypes."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("action", "nevents", "fixed", "flags")]
    _fields_ += [("pad", ctypes.c_uint32 * 4)]


@st.composite
def msr_ranges(draw):
    """Ranges with their bitmaps."""
    count = draw(st.integers(1, 100))
    bitmap = draw(st.binary(min_size=-(-count // 8), max_size=20))
    flags = MsrFilterFlags(draw(st.integers(1, 3)))
    return MsrFilterRange(draw(st.integers(0, 2**32 - 1)), count, bitmap, flags)


@given(st.lists(msr_ranges(), max_size=16), st.booleans())
def test_msr_filter_is_the_kernels_struct(ranges, deny):
    """Ctypes finds every number, and each bitmap behind its pointer."""
    data, maps = pack_msr_filter(ranges, default_deny=deny)

    seen = CFilter.from_buffer(data)
    assert (len(data), len(maps), seen.flags) == (ctypes.sizeof(CFilter), len(ranges), int(deny))
    for ours, theirs in zip(ranges, seen.ranges, strict=False):
        assert (ours.base, ours.count, ours.flags) == (theirs.base, theirs.nmsrs, theirs.flags)
        assert ctypes.string_at(theirs.bitmap, len(ours.bitmap)) == ours.bitmap
    assert all(item.nmsrs == 0 for item in seen.ranges[len(ranges) :])
    del seen


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=20), st.booleans(), st.integers(0, 2**32 - 1), st.booleans()
)
def test_pmu_filter_is_the_kernels_struct(events, allow, fixed, masked):
    """Ctypes finds the head, struct the events."""
    data = PmuEventFilter(tuple(events), allow, fixed, masked).pack()

    seen = CPmu.from_buffer_copy(data)
    assert (seen.action, seen.nevents, seen.fixed, seen.flags) == (not allow, len(events), fixed, masked)
    assert list(struct.unpack_from(f"<{len(events)}Q", data, ctypes.sizeof(CPmu))) == events


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MsrFilterRange(0, 0, b""), r"^base=0x0, count=0 is no range of 1\.\.12288 MSRs$"),
        (lambda: MsrFilterRange(1 << 32, 1, b"\1"), r"^base=0x100000000, count=1 is no range"),
        (lambda: MsrFilterRange(0, 9, b"\1"), r"^the bitmap has 1 bytes, 9 MSRs need more$"),
        (
            lambda: pack_msr_filter([MsrFilterRange(0, 1, b"\1")] * 17, default_deny=False),
            r"^17 ranges of MSRs",
        ),
        (lambda: PmuEventFilter((1 << 64,)).pack(), r"^PmuEventFilter\(events=\(18446744073709551616,\)"),
    ],
)
def test_impossible_filters_are_refused(make, message):
    """Each says what does not fit."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.kvm_full
def test_filtered_msrs_come_to_the_host():
    """A denied read and a denied write exit with number, reason and data, and are answered."""
    rest = MsrFilterRange(0x10, 1, b"\0")
    with TinyGuest(READ_MSR, regs=Regs(rcx=0x10), long_mode=True) as guest:
        guest.vm.enable_cap(Cap.X86_USER_SPACE_MSR, [MsrExits.FILTER])
        guest.vm.set_msr_filter([rest])
        assert guest.vcpu.run() == RdMsr(0x10, MsrExits.FILTER)
        guest.vcpu.set_msr_result(0x1_0000_0002)
        assert guest.vcpu.run() == Hlt()
        regs = guest.vcpu.get_regs()
        assert (regs.rax, regs.rdx) == (2, 1)
    with TinyGuest(WRITE_MSR, regs=Regs(rcx=0x10, rax=7, rdx=1), long_mode=True) as guest:
        guest.vm.enable_cap(Cap.X86_USER_SPACE_MSR, [MsrExits.FILTER])
        guest.vm.set_msr_filter([rest])
        assert guest.vcpu.run() == WrMsr(0x10, MsrExits.FILTER, 0x1_0000_0007)
        guest.vcpu.set_msr_result()
        assert guest.vcpu.run() == Hlt()


@pytest.mark.kvm
def test_filters_are_taken(guest):
    """The kernel takes both filters."""
    guest.vm.set_msr_filter([MsrFilterRange(0xC000_0080, 8, b"\xff")], default_deny=True)
    guest.vm.set_msr_filter([])
    guest.vm.set_pmu_event_filter(PmuEventFilter((0xC0,), allow=True))


@pytest.mark.kvm
def test_machine_checks_can_be_set_up_and_injected(guest):
    """A corrected error in bank 1 lands in the bank's registers."""
    assert guest.kvm.get_mce_cap() & 1 << 8  # MCG_CTL_P: there is a control register
    guest.vcpu.setup_mce(10)
    guest.vcpu.set_mce(MachineCheck(status=1 << 63 | 0x42, addr=0x1234, bank=1))

    status = guest.vcpu.get_msrs([0x405, 0x406])

    assert [entry.data for entry in status] == [1 << 63 | 0x42, 0x1234]


@pytest.mark.kvm
def test_sregs2_go_round(guest):
    """What was read can be set."""
    sregs = guest.vcpu.get_sregs2()
    guest.vcpu.set_sregs2(sregs)

    assert guest.vcpu.get_sregs2() == sregs


@pytest.mark.kvm
def test_registers_travel_in_the_run_page():
    """Valid fields are there after an exit without an ioctl; dirty ones are loaded by the next run."""
    with TinyGuest(bytes.fromhex("f4 f4"), regs=Regs(rbx=77)) as guest:
        vcpu = guest.vcpu
        vcpu.set_sync_fields(SyncFields.REGS | SyncFields.SREGS | SyncFields.EVENTS)
        vcpu.run()
        seen = vcpu.get_sync_regs()
        assert (seen.regs, seen.sregs) == (vcpu.get_regs(), vcpu.get_sregs())
        assert (seen.regs.rbx, seen.events) == (77, vcpu.get_vcpu_events())

        vcpu.put_sync_regs(attrs.evolve(seen, regs=attrs.evolve(seen.regs, rbx=5)))
        vcpu.set_sync_fields(SyncFields.REGS, SyncFields.REGS)
        vcpu.run()
        assert vcpu.get_regs().rbx == 5


@pytest.mark.kvm
def test_signal_masks_are_set_and_taken_back(guest):
    """A mask of signals is accepted, and so is none; what is no signal is refused before the kernel."""
    guest.vcpu.set_signal_mask([signal.SIGUSR1, signal.SIGTERM])
    guest.vcpu.set_signal_mask(None)
    with pytest.raises(ValueError, match=r"^signal 0 is not in 1\.\."):
        guest.vcpu.set_signal_mask([0])


@pytest.mark.kvm
def test_settings_of_the_vm_are_taken(guest):
    """Shadow pages, PIT policy, TPR reporting, virtual APIC page, TSC."""
    guest.vm.set_nr_mmu_pages(1024)
    guest.vm.create_pit2()
    guest.vm.set_pit_reinject(False)
    guest.vcpu.set_tpr_access_reporting(True)
    guest.vcpu.set_vapic_addr(0x8000)

    assert guest.vm.get_vm_tsc_khz() > 0


@pytest.mark.kvm
def test_attributes_of_kvm_and_vcpu(guest):
    """The system has the guest's XSAVE features, the vCPU its TSC offset."""
    assert guest.kvm.has_device_attr(0, 0)
    assert guest.kvm.get_device_attr(0, 0, 8)[0] & 3 in (0, 3)  # x87 and SSE, or a processor without XSAVE
    assert guest.vcpu.has_device_attr(0, 0)
    offset = guest.vcpu.get_device_attr(0, 0, 8)
    guest.vcpu.set_device_attr(0, 0, offset)
    assert not guest.vcpu.has_device_attr(0, 99)


@pytest.mark.kvm
def test_both_ways_to_the_xsave_area(guest):
    """KVM_GET_XSAVE2, which an area of more than 4096 bytes wants, gives what KVM_GET_XSAVE does."""
    if not guest.vm.check_extension(Cap.XSAVE2):
        pytest.skip("this kernel has no capability XSAVE2")
    area = bytearray(max(4096, guest.vm.check_extension(Cap.XSAVE2)))
    guest.vcpu.raw_ioctl(GET_XSAVE2, area)

    assert bytes(area) == guest.vcpu.get_xsave()


@pytest.mark.kvm
def test_any_vcpu_can_be_the_first():
    """The boot processor is named before there is one, and no other is it; after that it is too late."""
    with TinyGuest(HLT, irqchip=True, prepare=lambda vm: vm.set_boot_cpu_id(1)) as guest:
        with guest.vm.create_vcpu(1) as second:
            first, other = second.get_sregs().apic_base >> 8 & 1, guest.vcpu.get_sregs().apic_base >> 8 & 1
        assert (first, other) == (1, 0)
        with pytest.raises(KvmOSError, match=r"^KVM_SET_BOOT_CPU_ID on .*EBUSY"):
            guest.vm.set_boot_cpu_id(0)


@pytest.mark.kvm
def test_a_clock_learns_that_the_guest_was_paused(guest):
    """With a kvmclock page its flag says so, for the guest's watchdogs."""
    guest.vcpu.set_msrs([MsrEntry(0x4B56_4D01, 0x3000 | 1)])
    guest.vcpu.kvmclock_ctrl()
    guest.memory[0x1000:0x1003] = bytes.fromhex("e684 f4")  # the page is filled on the way in
    guest.vcpu.run()

    assert guest.memory[0x3000 + 29] & 2  # PVCLOCK_GUEST_STOPPED


@pytest.mark.kvm_full
def test_a_system_management_interrupt_is_pending(guest):
    """A queued SMI shows in the events."""
    guest.vcpu.smi()

    assert guest.vcpu.get_vcpu_events().smi_pending


@pytest.mark.kvm
def test_interrupt_needs_no_irqchip():
    """External interrupts are injected from here when the kernel has no chips."""
    with TinyGuest(HLT) as guest:
        guest.vcpu.interrupt(0x21)

        assert guest.vcpu.get_vcpu_events().interrupt_nr == 0x21


@pytest.mark.kvm_full
def test_hyperv_leaves_and_connections(guest):
    """Leaf 0x40000000 has Linux's signature, the next that of the interface; a connection has one eventfd."""
    for leaves in (guest.kvm.get_supported_hv_cpuid(), guest.vcpu.get_supported_hv_cpuid()):
        by_number = {leaf.function: leaf for leaf in leaves}
        first = by_number[0x4000_0000]
        assert struct.pack("<III", first.ebx, first.ecx, first.edx) == b"Linux KVM Hv"
        assert by_number[0x4000_0001].eax.to_bytes(4, "little") == b"Hv#1"
    fd = os.eventfd(0)
    try:
        guest.vm.register_hyperv_eventfd(5, fd)
        with pytest.raises(KvmOSError, match=r"^KVM_HYPERV_EVENTFD on .*EEXIST"):
            guest.vm.register_hyperv_eventfd(5, fd)
        guest.vm.unregister_hyperv_eventfd(5)
        with pytest.raises(KvmOSError, match=r"^KVM_HYPERV_EVENTFD on .*ENOENT"):
            guest.vm.unregister_hyperv_eventfd(5)
    finally:
        os.close(fd)
    with pytest.raises(ValueError, match=r"^conn_id=0x1000000 has more than 24 bits$"):
        guest.vm.register_hyperv_eventfd(1 << 24, fd)


@pytest.mark.kvm_full
def test_nested_state_goes_round(guest):
    """A host with nested virtualisation gives a head that says its length, and takes it back."""
    guest.vcpu.set_cpuid2(guest.kvm.get_supported_cpuid())
    state = guest.vcpu.get_nested_state()
    guest.vcpu.set_nested_state(state)

    assert struct.unpack_from("<I", state, 4)[0] == len(state) >= 128
    with pytest.raises(ValueError, match=r"^nested state of 127 bytes is cut off$"):
        guest.vcpu.set_nested_state(state[:127])


@pytest.mark.kvm
def test_nested_state_names_the_missing_capability(guest):
    """A host without nested virtualisation says so before the kernel is asked."""
    if guest.vm.check_extension(Cap.NESTED_STATE):
        assert len(guest.vcpu.get_nested_state()) >= 128
        return
    with pytest.raises(
        UnsupportedError, match=r"^vCPU 0: the host lacks capability NESTED_STATE \(157\); load .* nested=1$"
    ):
        guest.vcpu.get_nested_state()


@pytest.mark.kvm_full
def test_xen_attributes_are_kept(guest):
    """KVM answers as Xen; long mode and vCPU id are read back as they were set."""
    guest.vm.xen_hvm_config(1 << 1)
    wanted = struct.pack("<H6xB63x", 0, 1)
    guest.vm.xen_hvm_set_attr(wanted)
    assert guest.vm.xen_hvm_get_attr(0) == wanted
    vcpu = struct.pack("<H6xI60x", 6, 3)
    guest.vcpu.xen_vcpu_set_attr(vcpu)
    assert guest.vcpu.xen_vcpu_get_attr(6) == vcpu
    with pytest.raises(ValueError, match=r"^kvm_xen_hvm_attr has 1 bytes, not 72$"):
        guest.vm.xen_hvm_set_attr(b"\0")


@pytest.mark.kvm_full
def test_a_xen_event_is_pending_in_the_shared_page(guest):
    """A port sets its bit where the guest's shared info page has the pending ones; port 0 is refused."""
    guest.vm.xen_hvm_config(1 << 1 | 1 << 5, 0x4000_0000)
    guest.vm.xen_hvm_set_attr(struct.pack("<H6xQ56x", 1, 3))
    guest.vcpu.xen_vcpu_set_attr(struct.pack("<H6xQ56x", 0, 0x3000))
    guest.vm.xen_hvm_evtchn_send(13, 0)

    assert guest.memory[0x3800:0x3804] == struct.pack("<I", 1 << 13)
    with pytest.raises(KvmOSError, match=r"^KVM_XEN_HVM_EVTCHN_SEND on "):
        guest.vm.xen_hvm_evtchn_send(0, 0)


@pytest.mark.kvm
def test_encryption_commands_pass_or_fail_by_the_kernel(guest):
    """A plain VM has no encryption: the kernel refuses; a wrong length never reaches it."""
    for call in (guest.vm.memory_encrypt_op, guest.vcpu.memory_encrypt_op):
        with pytest.raises(KvmOSError, match=r"^KVM_MEMORY_ENCRYPT_OP on ") as err:
            call(bytes(24))
        assert err.value.errno in (errno.ENOTTY, errno.EINVAL)
        with pytest.raises(ValueError, match=r"^the command has 23 bytes, not 24$"):
            call(bytes(23))
    for call in (guest.vm.register_enc_region, guest.vm.unregister_enc_region):
        with pytest.raises(KvmOSError, match=r"_REGION on VM fd"):
            call(0, 4096)


@pytest.mark.kvm
def test_any_ioctl_by_its_number(guest):
    """KVM_CHECK_EXTENSION by value and KVM_GET_REGS by struct; a short struct is refused."""
    assert guest.vm.raw_ioctl(0xAE03, int(Cap.NR_MEMSLOTS)) == guest.vm.check_extension(Cap.NR_MEMSLOTS)
    data = bytearray(Regs.wire_size())
    guest.vcpu.raw_ioctl(0x8090_AE81, data)
    assert Regs.unpack(data) == guest.vcpu.get_regs()
    with pytest.raises(ValueError, match=r"^ioctl 0x8090ae81 takes 144 bytes, not 143$"):
        guest.vcpu.raw_ioctl(0x8090_AE81, bytearray(143))


@pytest.mark.kvm
def test_registers_have_ids_on_kernels_that_list_them(guest):
    """Linux 6.18 has x86 registers by id."""
    if not guest.kvm.check_extension(Cap.ONE_REG):
        pytest.skip("this kernel has no capability ONE_REG")
    guest.vcpu.get_reg_list()
    guest.vcpu.set_one_reg(EFER_BY_ID, guest.vcpu.get_one_reg(EFER_BY_ID))


@pytest.mark.kvm
def test_a_register_too_wide_never_leaves(guest):
    """The id says how many bytes there are."""
    with pytest.raises(ValueError, match=r"^value=0x1(0{16}) does not fit the 8 bytes"):
        guest.vcpu.set_one_reg(0x2030_0002_0000_0010, 1 << 64)


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda guest: guest.vcpu.setup_mce(-1), r"^mcg_cap \(-1,\): "),
        (lambda guest: guest.vcpu.set_vapic_addr(1 << 64), r"^address \(18446744073709551616,\): "),
        (lambda guest: guest.vcpu.xen_vcpu_get_attr(1 << 16), r"^attribute \(65536,\): .* 65535$"),
        (lambda guest: guest.vcpu.enable_cap(1 << 32), r"^capability \(4294967296, 0, 0, 0, 0, 0\): "),
        (lambda guest: guest.vm.enable_cap(1, (0,) * 5), r"^5 arguments for capability 1, at most 4 exist$"),
        (lambda guest: guest.vm.register_hyperv_eventfd(1, 1 << 31), r"^eventfd \(1, 2147483648, 0\): "),
        (lambda guest: guest.vm.register_enc_region(0, -1), r"^region \(0, -1\): "),
        (lambda guest: guest.vm.unregister_enc_region(-1, 0), r"^region \(-1, 0\): "),
        (lambda guest: guest.vm.xen_hvm_config(0, 1 << 32), r"^flags and MSR \(0, 4294967296\): "),
        (lambda guest: guest.vm.xen_hvm_get_attr(-1), r"^attribute \(-1,\): "),
        (lambda guest: guest.vm.xen_hvm_evtchn_send(-1, 0), r"^event channel \(-1, 0, 4294967295\): "),
        (lambda guest: guest.vm.set_irqchip(1 << 32, bytes(512)), r"^irqchip \(4294967296, 0\): "),
        (lambda guest: guest.vm.create_vcpu(-1), r"^argument=-0x1 is not in 0\.\."),
        (lambda guest: guest.vcpu.set_msr_result(1 << 64), r"^data=0x1(0{16}) is not in 0\.\."),
        (lambda guest: guest.vcpu.map_dirty_ring(4097), r"^size=0x1001 is not a power of two in 0x1000\.\."),
        (lambda guest: guest.vcpu.get_device_attr(0, 0, -1), r"^size=-1 is not in 0\.\.1048576$"),
        (lambda guest: guest.vm.get_irqchip(-1), r"^irqchip \(-1, 0\): "),
        (lambda guest: guest.vm.set_memory_attributes(0, 0, -1), r"^attributes=-0x1 is not in 0\.\."),
    ],
)
def test_numbers_that_do_not_fit_are_shown(call, message):
    """What no struct of the kernel can hold is refused before the kernel sees it."""
    with TinyGuest(b"\xf4") as guest, pytest.raises(ValueError, match=message):
        call(guest)
