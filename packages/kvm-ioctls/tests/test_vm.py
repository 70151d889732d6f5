"""VM ioctls that the kernel implements for every architecture, tried with tiny guests."""

import mmap
import os
import select
import threading

import pytest
from kvm_ioctls import (
    Cap,
    ForkedError,
    Hlt,
    Intr,
    IoOut,
    IrqchipRoute,
    KvmOSError,
    MemFlags,
    MmioWrite,
    MsiRoute,
)
from kvm_ioctls._ffi import ffi
from kvm_ioctls.testing import PAGE_SIZE, TinyGuest

pytestmark = pytest.mark.kvm

HLT = b"\xf4"
# Remap the PIC to vector 0x20, unmask only IRQ 4, then wait; the handler writes 0x42 to port 0x80.
IRQ4_GUEST = bytes.fromhex(
    "b011 e620 b020 e621 b004 e621 b001 e621 b0ef e621"  # ICW1-4, mask
    "c7069000 0011 c706920000 00"  # IVT[0x24] = 0000:1100
    "e684 fb f4 ebfd"  # out 0x84 (ready); sti; l: hlt; jmp l
)
IRQ4_HANDLER = bytes.fromhex("b042 e680 b020 e620 cf")  # out 0x80,0x42; EOI; iret


@pytest.fixture
def guest():
    """Yield a guest that halts at once."""
    with TinyGuest(HLT) as guest:
        yield guest


def _address(memory):
    return int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))


def test_second_slot_is_seen_by_the_guest():
    """A slot added later appears in the guest, and disappears when deleted."""
    code = bytes.fromhex("b80020 8ed8 a00000 e680 c606000099 f4")  # al=[0x20000]; out 0x80; [0x20000]=0x99
    with TinyGuest(code) as guest, mmap.mmap(-1, PAGE_SIZE) as more:
        more[0] = 0x37
        guest.vm.set_user_memory_region(
            1, guest_phys_addr=0x20000, memory_size=PAGE_SIZE, userspace_addr=_address(more)
        )
        assert guest.vcpu.run() == IoOut(0x80, 1, 1, b"\x37")
        guest.vm.set_user_memory_region(1, guest_phys_addr=0x20000, memory_size=0, userspace_addr=0)
        assert guest.vcpu.run() == MmioWrite(0x20000, 1, b"\x99")
        assert more[0] == 0x37


def test_overlapping_slot_is_refused(guest):
    """The kernel's EEXIST for an overlap comes through by name."""
    with mmap.mmap(-1, PAGE_SIZE) as more:
        with pytest.raises(
            KvmOSError, match=r"^KVM_SET_USER_MEMORY_REGION on VM fd \d+: File exists \(EEXIST\)$"
        ):
            guest.vm.set_user_memory_region(
                1, guest_phys_addr=0, memory_size=PAGE_SIZE, userspace_addr=_address(more)
            )


@pytest.mark.parametrize("field", ["guest_phys_addr", "memory_size", "userspace_addr"])
def test_unaligned_slot_is_named(guest, field):
    """An unaligned number is refused by name before the kernel sees it."""
    region = {"guest_phys_addr": 0x10000, "memory_size": 0x1000, "userspace_addr": 0x1000, field: 0x1001}

    with pytest.raises(ValueError, match=rf"^{field}=0x1001 is not a multiple of the page size 0x1000$"):
        guest.vm.set_user_memory_region(1, **region)


def test_slot_number_must_fit(guest):
    """A slot beyond 32 bits is refused with all values shown."""
    with pytest.raises(ValueError, match=r"^memory region \(4294967296, "):
        guest.vm.set_user_memory_region(1 << 32, guest_phys_addr=0, memory_size=0, userspace_addr=0)


def test_readonly_slot_turns_writes_into_mmio():
    """A write to read-only memory is an MMIO exit and leaves the memory alone."""
    code = bytes.fromhex("b80020 8ed8 c6060500aa f4")
    with TinyGuest(code) as guest, mmap.mmap(-1, PAGE_SIZE) as rom:
        guest.vm.set_user_memory_region(
            1,
            guest_phys_addr=0x20000,
            memory_size=PAGE_SIZE,
            userspace_addr=_address(rom),
            flags=MemFlags.READONLY,
        )
        assert guest.vcpu.run() == MmioWrite(0x20005, 1, b"\xaa")
        assert rom[5] == 0


def test_region2_where_the_kernel_has_it(guest):
    """SET_USER_MEMORY_REGION2 works as the first one, or the capability is absent and it fails cleanly."""
    with mmap.mmap(-1, PAGE_SIZE) as more:
        region = {"guest_phys_addr": 0x20000, "memory_size": PAGE_SIZE, "userspace_addr": _address(more)}
        if guest.vm.check_extension(Cap.USER_MEMORY2):
            guest.vm.set_user_memory_region2(1, **region)
            guest.vm.set_user_memory_region2(1, **{**region, "memory_size": 0})
        else:
            with pytest.raises(KvmOSError, match="KVM_SET_USER_MEMORY_REGION2"):
                guest.vm.set_user_memory_region2(1, **region)


def test_dirty_log_names_the_written_page():
    """The log holds the page the guest wrote and is clear after it was read."""
    code = bytes.fromhex("a20050 f4")  # [0x5000] = al: page 5
    with TinyGuest(code, flags=MemFlags.LOG_DIRTY_PAGES) as guest:
        guest.vm.get_dirty_log(0, 0x10000)
        assert guest.vcpu.run() == Hlt()
        bitmap = int.from_bytes(guest.vm.get_dirty_log(0, 0x10000), "little")

        assert bitmap >> 5 & 1
        assert not bitmap >> 6 & 0x3FF
        assert not int.from_bytes(guest.vm.get_dirty_log(0, 0x10000), "little")


def test_dirty_log_needs_a_logging_slot(guest):
    """A slot that does not log is ENOENT."""
    with pytest.raises(KvmOSError, match=r"^KVM_GET_DIRTY_LOG on .*ENOENT"):
        guest.vm.get_dirty_log(0, 0x10000)


@pytest.mark.parametrize(("slot", "size"), [(0, 0x1000), (0, 0x20000), (7, 0x1000)])
def test_dirty_log_of_another_size_is_refused(guest, slot, size):
    """The kernel writes as much as the slot has, so a wrong size never reaches it."""
    with pytest.raises(ValueError, match=rf"^memory_size={size:#x}, but slot {slot} has 0x"):
        guest.vm.get_dirty_log(slot, size)


def test_clear_dirty_log_with_manual_protection():
    """With manual protection reading keeps the log and clearing empties it."""
    with TinyGuest(bytes.fromhex("a20050 f4")) as guest:
        guest.vm.enable_cap(Cap.MANUAL_DIRTY_LOG_PROTECT2, [1])
        guest.vm.set_user_memory_region(
            0,
            guest_phys_addr=0,
            memory_size=0x10000,
            userspace_addr=_address(guest.memory),
            flags=MemFlags.LOG_DIRTY_PAGES,
        )
        guest.vcpu.run()
        first = guest.vm.get_dirty_log(0, 0x10000)
        assert int.from_bytes(first, "little") >> 5 & 1
        assert guest.vm.get_dirty_log(0, 0x10000) == first
        guest.vm.clear_dirty_log(0, 0, 16, first)

        assert not any(guest.vm.get_dirty_log(0, 0x10000))


def test_short_clear_bitmap_is_refused(guest):
    """A bitmap shorter than the pages it claims is refused."""
    with pytest.raises(ValueError, match=r"^bitmap has 8 bytes, 65 pages need 16$"):
        guest.vm.clear_dirty_log(0, 0, 65, bytes(8))


def test_ioeventfd_on_a_port(eventfd):
    """Port writes reach the eventfd without an exit."""
    with TinyGuest(bytes.fromhex("ba0006 ee ee ee e680 f4")) as guest:
        guest.vm.register_ioevent(eventfd, 0x600, length=1, pio=True)
        assert guest.vcpu.run() == IoOut(0x80, 1, 1, b"\0")
        assert os.eventfd_read(eventfd) == 3


def test_ioeventfd_datamatch(eventfd):
    """Only the matching value counts, the others exit; unregistered, all exit."""
    code = bytes.fromhex("b005 e610 b007 e610 b005 e610 f4")
    with TinyGuest(code) as guest:
        guest.vm.register_ioevent(eventfd, 0x10, length=1, datamatch=5, pio=True)
        assert guest.vcpu.run() == IoOut(0x10, 1, 1, b"\7")
        assert os.eventfd_read(eventfd) == 1
        guest.vm.unregister_ioevent(eventfd, 0x10, length=1, datamatch=5, pio=True)
        assert guest.vcpu.run() == IoOut(0x10, 1, 1, b"\5")


def test_ioeventfd_on_memory_of_any_width(eventfd):
    """Length 0 takes writes of every width."""
    code = bytes.fromhex("b80020 8ed8 a20000 a30000 66a30000 f4")
    with TinyGuest(code) as guest:
        guest.vm.register_ioevent(eventfd, 0x20000)
        assert guest.vcpu.run() == Hlt()
        assert os.eventfd_read(eventfd) == 3


def test_ioeventfd_twice_is_refused(guest, eventfd):
    """The kernel's EEXIST, and ENOENT for one that is not there."""
    guest.vm.register_ioevent(eventfd, 0x10, length=1, pio=True)
    with pytest.raises(KvmOSError, match=r"KVM_IOEVENTFD on .*EEXIST"):
        guest.vm.register_ioevent(eventfd, 0x10, length=1, pio=True)
    with pytest.raises(KvmOSError, match=r"KVM_IOEVENTFD on .*ENOENT"):
        guest.vm.unregister_ioevent(eventfd, 0x11, length=1, pio=True)


@pytest.mark.parametrize(("length", "datamatch"), [(3, None), (1, 256), (0, 1), (2, -1)])
def test_impossible_ioeventfd_is_refused(guest, eventfd, length, datamatch):
    """Odd lengths and data wider than the length are refused by name."""
    with pytest.raises(ValueError, match=r"^(length=3 is not|datamatch=.* does not fit a write of)"):
        guest.vm.register_ioevent(eventfd, 0x10, length=length, datamatch=datamatch)


def _interrupted_guest():
    guest = TinyGuest(IRQ4_GUEST, irqchip=True)
    guest.memory[0x1100 : 0x1100 + len(IRQ4_HANDLER)] = IRQ4_HANDLER
    assert guest.vcpu.run().port == 0x84
    return guest


def _run_to_handler(guest, raise_irq):
    """Run until the handler's port write; the kick only guards against an interrupt that never comes."""
    exits = []
    thread = threading.Thread(target=lambda: exits.append(guest.vcpu.run()))
    thread.start()
    raise_irq()
    thread.join(60)
    if thread.is_alive():
        guest.vcpu.kick()
        thread.join(60)
    return exits[0]


def test_irqfd_reaches_the_guests_handler(eventfd):
    """A write to the irqfd makes a halted guest run its interrupt handler."""
    with _interrupted_guest() as guest:
        guest.vm.register_irqfd(eventfd, 4)

        assert _run_to_handler(guest, lambda: os.eventfd_write(eventfd, 1)) == IoOut(0x80, 1, 1, b"\x42")
        guest.vm.unregister_irqfd(eventfd, 4)


def test_irq_line_reaches_the_guests_handler():
    """Raising the line does the same."""
    with _interrupted_guest() as guest:
        exit_ = _run_to_handler(guest, lambda: guest.vm.set_irq_line(4, True))

        assert exit_ == IoOut(0x80, 1, 1, b"\x42")


def test_unregistered_irqfd_is_silent(eventfd):
    """After unregister the eventfd no longer interrupts."""
    with _interrupted_guest() as guest:
        guest.vm.register_irqfd(eventfd, 4)
        guest.vm.unregister_irqfd(eventfd, 4)
        guest.vm.set_gsi_routing([IrqchipRoute(4, 0, 4)])
        os.eventfd_write(eventfd, 1)
        guest.vcpu.kick()

        assert guest.vcpu.run() == Intr()
        assert os.eventfd_read(eventfd) == 1


def test_routing_decides_where_a_gsi_goes(eventfd):
    """GSI 9 routed to PIC pin 4 runs the handler of IRQ 4."""
    with _interrupted_guest() as guest:
        guest.vm.set_gsi_routing([IrqchipRoute(9, 0, 4), MsiRoute(10, 0xFEE0_0000, 0x30)])
        guest.vm.register_irqfd(eventfd, 9)

        assert _run_to_handler(guest, lambda: os.eventfd_write(eventfd, 1)) == IoOut(0x80, 1, 1, b"\x42")


def test_resample_irqfd_is_told_of_the_eoi(eventfd):
    """A level irqfd is deasserted at EOI and says so on its second eventfd."""
    resample = os.eventfd(0, os.EFD_NONBLOCK)
    with _interrupted_guest() as guest:
        guest.vm.register_irqfd_with_resample(eventfd, resample, 4)
        assert _run_to_handler(guest, lambda: os.eventfd_write(eventfd, 1)) == IoOut(0x80, 1, 1, b"\x42")
        thread = threading.Thread(target=guest.vcpu.run)
        thread.start()
        readable, _, _ = select.select([resample], [], [], 60)
        guest.vcpu.kick()
        thread.join(60)

    os.close(resample)
    assert readable


def test_irqfd_without_irqchip_is_refused(guest, eventfd):
    """No controller, no interrupt: the kernel's errno comes through."""
    with pytest.raises(KvmOSError, match=r"^KVM_IRQFD on "):
        guest.vm.register_irqfd(eventfd, 4)


def test_signal_msi_without_irqchip_is_refused(guest):
    """No controller, no message."""
    with pytest.raises(KvmOSError, match=r"^KVM_SIGNAL_MSI on "):
        guest.vm.signal_msi(0xFEE0_0000, 0x30)


def test_signal_msi_is_blocked_by_a_disabled_apic():
    """A guest whose local APIC is off does not take the message, and the answer says so."""
    with TinyGuest(HLT, irqchip=True) as guest:
        assert guest.vm.signal_msi(0xFEE0_0000, 0x30) is False


def test_split_irqchip_can_be_enabled():
    """Capability SPLIT_IRQCHIP takes its pin count, before any vCPU."""
    with TinyGuest(HLT) as guest, guest.kvm.create_vm() as vm:
        vm.enable_cap(Cap.SPLIT_IRQCHIP, [24])
        vm.set_gsi_routing([MsiRoute(5, 0xFEE0_0000, 0x31)])


def test_too_many_cap_arguments_are_refused(guest):
    """The ABI has four."""
    with pytest.raises(ValueError, match=r"^5 arguments for capability 121, at most 4 exist$"):
        guest.vm.enable_cap(Cap.SPLIT_IRQCHIP, [1, 2, 3, 4, 5])


def test_vcpu_ids_are_unique(guest):
    """A second vCPU 0 is EEXIST, and nothing leaks."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KvmOSError, match=r"^KVM_CREATE_VCPU on VM fd \d+: File exists \(EEXIST\)$"):
        guest.vm.create_vcpu(0)

    assert len(os.listdir("/proc/self/fd")) == before


def test_boot_cpu_id_is_refused_after_a_vcpu(guest):
    """The bootstrap processor is chosen before the first vCPU."""
    with pytest.raises(KvmOSError, match="KVM_SET_BOOT_CPU_ID"):
        guest.vm.set_boot_cpu_id(1)


def test_vcpu_outlives_its_vm():
    """The kernel keeps the VM while a vCPU is open."""
    with TinyGuest(HLT) as guest:
        guest.vm.close()

        assert guest.vcpu.run() == Hlt()


def test_vm_of_the_parent_is_refused_in_a_child(guest):
    """A forked child may not add memory or vCPUs."""
    pid = os.fork()
    if pid == 0:
        try:
            guest.vm.create_vcpu(1)
        except ForkedError:
            os._exit(0)
        os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
