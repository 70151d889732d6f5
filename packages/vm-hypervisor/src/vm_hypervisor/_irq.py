"""Interrupt lines and messages over KVM's irqfds, and the one table of GSI routes behind them."""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

import kvm_ioctls as kvm
from vm_device import EventFd, IdAllocator, Interrupt, ResampledInterrupt

from vm_hypervisor._errors import RouteError
from vm_hypervisor.arch.x86_64 import IO_APIC_PINS

_LAST_GSI = 4095  # KVM_MAX_IRQ_ROUTES - 1
_PIC_PINS = 8
_PIC_MASTER, _PIC_SLAVE, _IO_APIC = 0, 1, 2


def legacy_routes() -> "tuple[kvm.IrqchipRoute, ...]":
    """Return KVM's own default: every GSI to its I/O APIC pin, the first 16 to the PICs as well."""
    pics = (
        kvm.IrqchipRoute(gsi, _PIC_MASTER if gsi < _PIC_PINS else _PIC_SLAVE, gsi % _PIC_PINS)
        for gsi in range(2 * _PIC_PINS)
    )
    return (*pics, *(kvm.IrqchipRoute(pin, _IO_APIC, pin) for pin in range(IO_APIC_PINS)))


class IrqLine:
    """One GSI as a device sees it: an irqfd for edges, the line's level for the rest."""

    def __init__(self, vm: kvm.VmFd, gsi: int, line: int | None = None) -> None:
        """Register an eventfd of its own for `gsi`, which KVM_IRQ_LINE knows as `line`."""
        self._vm, self.gsi = vm, gsi
        self._line = gsi if line is None else line
        self._event = EventFd()
        try:
            vm.register_irqfd(self._event.fd, gsi)
        except BaseException:
            self._event.close()
            raise

    def trigger(self) -> None:
        """Send one edge."""
        self._event.write()

    def set_level(self, level: bool) -> None:
        """Hold the line up or down."""
        self._vm.set_irq_line(self._line, level)

    @property
    def eventfd(self) -> int | None:
        """The descriptor whose write is one edge."""
        return self._event.fd

    def close(self) -> None:
        """Take the irqfd away."""
        self._vm.unregister_irqfd(self._event.fd, self.gsi)
        self._event.close()


class KvmResampledLine:
    """One source of a level line: an irqfd that raises it, an eventfd that tells of ends of interrupts."""

    def __init__(self, vm: kvm.VmFd, gsi: int, undo: ExitStack, *, split: bool = False) -> None:
        """Register an irqfd for `gsi`; unless the irqchip is `split`, KVM tells of ends itself.

        What is in `undo` already becomes the end of what `close` does.
        """
        event, self.resampled = undo.enter_context(EventFd()), undo.enter_context(EventFd())
        if split:
            vm.register_irqfd(event.fd, gsi)
        else:
            vm.register_irqfd_with_resample(event.fd, self.resampled.fd, gsi)
        undo.callback(vm.unregister_irqfd, event.fd, gsi)
        self._interrupt = ResampledInterrupt(event, self.resampled)
        self._undo = undo.pop_all()

    @property
    def interrupt(self) -> ResampledInterrupt:
        """What a device holds."""
        return self._interrupt

    def before_close(self, call: "Callable[[KvmResampledLine], object]") -> None:
        """Have `call` done with this line before anything of it is closed."""
        self._undo.callback(call, self)

    def close(self) -> None:
        """Take the irqfd away and close both eventfds."""
        self._undo.close()


class GsiRoutes:
    """The routing table: KVM replaces it whole, so one owner keeps every entry."""

    def __init__(
        self, vm: kvm.VmFd, fixed: "Iterable[kvm.IrqchipRoute] | None" = None, *, pins: int = IO_APIC_PINS
    ) -> None:
        """Start from the routes that `vm` has already: the `fixed` ones, by default the legacy routes.

        GSIs below `pins` are the chip's.
        """
        self._vm = vm
        self._lock = threading.Lock()
        self._fixed = None if fixed is None else tuple(fixed)
        self._messages: dict[int, kvm.MsiRoute] = {}
        self._pins = pins
        self._gsis = IdAllocator(pins, _LAST_GSI)

    def allocate(self) -> int:
        """Return a free GSI for messages.

        Raises:
            RouteError: none is free.
        """
        if not self._gsis.free_count:
            raise RouteError(
                f"all {_LAST_GSI + 1 - self._pins} GSIs for messages are in use; close some routes"
            )
        return self._gsis.allocate()

    def set_message(self, gsi: int, address: int, data: int, devid: int | None = None) -> None:
        """Point `gsi` at a message (64-bit address, 32-bit data) of a device that has an id, or has none.

        Raises:
            RouteError: address or data does not fit; the table is as before.
        """
        for name, value, bits in (
            ("address", address, 64),
            ("data", data, 32),
            ("device id", devid or 0, 32),
        ):
            if not 0 <= value < 1 << bits:
                raise RouteError(f"message {name} {value:#x} of GSI {gsi} does not fit {bits} bits")
        self.change({gsi: kvm.MsiRoute(gsi, address, data, devid)})

    def change(self, entries: "Mapping[int, kvm.MsiRoute | None]") -> None:
        """Replace the entries of some GSIs, None for no message, all of them at once."""
        with self._lock:
            merged = {**self._messages, **entries}
            self._replace({gsi: entry for gsi, entry in merged.items() if entry is not None})

    def free(self, gsi: int) -> None:
        """Take `gsi` out of the table and give it back."""
        self.change({gsi: None})
        self._gsis.free(gsi)

    def _replace(self, messages: "dict[int, kvm.MsiRoute]") -> None:
        if messages != self._messages:
            fixed = legacy_routes() if self._fixed is None else self._fixed
            self._vm.set_gsi_routing((*fixed, *messages.values()))
            self._messages = messages


class KvmMsiRoute:
    """One message-signalled interrupt behind an irqfd."""

    def __init__(self, vm: kvm.VmFd, routes: GsiRoutes, devid: int | None = None) -> None:
        """Take a GSI; nothing is delivered before `set_message`."""
        self._routes, self._devid = routes, devid
        self._gsi = routes.allocate()
        try:
            self._line = IrqLine(vm, self._gsi)
        except BaseException:
            routes.free(self._gsi)
            raise

    @property
    def interrupt(self) -> Interrupt:
        """What a device holds."""
        return self._line

    def set_message(self, address: int, data: int) -> None:
        """Point the route at a message."""
        self._routes.set_message(self._gsi, address, data, self._devid)

    def close(self) -> None:
        """Free the irqfd, the route and the GSI."""
        self._line.close()
        self._routes.free(self._gsi)
