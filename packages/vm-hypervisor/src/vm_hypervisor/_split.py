"""The lines of a VM whose I/O APIC is in user space (KVM_CAP_SPLIT_IRQCHIP).

Each pin has two GSIs. That of its own number is never signalled: KVM reports the acknowledgement of the
level messages in those 24 routes (KVM_EXIT_IOAPIC_EOI), and the route must outlive a mask, since drivers
mask a level interrupt while they handle it. The pin's irqfd is on a GSI of the message range, which loses
its route while the pin is masked: edges go from a device to a local APIC without coming here.
"""

import errno
import threading
from contextlib import ExitStack

from kvm_ioctls import KvmOSError, VmFd
from kvm_ioctls import MsiRoute as MsiEntry
from vm_device import IoApic, PinMessage

from vm_hypervisor._irq import GsiRoutes, IrqLine


class SplitLines:
    """The lines of all pins that a device uses, and the `IoApicOutput` of their I/O APIC."""

    def __init__(self, vm: VmFd, routes: GsiRoutes) -> None:
        """Serve `vm`, whose routes are `routes`."""
        self._vm, self._routes = vm, routes
        self._lock = threading.Lock()  # a device may join while the guest programs its pin
        self._gsis: dict[int, int] = {}
        self._pins: dict[int, tuple[PinMessage, bool]] = {}
        self.ioapic = IoApic(self)

    def set_pin(self, pin: int, message: PinMessage, masked: bool, /) -> None:
        """Route a pin's irqfd and its acknowledgements."""
        with self._lock:
            self._pins[pin] = message, masked
            self._route(pin)

    def _route(self, pin: int) -> None:
        message, masked = self._pins[pin]
        entries = {pin: _entry(pin, message) if message.level else None}
        if pin in self._gsis:
            gsi = self._gsis[pin]
            entries[gsi] = None if masked else _entry(gsi, message)
        self._routes.change(entries)

    def send(self, message: PinMessage, /) -> bool:
        """Send a message (KVM_SIGNAL_MSI)."""
        try:
            return self._vm.signal_msi(message.address, message.data)
        except KvmOSError as error:
            # What the ioctl makes of "no local APIC has this destination", which the guest chose.
            if error.errno == errno.EPERM:
                return False
            raise

    def line(self, pin: int) -> "SplitLine":
        """Return a new line of `pin`, which has none yet."""
        with self._lock, ExitStack() as undo:
            gsi = self._gsis[pin] = self._routes.allocate()
            undo.callback(self._routes.free, gsi)
            undo.callback(self._gsis.pop, pin)
            edges = IrqLine(self._vm, gsi)
            undo.callback(edges.close)
            if pin in self._pins:
                self._route(pin)
            undo.pop_all()
        return SplitLine(self.ioapic, pin, edges)


class SplitLine:
    """One pin as a device sees it: an irqfd for edges, the I/O APIC for the line's level."""

    def __init__(self, ioapic: IoApic, pin: int, edges: IrqLine) -> None:
        """Drive `pin`; `edges` is owned."""
        self._ioapic, self._pin, self._edges = ioapic, pin, edges

    def trigger(self) -> None:
        """Send one edge."""
        self._edges.trigger()

    def set_level(self, level: bool) -> None:
        """Hold the line up or down."""
        self._ioapic.set_level(self._pin, level)

    @property
    def eventfd(self) -> int | None:
        """The descriptor whose write is one edge."""
        return self._edges.eventfd

    def close(self) -> None:
        """Take the irqfd away."""
        self._edges.close()


def _entry(gsi: int, message: PinMessage) -> MsiEntry:
    return MsiEntry(gsi, message.address, message.data)
