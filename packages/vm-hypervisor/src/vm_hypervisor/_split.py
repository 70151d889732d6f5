"""The lines of a VM whose I/O APIC is in user space (KVM_CAP_SPLIT_IRQCHIP).

Each pin has two GSIs. That of its own number is never signalled: KVM reports the acknowledgement of the
level messages in those 24 routes (KVM_EXIT_IOAPIC_EOI), and the route must outlive a mask, since drivers
mask a level interrupt while they handle it. The pin's irqfd is on a GSI of the message range, which loses
its route while the pin is masked: edges go from a device to a local APIC without coming here.

A resampled source has an irqfd of that kind too, so what it raises does not come here either. KVM would
not tell it of ends, which are the I/O APIC's to know, and what is written while the pin is masked is lost.
So it is asked to look at its cause at each end, and whenever the pin is unmasked or points elsewhere.
"""

import errno
import threading
from collections import defaultdict
from contextlib import ExitStack

from kvm_ioctls import KvmOSError, VmFd
from kvm_ioctls import MsiRoute as MsiEntry
from vm_device import IoApic, PinMessage

from vm_hypervisor._irq import GsiRoutes, IrqLine, KvmResampledLine


class SplitLines:
    """The lines of all pins that a device uses, and the `IoApicOutput` of their I/O APIC."""

    def __init__(self, vm: VmFd, routes: GsiRoutes) -> None:
        """Serve `vm`, whose routes are `routes`."""
        self._vm, self._routes = vm, routes
        self._lock = threading.Lock()  # a device may join while the guest programs its pin
        self._gsis: defaultdict[int, set[int]] = defaultdict(set)
        self._sources: defaultdict[int, set[KvmResampledLine]] = defaultdict(set)
        self._pins: dict[int, tuple[PinMessage, bool]] = {}
        self.ioapic = IoApic(self)

    def set_pin(self, pin: int, message: PinMessage, masked: bool, /) -> None:
        """Route a pin's irqfd and its acknowledgements."""
        with self._lock:
            self._pins[pin] = message, masked
            self._route(pin)
            if message.level and not masked:
                self._ask(pin)

    def _route(self, pin: int) -> None:
        message, masked = self._pins[pin]
        entries = {pin: _entry(pin, message) if message.level else None}
        for gsi in self._gsis[pin]:
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

    def resample(self, pin: int, /) -> None:
        """Ask a pin's resampled sources to look at their causes."""
        with self._lock:
            self._ask(pin)

    def _ask(self, pin: int) -> None:
        for source in self._sources[pin]:
            source.resampled.write()

    def line(self, pin: int) -> "SplitLine":
        """Return a new line of `pin`, which has none yet."""
        with ExitStack() as undo, self._lock:
            edges = IrqLine(self._vm, self._claim(pin, undo))
            undo.pop_all()
        return SplitLine(self.ioapic, pin, edges)

    def resampled_line(self, pin: int, undo: ExitStack) -> KvmResampledLine:
        """Return a new source of `pin`, which takes `undo` over; not with the lock held."""
        with self._lock:
            source = KvmResampledLine(self._vm, self._claim(pin, undo), undo, split=True)
            self._sources[pin].add(source)
        source.before_close(lambda source: self._forget(pin, source))
        return source

    def _forget(self, pin: int, source: KvmResampledLine) -> None:
        with self._lock:
            self._sources[pin].discard(source)

    def _claim(self, pin: int, undo: ExitStack) -> int:
        """Return a GSI with the route of `pin`; `undo` gives it back, which takes the lock."""
        gsi = self._routes.allocate()
        self._gsis[pin].add(gsi)
        undo.callback(self._release, pin, gsi)
        if pin in self._pins:
            self._route(pin)
        return gsi

    def _release(self, pin: int, gsi: int) -> None:
        with self._lock:
            self._gsis[pin].discard(gsi)
            self._routes.free(gsi)


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
