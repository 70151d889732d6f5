"""What a VMM needs of any hypervisor.

A VMM written against these runs on every backend; KVM is the first. Signatures use plain
integers for guest addresses and sizes: value objects stay on the outside of the hot path.
"""

import enum
from collections.abc import Sequence
from typing import Protocol

import attrs
from vm_device import Interrupt, ResampledInterrupt, Value
from vm_device.platform import AddressRange

import vm_hypervisor  # whose names load when they are used


class Irqchip(enum.Enum):
    """Where a VM's wired interrupts are collected.

    KERNEL: in the hypervisor. SPLIT: in the VMM, while the processors' local controllers stay in the
    hypervisor; the VM then brings a device that the VMM puts on its bus (`arch.x86_64.X86Vm.ioapic`).
    """

    KERNEL = "kernel"
    SPLIT = "split"


class VmOps(Protocol):
    """Where a vCPU's I/O goes (`vm_device.IoReader` is one); values are little-endian unsigned."""

    def pio_read(self, port: int, size: int, /) -> int:
        """Return the value of `size` bytes (1, 2, 4) at I/O port `port`."""
        ...

    def pio_write(self, port: int, size: int, value: int, /) -> None:
        """Store the value of `size` bytes (1, 2, 4) at I/O port `port`."""
        ...

    def mmio_read(self, address: int, size: int, /) -> int:
        """Return the value of `size` bytes (1, 2, 4, 8) at guest-physical `address`."""
        ...

    def mmio_write(self, address: int, size: int, value: int, /) -> None:
        """Store the value of `size` bytes (1, 2, 4, 8) at guest-physical `address`."""
        ...


@attrs.frozen(eq=False, repr=False)
class NativeAnswer(Value):
    """An access that the backend may answer itself, without the VMM being asked.

    Args:
        range: the PIO or MMIO range; an access must lie wholly inside.
        read: the constant that reads return, cut to the access size; None sends reads to the VMM.
        drop_writes: whether writes vanish; False sends them to the VMM.
    """

    range: AddressRange
    read: int | None = None
    drop_writes: bool = False


class Vcpu(Protocol):
    """One virtual CPU. All calls but `kick` belong to the thread that runs it."""

    @property
    def index(self) -> int:
        """Position of the vCPU in its VM, from 0."""
        ...

    def run(self, ops: VmOps | None = None) -> "vm_hypervisor.Exit":
        """Run the guest until something happens that the caller must see.

        Args:
            ops: where PIO and MMIO accesses go; with None they are returned as exits.

        Returns:
            The exit. `Kicked` means that all earlier accesses are completed.
            An access that is never answered by `reply` reads as all ones.
        """
        ...

    def reply(self, data: bytes) -> None:
        """Answer the last `PioRead` (size × count bytes) or `MmioRead` (size bytes)."""
        ...

    def kick(self) -> None:
        """Make the current, or else the next, `run` return `Kicked`; from any thread."""
        ...

    def close(self) -> None:
        """Give the vCPU's resources back; it must not be running."""
        ...


class MsiRoute(Protocol):
    """One message-signalled interrupt: a trigger whose address and data can change."""

    @property
    def interrupt(self) -> Interrupt:
        """What a device holds: `trigger()` and an eventfd."""
        ...

    def set_message(self, address: int, data: int) -> None:
        """Point the route at a message (64-bit address, 32-bit data); applies at once."""
        ...

    def close(self) -> None:
        """Free the route and its GSI."""
        ...


class ResampledLine(Protocol):
    """One source of a level line, which is up while any of its sources has it up."""

    @property
    def interrupt(self) -> ResampledInterrupt:
        """What a device holds, or hands on: two eventfds."""
        ...

    def close(self) -> None:
        """Take the source away and close both eventfds; idempotent."""
        ...


class Vm(Protocol):
    """One virtual machine: memory slots, interrupts, doorbells, vCPUs."""

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
        """Back `size` bytes of guest-physical memory from `base` by host memory.

        Args:
            slot: stable number of the slot, 0 … the hypervisor's maximum.
            base: guest-physical address, page aligned.
            size: bytes, page aligned, > 0.
            host_address: address in this process; must outlive the slot.
            read_only: guest writes become MMIO exits.
            log_dirty: keep a dirty log (`dirty_log`).

        Raises:
            SlotError: refused; the slots are as before.
        """
        ...

    def remove_memory_slot(self, slot: int) -> None:
        """Take a slot away; raises `SlotError` when it is unknown."""
        ...

    def dirty_log(self, slot: int) -> bytes:
        """Return and clear the slot's dirty bits, one bit a 4 KiB page, little-endian 64-bit words."""
        ...

    def create_vcpu(self, index: int) -> Vcpu:
        """Create vCPU `index`; raises `ValueError` when it exists."""
        ...

    def irq_line(self, gsi: int) -> Interrupt:
        """Return the interrupt line `gsi`, with its eventfd wherever the controller is."""
        ...

    def resampled_line(self, gsi: int) -> ResampledLine:
        """Return a new source of level line `gsi`, for a device that has to be told of ends of interrupts.

        The guest must have programmed the line as level-triggered. Sources still open are closed with the VM.

        Raises:
            ValueError: there is no such line.
        """
        ...

    def msi_route(self, device_id: int = 0) -> MsiRoute:
        """Allocate a message-signalled interrupt.

        Args:
            device_id: who sends it, 32 bits, where the controller tells devices apart (a GICv3's ITS);
                nothing elsewhere.

        Raises:
            RouteError: no GSI is free.
        """
        ...

    def register_doorbell(self, fd: int, where: AddressRange, datamatch: int | None = None) -> None:
        """Signal eventfd `fd` instead of exiting when the guest writes to `where` (ioeventfd).

        Args:
            fd: the eventfd; stays the caller's.
            where: address and width (1, 2, 4, 8 bytes) of the write.
            datamatch: only this value counts; None means any.
        """
        ...

    def unregister_doorbell(self, fd: int, where: AddressRange, datamatch: int | None = None) -> None:
        """Undo `register_doorbell` with the same arguments."""
        ...

    def set_native_answers(self, answers: Sequence[NativeAnswer]) -> None:
        """Replace the table of accesses answered without the VMM; running vCPUs pick it up at once."""
        ...

    def close(self) -> None:
        """Close the VM; its vCPUs must be closed first."""
        ...


class Hypervisor(Protocol):
    """A hypervisor of this host."""

    @property
    def name(self) -> str:
        """Short name: "kvm"."""
        ...

    @property
    def max_vcpus(self) -> int:
        """Most vCPUs that one VM may have."""
        ...

    def prepare_vcpu_thread(self) -> None:
        """Set up the calling thread for running vCPUs: its signal mask."""
        ...

    def create_vm(self, *, irqchip: Irqchip = Irqchip.KERNEL) -> Vm:
        """Create a VM with the architecture's standard interrupt controllers.

        Raises:
            UnsupportedFeatureError: this hypervisor cannot have `irqchip`.
        """
        ...
