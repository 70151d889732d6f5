"""The KVM backend."""

import os
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import kvm_ioctls as kvm
from vm_device import Interrupt, IoApic
from vm_device.platform import AddressRange, AddressSpace

from vm_hypervisor import _exits as exits
from vm_hypervisor._errors import HypervisorUnavailableError, SlotError, UnsupportedFeatureError
from vm_hypervisor._irq import GsiRoutes, IrqLine, KvmMsiRoute
from vm_hypervisor._kvm_values import (
    cpuid_entry,
    failure_reason,
    kvm_native_range,
    kvm_segment,
    kvm_table,
    neutral_leaf,
)
from vm_hypervisor._protocols import Irqchip, MsiRoute, NativeAnswer, VmOps
from vm_hypervisor._split import SplitLine, SplitLines
from vm_hypervisor.arch import x86_64
from vm_hypervisor.arch._x86_64_state import EntryState

_ACCESSES: Final = frozenset((int(kvm.ExitReason.IO), int(kvm.ExitReason.MMIO)))
_EOI: Final = int(kvm.ExitReason.IOAPIC_EOI)
_WHOLE: Final = frozenset((1, 2, 4, 8))  # access sizes that a bus takes in one piece
_EVENTS: Final = {
    1: exits.SystemEventKind.SHUTDOWN,
    2: exits.SystemEventKind.RESET,
    3: exits.SystemEventKind.CRASH,
}
_TSC_DEADLINE: Final = 1 << 24  # CPUID.1:ECX
# What a machine of this package cannot do without; the newest, IMMEDIATE_EXIT, came with Linux 4.11.
_REQUIRED: Final = (
    *("IMMEDIATE_EXIT", "USER_MEMORY", "DESTROY_MEMORY_REGION_WORKS", "JOIN_MEMORY_REGIONS_WORKS"),
    *("IRQCHIP", "IRQ_ROUTING", "IRQFD", "IOEVENTFD", "PIT2", "EXT_CPUID", "MP_STATE"),
    *("SET_TSS_ADDR", "SET_IDENTITY_MAP_ADDR"),
)
_LVT_LINT0, _LVT_LINT1 = 0x350, 0x360
_EXTINT, _NMI = 0x700, 0x400  # delivery mode, bits 8 to 10
_LVT_MASKED: Final = 1 << 16


class KvmHypervisor:
    """KVM of this host, through `/dev/kvm`."""

    name = "kvm"

    def __init__(self, path: str | os.PathLike[str] = "/dev/kvm") -> None:
        """Open `path`.

        Raises:
            HypervisorUnavailableError: missing, closed to us, or not KVM; the message has the cure.
        """
        try:
            self._kvm = kvm.Kvm(path)
        except (kvm.KvmUnavailableError, kvm.KvmAbiError) as error:
            raise HypervisorUnavailableError(str(error)) from None

    @property
    def max_vcpus(self) -> int:
        """Most vCPUs of one VM."""
        return self._kvm.get_max_vcpus()

    def supported_cpuid(self) -> tuple[x86_64.CpuidLeaf, ...]:
        """Return what KVM can show a guest (KVM_GET_SUPPORTED_CPUID and the TSC deadline capability)."""
        deadline = _TSC_DEADLINE if self._kvm.check_extension(kvm.Cap.TSC_DEADLINE_TIMER) else 0
        return tuple(neutral_leaf(entry, deadline) for entry in self._kvm.get_supported_cpuid())

    def create_vm(self, *, irqchip: Irqchip = Irqchip.KERNEL) -> "KvmVm":
        """Create a VM.

        Args:
            irqchip: KERNEL has PICs, I/O APIC and PIT in the kernel; SPLIT has an I/O APIC of
                `vm_device` (`KvmVm.ioapic`), and neither PICs nor a PIT.

        Raises:
            UnsupportedFeatureError: this KVM lacks a capability, which is named; nothing was created.
            kvm_ioctls.KvmOSError: KVM refused.
        """
        missing = [name for name in _REQUIRED if not self._kvm.check_extension(kvm.Cap[name])]
        if missing:
            raise UnsupportedFeatureError(
                f"this KVM lacks {', '.join(f'KVM_CAP_{name} ({int(kvm.Cap[name])})' for name in missing)}, "
                "which every kernel from Linux 4.11 on can have; boot a newer one, or run in an emulated host"
            )
        return KvmVm(self._kvm.create_vm(), irqchip)

    @staticmethod
    def prepare_vcpu_thread() -> None:
        """Block every signal but the kick on the calling thread."""
        kvm.block_signals()

    def close(self) -> None:
        """Close `/dev/kvm`; VMs made from it live on."""
        self._kvm.close()

    def __enter__(self) -> "KvmHypervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KvmVm:
    """One VM on KVM."""

    def __init__(self, vm: kvm.VmFd, irqchip: Irqchip = Irqchip.KERNEL) -> None:
        """Take over `vm` and give it its chips; on an error `vm` is closed.

        Raises:
            UnsupportedFeatureError: this KVM has no split irqchip.
            kvm_ioctls.KvmOSError: KVM refused.
        """
        self._vm = vm
        try:
            vm.set_identity_map_address(x86_64.IDENTITY_MAP)
            vm.set_tss_address(x86_64.TSS)
            if irqchip is Irqchip.SPLIT:
                _split_irqchip(vm)
            else:
                vm.create_irq_chip()
                # Only guests without kvm-clock look at it, to calibrate their TSC.
                vm.create_pit2(speaker_dummy=True)
        except BaseException:
            vm.close()
            raise
        self.native = kvm.NativeExits()
        split = irqchip is Irqchip.SPLIT
        self._routes = GsiRoutes(vm, () if split else None)
        self._split = SplitLines(vm, self._routes) if split else None
        self._lines: dict[int, IrqLine | SplitLine] = {}
        self._slots: dict[int, int] = {}
        self._vcpus: dict[int, KvmVcpu] = {}

    @property
    def ioapic(self) -> IoApic | None:
        """The I/O APIC of a split irqchip, to be put on the MMIO bus; None when it is in the kernel."""
        return None if self._split is None else self._split.ioapic

    def set_memory_slot(
        self,
        slot: int,
        base: int,
        size: int,
        host_address: int,
        *,
        read_only: bool = False,
        log_dirty: bool = False,
    ) -> None:
        """Back guest memory (KVM_SET_USER_MEMORY_REGION); see `Vm.set_memory_slot`."""
        flags = kvm.MemFlags.READONLY if read_only else kvm.MemFlags.NONE
        if log_dirty:
            flags |= kvm.MemFlags.LOG_DIRTY_PAGES
        try:
            self._vm.set_user_memory_region(
                slot, guest_phys_addr=base, memory_size=size, userspace_addr=host_address, flags=flags
            )
        except (kvm.KvmOSError, ValueError) as error:
            raise SlotError(slot, base, size, str(error)) from error
        self._slots[slot] = size

    def remove_memory_slot(self, slot: int) -> None:
        """Delete a slot."""
        if slot not in self._slots:
            raise SlotError(slot, 0, 0, "unknown slot")
        try:
            self._vm.set_user_memory_region(slot, guest_phys_addr=0, memory_size=0, userspace_addr=0)
        except kvm.KvmOSError as error:
            raise SlotError(slot, 0, self._slots[slot], str(error)) from error
        del self._slots[slot]

    def dirty_log(self, slot: int) -> bytes:
        """Return and clear a slot's dirty bits (KVM_GET_DIRTY_LOG)."""
        if slot not in self._slots:
            raise SlotError(slot, 0, 0, "unknown slot")
        return self._vm.get_dirty_log(slot, self._slots[slot])

    def create_vcpu(self, index: int) -> "KvmVcpu":
        """Create vCPU `index`, whose APIC id is the same number."""
        if index in self._vcpus:
            raise ValueError(f"vCPU {index} exists already")
        vcpu = self._vcpus[index] = KvmVcpu(self, self._vm.create_vcpu(index))
        return vcpu

    def irq_line(self, gsi: int) -> Interrupt:
        """Return the line of an I/O APIC pin (0 … 23), the same object each time."""
        if not 0 <= gsi < x86_64.IO_APIC_PINS:
            raise ValueError(f"gsi {gsi} is not within 0 … {x86_64.IO_APIC_PINS - 1}")
        if gsi not in self._lines:
            self._lines[gsi] = IrqLine(self._vm, gsi) if self._split is None else self._split.line(gsi)
        return self._lines[gsi]

    def msi_route(self) -> MsiRoute:
        """Allocate a message-signalled interrupt."""
        return KvmMsiRoute(self._vm, self._routes)

    def register_doorbell(self, fd: int, where: AddressRange, datamatch: int | None = None) -> None:
        """Register an ioeventfd."""
        pio = where.space is AddressSpace.PIO
        self._vm.register_ioevent(fd, where.base, length=where.size, datamatch=datamatch, pio=pio)

    def unregister_doorbell(self, fd: int, where: AddressRange, datamatch: int | None = None) -> None:
        """Take an ioeventfd away."""
        pio = where.space is AddressSpace.PIO
        self._vm.unregister_ioevent(fd, where.base, length=where.size, datamatch=datamatch, pio=pio)

    def set_native_answers(self, answers: Sequence[NativeAnswer]) -> None:
        """Replace the table of accesses that C answers, and make every vCPU fetch it."""
        self.native = kvm.NativeExits(kvm_native_range(answer) for answer in answers)
        for vcpu in self._vcpus.values():
            vcpu.kick()

    def close(self) -> None:
        """Take the irqfds away and close the VM."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self._vm.close()


class KvmVcpu:
    """One vCPU on KVM, x86."""

    def __init__(self, vm: KvmVm, fd: kvm.VcpuFd) -> None:
        """Run `fd`, a vCPU of `vm`."""
        self._vm, self._fd = vm, fd
        self._io = fd.io

    @property
    def index(self) -> int:
        """Position and APIC id."""
        return self._fd.id

    @property
    def fd(self) -> kvm.VcpuFd:
        """The KVM object, for what is KVM's alone (statistics, saved state)."""
        return self._fd

    def run(self, ops: VmOps | None = None) -> exits.Exit:
        """Run until the caller must see something; see `Vcpu.run`."""
        run, vm, head = self._fd.run_raw, self._vm, self._io.head
        while True:
            reason = run(vm.native)
            if ops is not None and reason in _ACCESSES:
                # Ordinary writes, the most frequent access, without a further frame.
                _, mmio, write, size, count, _, addr, value = head()
                if write and count == 1 and size in _WHOLE:
                    (ops.mmio_write if mmio else ops.pio_write)(addr, size, value)
                else:
                    self._serve(ops)
            elif reason == kvm.ExitReason.INTR:
                return exits.Kicked()
            elif not (reason == _EOI and self._end_interrupt()):
                return self._exit()

    def _end_interrupt(self) -> bool:
        """Hand an acknowledgement to the VM's I/O APIC; False when it has none in user space."""
        exit_, ioapic = self._io.exit(), self._vm.ioapic
        if ioapic is None or not isinstance(exit_, kvm.IoapicEoi):
            return False
        ioapic.end_of_interrupt(exit_.vector)
        return True

    def _serve(self, ops: VmOps) -> None:
        mmio, write, addr, size, count, value = self._io.fields()
        if count != 1 or size not in _WHOLE:
            self._serve_pieces(ops)
        elif write:
            (ops.mmio_write if mmio else ops.pio_write)(addr, size, value)
        else:
            self._io.set_value((ops.mmio_read if mmio else ops.pio_read)(addr, size))

    def _serve_pieces(self, ops: VmOps) -> None:
        """String instructions, element by element; MMIO of odd widths (page crossings), byte by byte."""
        mmio, write, addr, size, count, _ = self._io.fields()
        places = [addr + i for i in range(size)] if mmio else [addr] * count
        width = 1 if mmio else size
        if write:
            data = self._io.data
            store = ops.mmio_write if mmio else ops.pio_write
            for i, place in enumerate(places):
                store(place, width, int.from_bytes(data[i * width : (i + 1) * width], "little"))
        else:
            load = ops.mmio_read if mmio else ops.pio_read
            mask = (1 << 8 * width) - 1
            answer = (load(place, width) & mask for place in places)
            self._fd.set_io_result(b"".join(value.to_bytes(width, "little") for value in answer))

    def _exit(self) -> exits.Exit:  # noqa: PLR0911 - one arm an exit
        match self._io.exit():
            case kvm.IoIn(port, size, count):
                return exits.PioRead(port, size, count)
            case kvm.IoOut(port, size, _, data):
                return exits.PioWrite(port, size, data)
            case kvm.MmioRead(addr, size):
                return exits.MmioRead(addr, size)
            case kvm.MmioWrite(addr, _, data):
                return exits.MmioWrite(addr, data)
            case kvm.Hlt():
                return exits.Halt()
            case kvm.Shutdown():
                return exits.Shutdown()
            case kvm.SystemEvent(code, _):
                return exits.SystemEvent(_EVENTS.get(code, exits.SystemEventKind.OTHER), code)
            case kvm.IoapicEoi(vector):
                return exits.IoapicEoi(vector)
            case kvm.Intr():
                return exits.Kicked()
            case kvm.Debug() as stop:
                return exits.DebugStop(stop.pc)
            case other:
                return exits.Failure(failure_reason(other))

    def reply(self, data: bytes) -> None:
        """Answer the last read."""
        self._fd.set_io_result(data)

    def kick(self) -> None:
        """Make `run` return `Kicked`."""
        self._fd.kick()

    def stats(self) -> kvm.RunStats:
        """Return the counters of exits; from any thread, a moment old while it runs."""
        return self._fd.stats()

    def set_cpuid(self, leaves: Sequence[x86_64.CpuidLeaf]) -> None:
        """Fix CPUID (KVM_SET_CPUID2)."""
        self._fd.set_cpuid2([cpuid_entry(leaf) for leaf in leaves])

    def set_entry_state(self, entry: EntryState) -> None:
        """Set general, segment and control registers."""
        sregs = self._fd.get_sregs()
        for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr"):
            setattr(sregs, name, kvm_segment(getattr(entry, name)))
        sregs.gdt, sregs.idt = kvm_table(entry.gdt), kvm_table(entry.idt)
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = entry.cr0, entry.cr3, entry.cr4, entry.efer
        self._fd.set_sregs(sregs)
        self._fd.set_regs(
            kvm.Regs(
                rip=entry.rip,
                rsp=entry.rsp,
                rbp=entry.rbp,
                rsi=entry.rsi,
                rbx=entry.rbx,
                rflags=entry.rflags,
            )
        )

    def set_msrs(self, values: Iterable[tuple[int, int]]) -> None:
        """Write MSRs (KVM_SET_MSRS)."""
        self._fd.set_msrs(kvm.MsrEntry(index, value) for index, value in values)

    def reset_fpu(self) -> None:
        """Set the FPU's control words to their reset values."""
        self._fd.set_fpu(attrs.evolve(self._fd.get_fpu(), fcw=0x37F, mxcsr=0x1F80))

    def wire_lint_pins(self) -> None:
        """Set LINT0 to ExtINT where there is a PIC, else leave it masked; LINT1 to NMI."""
        lapic = bytearray(self._fd.get_lapic())
        # KVM itself leaves LINT0 as ExtINT, whether there is a PIC or not.
        lint0 = _EXTINT if self._vm.ioapic is None else _LVT_MASKED
        for offset, wiring in ((_LVT_LINT0, lint0), (_LVT_LINT1, _NMI)):
            value = int.from_bytes(lapic[offset : offset + 4], "little") & ~0x700 | wiring
            lapic[offset : offset + 4] = value.to_bytes(4, "little")
        self._fd.set_lapic(bytes(lapic))

    def close(self) -> None:
        """Close the vCPU."""
        self._fd.close()


def _split_irqchip(vm: kvm.VmFd) -> None:
    if not vm.check_extension(kvm.Cap.SPLIT_IRQCHIP):
        raise UnsupportedFeatureError(
            "split irqchip: this KVM lacks capability SPLIT_IRQCHIP (121), which came with Linux 4.4; "
            "update the host's kernel or use the in-kernel irqchip"
        )
    vm.enable_cap(kvm.Cap.SPLIT_IRQCHIP, [x86_64.IO_APIC_PINS])
