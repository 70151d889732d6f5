"""What the modules of the architectures have in common."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol

from vm_device import BusDevice, EventManager, Interrupt, PvpanicEvent, SystemAllocator
from vm_device.platform import AddressRange, DeviceNode, Platform

if TYPE_CHECKING:
    from linux_loader import KernelImage, LoadedImage, LoadedKernel
    from vm_device import Pl011, Serial16550
    from vm_hypervisor import KvmHypervisor, KvmVcpu, KvmVm
    from vm_hypervisor.kvm_arm64 import KvmArm64Hypervisor, KvmArm64Vcpu, KvmArm64Vm
    from vmm_memory import GuestAddress, GuestMemoryMmap

    from vmm_reference._config import VmConfig

    # KVM is the one hypervisor so far; a Protocol would hide what is KVM's alone from who owns a machine.
    AnyHypervisor = KvmHypervisor | KvmArm64Hypervisor
    AnyVm = KvmVm | KvmArm64Vm
    AnyVcpu = KvmVcpu | KvmArm64Vcpu
    SerialPort = Serial16550 | Pl011
    Loaded = LoadedKernel | LoadedImage

_FLUSH_AFTER = 0.005  # seconds


class GuestRequests(NamedTuple):
    """What the guest can ask of its machine; called on vCPU threads, must not wait.

    Args:
        reset: the guest reset the machine.
        sleep: it entered an ACPI sleep state (SLP_TYP, 5 is soft-off).
        boot_mark: it wrote to the boot timer (monotonic ns, value).
        panic: its kernel reported a panic, or another of pvpanic's events.
        device_event: something happened to a device (id, event, why); not the guest's doing, from any thread.
    """

    reset: Callable[[], None]
    sleep: Callable[[int], None]
    boot_mark: Callable[[int, int], None]
    panic: Callable[[PvpanicEvent], None]
    device_event: Callable[[str, str, str], None] = lambda _id, _event, _why: None


class Wiring(NamedTuple):
    """What the devices of a board are connected to.

    Args:
        requests: who is told what the guest asks for.
        events: the loop of timers.
        serial_out: takes the serial port's output; None builds no serial port.
    """

    requests: GuestRequests
    events: EventManager
    serial_out: Callable[[bytes], None] | None

    def soon(self, flush: Callable[[], None]) -> None:
        """Flush a serial port's output a little later."""
        self.events.call_later(_FLUSH_AFTER, flush)


class Board(Protocol):
    """What every machine of an architecture has; made for one, whose building calls it in this order."""

    @property
    def hypervisor(self) -> "AnyHypervisor":
        """The hypervisor of this host."""

    @property
    def serial(self) -> "SerialPort | None":
        """The first serial port, if there is one."""

    @property
    def window(self) -> AddressRange:
        """MMIO addresses for devices that are not the board's own."""

    @property
    def first_gsi(self) -> int:
        """Interrupts of devices that are not the board's own begin here."""

    def create_vm(self) -> "AnyVm":
        """Create the VM; raises ConfigError for an option that this host's hypervisor cannot have."""

    def create_vcpus(self, stack: ExitStack) -> "Sequence[AnyVcpu]":
        """Create and prepare the vCPUs, which `stack` closes, and what has to come right after them."""

    def allocator(self) -> SystemAllocator:
        """Return the allocators of the machine's spaces, all of them free."""

    def line(self, gsi: int) -> Interrupt:
        """Return the line of a global system interrupt."""

    def devices(self, wiring: Wiring) -> Iterator[tuple[BusDevice, DeviceNode]]:
        """Create the board's own devices, one after the other, and say where each is."""

    def answer_unclaimed(self, ranges: Iterable[AddressRange]) -> None:
        """Have accesses that reach no device answered without the VMM; `ranges` are those of the devices."""

    def platform(self, memory: "GuestMemoryMmap", nodes: Sequence[DeviceNode]) -> Platform:
        """Describe the machine."""

    def load(self, memory: "GuestMemoryMmap", platform: Platform) -> "Loaded":
        """Load the kernel and tell it of the platform; the first vCPU is set to its entry."""


class Architecture(Protocol):
    """What a module of an architecture has."""

    @property
    def Board(self) -> "Callable[[VmConfig], Board]":  # noqa: N802 - a class of the module
        """Makes the board of a machine, which is the caller's to close; no usable KVM is an error."""

    def ram_ranges(self, size: int) -> "Sequence[tuple[GuestAddress, int]]":
        """Return (address, bytes) of each range of RAM."""

    def check_options(self, config: "VmConfig") -> None:
        """Refuse what machines of this architecture do not have; raises ConfigError."""

    def check_kernel(self, config: "VmConfig", image: "KernelImage") -> None:
        """Find out whether loading would succeed; raises what it would."""
