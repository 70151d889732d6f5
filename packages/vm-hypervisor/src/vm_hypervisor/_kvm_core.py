"""What VMs and vCPUs on KVM have in common, whatever their architecture."""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

import kvm_ioctls as kvm
from vm_device.platform import AddressRange, AddressSpace

import vm_hypervisor  # whose names load when they are used
from vm_hypervisor._errors import HypervisorUnavailableError, SlotError, UnsupportedFeatureError
from vm_hypervisor._irq import GsiRoutes, IrqLine, KvmMsiRoute, KvmResampledLine
from vm_hypervisor._kvm_numbers import (
    CAPABILITIES,
    EXIT_INTR,
    EXIT_IO,
    EXIT_MMIO,
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
)
from vm_hypervisor._kvm_values import kvm_native_range
from vm_hypervisor._protocols import MsiRoute, NativeAnswer, ResampledLine, VmOps

if TYPE_CHECKING:
    from vm_hypervisor._split import SplitLine

_ACCESSES: Final = frozenset((EXIT_IO, EXIT_MMIO))
_WHOLE: Final = frozenset((1, 2, 4, 8))  # access sizes that a bus takes in one piece


class KvmHypervisorCore:
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

    def _require(self, names: Sequence[str]) -> None:
        missing = [name for name in names if not self._kvm.check_extension(CAPABILITIES[name])]
        if missing:
            raise UnsupportedFeatureError(
                f"this KVM lacks {', '.join(f'KVM_CAP_{name} ({CAPABILITIES[name]})' for name in missing)}, "
                "which every kernel from Linux 4.11 on can have; boot a newer one, or run in an emulated host"
            )

    @staticmethod
    def prepare_vcpu_thread() -> None:
        """Block every signal but the kick on the calling thread."""
        kvm.block_signals()

    def close(self) -> None:
        """Close `/dev/kvm`; VMs made from it live on."""
        self._kvm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KvmVmCore:
    """Memory slots, messages, doorbells and the native table of a VM."""

    _devices_have_ids = False

    def __init__(self, vm: kvm.VmFd, routes: GsiRoutes) -> None:
        """Serve `vm`, whose routes are `routes`."""
        self._vm, self._routes = vm, routes
        self.native = kvm.NativeExits()
        self._slots: dict[int, int] = {}
        self._vcpus: dict[int, KvmVcpuCore] = {}
        self._lines: dict[int, IrqLine | SplitLine] = {}
        self._sources: set[KvmResampledLine] = set()
        self._lines_lock = threading.Lock()

    def _line(self, gsi: int, make: "Callable[[], IrqLine | SplitLine]") -> "IrqLine | SplitLine":
        # Two irqfds of one pin would each be right, but only one of them would be closed.
        with self._lines_lock:
            if gsi not in self._lines:
                self._lines[gsi] = make()
            return self._lines[gsi]

    def _source(self, make: "Callable[[ExitStack], KvmResampledLine]") -> ResampledLine:
        with ExitStack() as undo:
            source = make(undo)
        self._sources.add(source)
        source.before_close(self._sources.discard)
        return source

    def _close_lines(self) -> None:
        for source in tuple(self._sources):
            source.close()
        with self._lines_lock:
            for line in self._lines.values():
                line.close()
            self._lines.clear()

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
        flags = (MEM_READONLY if read_only else 0) | (MEM_LOG_DIRTY_PAGES if log_dirty else 0)
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

    def msi_route(self, device_id: int = 0) -> MsiRoute:
        """Allocate a message-signalled interrupt; only an ITS knows devices by id."""
        return KvmMsiRoute(self._vm, self._routes, device_id if self._devices_have_ids else None)

    def register_doorbell(self, fd: int, where: AddressRange, datamatch: int | None = None) -> None:
        """Register an ioeventfd."""
        pio = where.space is AddressSpace.PIO
        self._vm.register_ioevent(fd, where.base, length=where.size, datamatch=datamatch, pio=pio)

    def unregister_doorbell(self, fd: int, where: AddressRange, datamatch: int | None = None) -> None:
        """Take an ioeventfd away."""
        pio = where.space is AddressSpace.PIO
        self._vm.unregister_ioevent(fd, where.base, length=where.size, datamatch=datamatch, pio=pio)

    def set_native_answers(self, answers: Sequence[NativeAnswer]) -> None:
        """Replace the table of accesses that C answers, and make every vCPU that has run fetch it."""
        self.native = kvm.NativeExits(kvm_native_range(answer) for answer in answers)
        for vcpu in self._vcpus.values():
            # One that enters just now has said so before it looked at the table.
            if vcpu.entered:
                vcpu.kick()


class KvmVcpuCore:
    """Running a vCPU and answering what it asks.

    Attributes:
        entered: whether it ever ran; a kick before would only make its first run come back at once.
    """

    def __init__(self, vm: KvmVmCore, fd: kvm.VcpuFd, index: int) -> None:
        """Run `fd`, vCPU `index` of `vm`."""
        self._vm, self._fd, self._index = vm, fd, index
        self._io = fd.io
        self.entered = False

    @property
    def index(self) -> int:
        """Position in the VM."""
        return self._index

    @property
    def fd(self) -> kvm.VcpuFd:
        """The KVM object, for what is KVM's alone (statistics, saved state)."""
        return self._fd

    def run(self, ops: VmOps | None = None) -> "vm_hypervisor.Exit":
        """Run until the caller must see something; see `Vcpu.run`."""
        self.entered = True
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
            elif reason == EXIT_INTR:
                return vm_hypervisor.Kicked()
            elif not self._answered(reason):
                return self._exit()

    def _answered(self, reason: int) -> bool:  # noqa: ARG002 - what an architecture's own exits say
        """Deal with an exit that is the backend's own affair; False when it is not."""
        return False

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

    def _exit(self) -> "vm_hypervisor.Exit":
        from vm_hypervisor._kvm_exits import neutral  # noqa: PLC0415 - what a vCPU ends with, not what it lives on

        return neutral(self._io.exit())

    def reply(self, data: bytes) -> None:
        """Answer the last read."""
        self._fd.set_io_result(data)

    def kick(self) -> None:
        """Make `run` return `Kicked`."""
        self._fd.kick()

    def stats(self) -> "kvm.RunStats":
        """Return the counters of exits; from any thread, a moment old while it runs."""
        return self._fd.stats()

    def close(self) -> None:
        """Close the vCPU."""
        self._fd.close()
