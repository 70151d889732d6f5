"""Tiny guests on an AArch64 host's KVM: target, init, registers by id, exits."""

import errno
import mmap
import os
import signal
import struct
import threading
import time

import kvm_ioctls as kvm
import pytest
from kvm_ioctls._ffi import ffi

arm64_code = pytest.importorskip("arm64_code", reason="its assembler is in the repository's tools")
PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET = arm64_code.PSCI_SYSTEM_OFF, arm64_code.PSCI_SYSTEM_RESET
PSCI_RESET2, Code = 0x8400_0012, arm64_code.Code
PAIR_LOAD, BRK = 0xA940_0861, 0xD420_0000  # LDP X1, X2, [X3]; BRK #0

pytestmark = pytest.mark.arm64

RAM, SIZE = 0x4000_0000, 0x20_0000
DEVICE = 0x900_0000
GICD, GICR = 0x800_0000, 0x80A_0000
SPI = 40
PC, PSTATE = kvm.arm64_core_reg(256), kvm.arm64_core_reg(264)
PSCI_0_2 = 1 << 2
MIDR_EL1, MPIDR_EL1 = kvm.arm64_sys_reg(3, 0, 0, 0, 0), kvm.arm64_sys_reg(3, 0, 0, 0, 5)


def memory_slot(machine, memory, flags=0):
    """Make `memory` slot 0."""
    # SAFETY: the mapping outlives the VM, which the fixture closes.
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
    machine.set_user_memory_region(
        0, guest_phys_addr=RAM, memory_size=SIZE, userspace_addr=address, flags=flags
    )


@pytest.fixture
def vm():
    """A VM with 2 MiB of memory, and the memory."""
    memory = mmap.mmap(-1, SIZE)
    with kvm.Kvm() as host, host.create_vm() as machine:
        memory_slot(machine, memory)
        yield machine, memory


@pytest.fixture
def gic(vm):
    """(VM, memory, its GICv3, a vCPU of it that is powered off)."""
    machine, memory = vm
    with machine.create_device(kvm.DeviceType.ARM_VGIC_V3) as chip, start(machine, memory, off()) as vcpu:
        chip.set_device_attr(3, 0, struct.pack("<I", 64))  # KVM_DEV_ARM_VGIC_GRP_NR_IRQS
        chip.set_device_attr(0, 2, struct.pack("<Q", GICD))  # _GRP_ADDR
        chip.set_device_attr(0, 3, struct.pack("<Q", GICR))
        chip.set_device_attr(4, 0, b"")  # _GRP_CTRL, INIT
        yield machine, memory, chip, vcpu


def off(code=None):
    """End the guest with PSCI SYSTEM_OFF after `code`."""
    return (code or Code()).move(0, PSCI_SYSTEM_OFF).hvc()


def start(vm, memory, code, features=PSCI_0_2):
    """Return a vCPU that begins with `code`."""
    memory[: 4 * len(code)] = bytes(code)
    vcpu = vm.create_vcpu(0)
    init = vm.arm_preferred_target()
    vcpu.arm_vcpu_init(kvm.Arm64VcpuInit(target=init.target, features=(features, *init.features[1:])))
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


@pytest.mark.parametrize(
    ("function", "type_", "flags"), [(PSCI_SYSTEM_OFF, 1, 0), (PSCI_SYSTEM_RESET, 2, 0), (PSCI_RESET2, 2, 1)]
)
def test_an_end_says_which_it_is(vm, function, type_, flags):
    """Shutdown and reset come with a word of flags, in which bit 0 is SYSTEM_RESET2."""
    with start(*vm, Code().move(0, function).move(1, 0).hvc()) as vcpu:
        assert vcpu.run() == kvm.SystemEvent(type_, (flags,))


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


def test_dirty_log_names_the_written_page(vm):
    """The log has the page, keeps it while it is not cleared, and then no more."""
    machine, memory = vm
    machine.enable_cap(kvm.Cap.MANUAL_DIRTY_LOG_PROTECT2, [1])
    memory_slot(machine, memory, kvm.MemFlags.LOG_DIRTY_PAGES)
    with start(machine, memory, off(Code().poke(RAM + 0x5000, 1))) as vcpu:
        assert isinstance(vcpu.run(), kvm.SystemEvent)
    log = machine.get_dirty_log(0, SIZE)
    assert log[0] & 1 << 5
    assert log == machine.get_dirty_log(0, SIZE)
    machine.clear_dirty_log(0, 0, 64, log[:8])
    assert not machine.get_dirty_log(0, SIZE)[0] & 1 << 5


def test_a_dirty_ring_that_is_full(vm):
    """A guest that writes more pages than the ring has room for stops until they are harvested."""
    machine, memory = vm
    cap, _ = machine.dirty_ring_cap()
    machine.enable_cap(cap, [4096])
    memory_slot(machine, memory, kvm.MemFlags.LOG_DIRTY_PAGES)
    code, pages = Code().move(9, RAM + 0x1000), 300
    for _ in range(pages):
        code.store(9, 9).add(9, 0x800).add(9, 0x800)
    with start(machine, memory, off(code)) as vcpu, vcpu.map_dirty_ring(4096) as ring:
        written = set()
        while (exit_ := vcpu.run()) == kvm.DirtyRingFull():
            written |= {page.page for page in ring.harvest()}
            machine.reset_dirty_rings()
        assert isinstance(exit_, kvm.SystemEvent)
        assert 0 < len(written) < pages
        assert written | {page.page for page in ring.harvest()} >= set(range(1, 1 + pages))


def test_writes_that_do_not_leave_the_kernel(vm):
    """An eventfd counts those to its address, the ring keeps those to its zone; the rest are exits."""
    machine, memory = vm
    event = os.eventfd(0, os.EFD_NONBLOCK)
    machine.register_ioevent(event, DEVICE, length=4, datamatch=7)
    machine.register_coalesced_mmio(DEVICE + 0x1000, 0x100)
    code = Code().poke(DEVICE, 7).poke(DEVICE, 8).poke(DEVICE + 0x1010, 9, 8)
    with start(machine, memory, off(code)) as vcpu, vcpu.map_coalesced_ring() as ring:
        assert vcpu.run() == kvm.MmioWrite(DEVICE, 4, struct.pack("<I", 8))
        assert isinstance(vcpu.run(), kvm.SystemEvent)
        assert [(write.addr, write.data) for write in ring.drain()] == [
            (DEVICE + 0x1010, struct.pack("<Q", 9))
        ]
    assert os.eventfd_read(event) == 1
    machine.unregister_ioevent(event, DEVICE, length=4, datamatch=7)
    machine.unregister_coalesced_mmio(DEVICE + 0x1000, 0x100)
    os.close(event)


def level(chip):
    """The input lines of the first 32 shared interrupts, as the GIC sees them."""
    return struct.unpack("<I", chip.get_device_attr(7, 32, 4))[0]


def pending(chip):
    """GICD_ISPENDR1."""
    return struct.unpack("<I", chip.get_device_attr(1, 0x204, 4))[0]


def test_interrupts_reach_the_gic(gic):
    """A line raises its level, an eventfd its latch by the route, and both go away."""
    machine, _, chip, _ = gic
    bit, line = 1 << SPI - 32, kvm.arm_irq(kvm.ArmIrqType.SPI, SPI)
    assert chip.has_device_attr(7, 32)
    edge = 0b10 << 2 * (SPI + 1) % 32
    chip.set_device_attr(1, 0xC08, struct.pack("<I", edge))  # GICD_ICFGR2: all others have levels
    machine.set_irq_line(line, True)
    assert level(chip) == bit
    assert machine.irq_line_status(line, False) >= 0
    assert level(chip) == 0
    event = os.eventfd(0)
    machine.set_gsi_routing([kvm.IrqchipRoute(gsi=3, irqchip=0, pin=SPI + 1 - 32)])
    machine.register_irqfd(event, 3)
    os.eventfd_write(event, 1)
    while not pending(chip) & bit << 1:  # the kernel's worker gets to it; the test's time limit ends this
        time.sleep(0.01)
    machine.unregister_irqfd(event, 3)
    os.close(event)


def test_a_message_that_no_table_translates(gic):
    """With an ITS a message is taken; without the guest's tables nothing gets it."""
    machine, _, _, _ = gic
    with machine.create_device(kvm.DeviceType.ARM_VGIC_ITS) as its:
        its.set_device_attr(0, 4, struct.pack("<Q", 0x808_0000))
        its.set_device_attr(4, 0, b"")
        for register, value in (
            (0x80, 1 << 63 | RAM + 0x1_0000),  # GITS_CBASER
            (0x100, 1 << 63 | RAM + 0x2_0000),  # GITS_BASER0, devices
            (0x108, 1 << 63 | RAM + 0x3_0000),  # GITS_BASER1, collections
            (0, 1),  # GITS_CTLR
        ):
            its.set_device_attr(8, register, struct.pack("<Q", value))
        assert machine.signal_msi(0x809_0040, 1, devid=8) is False


def test_events_and_states_of_a_vcpu(vm):
    """A pending SError and the power state are read back as they were set."""
    machine, memory = vm
    with start(machine, memory, off(), PSCI_0_2 | 1) as vcpu:  # POWER_OFF
        assert vcpu.get_mp_state() == kvm.MpState.STOPPED
        vcpu.set_mp_state(kvm.MpState.RUNNABLE)
        assert vcpu.get_mp_state() == kvm.MpState.RUNNABLE
        vcpu.set_arm_vcpu_events(kvm.Arm64VcpuEvents(serror_pending=1))
        assert vcpu.get_arm_vcpu_events().serror_pending == 1
        vcpu.set_signal_mask([signal.SIGUSR2])
        vcpu.set_signal_mask(None)
        for stats in (vcpu.get_stats_fd(), machine.get_stats_fd()):
            with stats:
                assert stats.read()


def test_a_breakpoint_is_a_debug_exit(vm):
    """BRK comes here when software breakpoints are asked for, and each instruction when stepping is."""
    machine, memory = vm
    with start(machine, memory, Code().add(1, 1).word(BRK)) as vcpu:
        vcpu.set_arm_guest_debug(kvm.Arm64GuestDebug(control=1 | 2))
        assert isinstance(vcpu.run(), kvm.Arm64Debug)
        assert vcpu.get_one_reg(PC) == RAM + 4
        vcpu.set_arm_guest_debug(kvm.Arm64GuestDebug(control=1 | 1 << 16))
        exit_ = vcpu.run()
        assert isinstance(exit_, kvm.Arm64Debug)
        assert exit_.hsr >> 26 == 0x3C  # BRK of A64
        assert vcpu.get_one_reg(PC) == RAM + 4


def test_an_access_without_a_syndrome(vm):
    """A load of a pair, which KVM cannot decode, comes with what the processor said."""
    machine, memory = vm
    machine.enable_cap(kvm.Cap.ARM_NISV_TO_USER)
    with start(machine, memory, Code().move(3, DEVICE).word(PAIR_LOAD)) as vcpu:
        exit_ = vcpu.run()
        assert isinstance(exit_, kvm.ArmNisv)
        assert exit_.fault_ipa == DEVICE


def test_a_call_that_was_asked_for(vm):
    """A range of SMCCC calls comes here; the answer is in X0."""
    machine, memory = vm
    call = 0xC600_0007
    machine.arm_set_smccc_filter(0xC600_0000, 16, kvm.SmcccAction.FORWARD)
    code = Code().move(0, call).hvc().move(1, DEVICE).store(0, 1, 8)
    with start(machine, memory, code) as vcpu:
        exit_ = vcpu.run()
        assert isinstance(exit_, kvm.Hypercall)
        assert exit_.nr == call
        vcpu.set_one_reg(kvm.arm64_core_reg(0), 99)
        assert vcpu.run() == kvm.MmioWrite(DEVICE, 8, struct.pack("<Q", 99))


def test_the_counter_can_be_moved(vm):
    """All counters of the guest run behind by the offset; the writable bits of id registers are told."""
    machine, memory = vm
    behind = 1 << 40
    code = Code().mrs(2, (3, 3, 14, 0, 2)).move(1, DEVICE).store(2, 1, 8)  # CNTVCT_EL0
    with start(machine, memory, code) as vcpu:
        machine.arm_set_counter_offset(behind)
        exit_ = vcpu.run()
        assert isinstance(exit_, kvm.MmioWrite)
        assert int.from_bytes(exit_.data, "little") > (1 << 64) - behind - 1
    assert any(machine.arm_get_reg_writable_masks())


def test_the_old_interrupt_controller_needs_an_old_host(vm):
    """KVM_CREATE_IRQCHIP is asked for, and makes a GICv2 only where the host's GIC can be one."""
    machine, _ = vm
    if machine.has_device(kvm.DeviceType.ARM_VGIC_V2):
        machine.create_irq_chip()
        return
    with pytest.raises(kvm.KvmOSError, match=r"^KVM_CREATE_IRQCHIP on VM fd ") as err:
        machine.create_irq_chip()
    assert err.value.errno == errno.ENODEV


def highest_page(machine, memory):
    """Put a page of memory at the top of ever smaller address spaces until the VM takes it; how many bits."""
    # SAFETY: the mapping outlives the slot, which goes with the VM.
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
    for bits in range(52, 31, -1):
        try:
            machine.set_user_memory_region(
                1, guest_phys_addr=(1 << bits) - 4096, memory_size=4096, userspace_addr=address
            )
        except kvm.KvmOSError:
            continue
        return bits
    return 0


def test_guest_addresses_are_as_wide_as_asked_for(vm):
    """A VM has the bits it was made with, by default all that the host allows; one bit more is refused."""
    _, memory = vm
    with kvm.Kvm() as host:
        most = host.check_extension(kvm.Cap.ARM_VM_IPA_SIZE)
        assert 32 < most <= 52
        for vm_type, bits in ((None, most), (most, most), (36, 36), (32, 32), (0, 40)):
            with host.create_vm(vm_type) as machine:
                assert highest_page(machine, memory) == bits
        for refused in (31, most + 1):
            with pytest.raises(kvm.KvmOSError, match=r"^KVM_CREATE_VM on "):
                host.create_vm(refused)


def test_region2_is_a_region(vm):
    """KVM_SET_USER_MEMORY_REGION2 takes what the older call takes."""
    machine, _ = vm
    more = mmap.mmap(-1, 4096)
    # SAFETY: the mapping outlives the slot, which is removed below.
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(more)))
    slot = {"guest_phys_addr": RAM + SIZE, "userspace_addr": address}
    machine.set_user_memory_region2(1, **slot, memory_size=4096)
    machine.set_user_memory_region2(1, **slot, memory_size=0)


def test_every_capability_answers(vm):
    """Each name is a number that the kernel takes; PSCI and registers by id are there."""
    machine, _ = vm
    answers = {cap: machine.check_extension(cap) for cap in kvm.Cap}
    assert answers[kvm.Cap.ARM_PSCI_0_2]
    assert answers[kvm.Cap.ONE_REG]
    with kvm.Kvm() as host:
        assert host.get_api_version() == kvm.API_VERSION
