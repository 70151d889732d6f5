"""The routes of a split irqchip against what each pin is programmed to, without a KVM."""

import errno
import os
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kvm_ioctls import KvmOSError
from vm_device import PinMessage
from vm_hypervisor._irq import GsiRoutes
from vm_hypervisor._split import SplitLines

PINS = st.integers(0, 23)
LEVEL = 0xC000


class FakeVm:
    """The calls of `kvm_ioctls.VmFd` that lines need; a message goes where `processors` are."""

    def __init__(self):
        self.table, self.irqfds, self.writes = (), {}, 0

    def set_gsi_routing(self, routes):
        self.table, self.writes = tuple(routes), self.writes + 1

    def register_irqfd(self, fd, gsi):
        os.fstat(fd)
        self.irqfds[gsi] = fd

    register_irqfd_with_resample = None  # a split irqchip has none

    def unregister_irqfd(self, fd, gsi):
        assert self.irqfds.pop(gsi) == fd

    def signal_msi(self, address, data):
        if address >> 12 & 0xFF:
            raise KvmOSError(errno.EPERM, "KVM_SIGNAL_MSI", "a fake VM")
        if data == 0xBAD:
            raise KvmOSError(errno.ENOMEM, "KVM_SIGNAL_MSI", "a fake VM")
        return data != 0


class SplitMachine(RuleBasedStateMachine):
    """Pins are programmed and lines made in any order, some message routes beside them."""

    @initialize()
    def start(self):
        self.vm = FakeVm()
        self.routes = GsiRoutes(self.vm, ())
        self.lines = SplitLines(self.vm, self.routes)
        self.made, self.programmed, self.messages, self.sources = {}, {}, {}, []

    @rule(
        pin=PINS,
        destination=st.integers(0, 255),
        data=st.integers(0, 255),
        level=st.booleans(),
        masked=st.booleans(),
    )
    def program(self, pin, destination, data, level, masked):
        message = PinMessage(0xFEE0_0000 | destination << 12, data | (LEVEL if level else 0))
        self.programmed[pin] = message, masked
        before = self.vm.writes
        self.lines.set_pin(pin, message, masked)
        assert self.vm.writes <= before + 1
        assert self.asked() == (self.of(pin) if level and not masked else [])

    def of(self, pin):
        """The sources of a pin."""
        return [source for its, source in self.sources if its == pin]

    def asked(self):
        """The sources that have been asked to look at their causes; they are not asked any more."""
        return [source for _, source in self.sources if source.resampled.read() is not None]

    @rule(pin=PINS)
    def add_source(self, pin):
        self.sources.append((pin, self.lines.resampled_line(pin, ExitStack())))
        assert self.asked() == []

    @precondition(lambda self: self.sources)
    @rule(data=st.data())
    def remove_source(self, data):
        index = data.draw(st.integers(0, len(self.sources) - 1))
        self.sources.pop(index)[1].close()

    @rule(pin=PINS)
    def end(self, pin):
        self.lines.resample(pin)
        assert self.asked() == self.of(pin)

    @rule(pin=PINS)
    def use(self, pin):
        if pin not in self.made:
            self.made[pin] = self.lines.line(pin)

    @rule(data=st.integers(0, 255))
    def message_route(self, data):
        gsi = self.routes.allocate()
        self.routes.set_message(gsi, 0xFEE0_0000, data)
        self.messages[gsi] = (0xFEE0_0000, data)

    @invariant()
    def acknowledgements_of_level_pins_are_reported(self):
        """The first 24 routes are the level pins, masked or not, and nothing else."""
        low = {route.gsi: (route.address, route.data) for route in self.vm.table if route.gsi < 24}
        wanted = {pin: message for pin, (message, _) in self.programmed.items() if message.data & LEVEL}
        assert low == {pin: (message.address, message.data) for pin, message in wanted.items()}

    @invariant()
    def eventfds_deliver_what_is_not_masked(self):
        """Each line's irqfd has its pin's message as route, or none; other routes are not disturbed."""
        by_fd = {fd: gsi for gsi, fd in self.vm.irqfds.items()}
        live = {pin: message for pin, (message, masked) in self.programmed.items() if not masked}
        wanted = {
            by_fd[line.eventfd]: (live[pin].address, live[pin].data)
            for pin, line in (*self.made.items(), *((pin, s.interrupt) for pin, s in self.sources))
            if pin in live
        }
        high = {route.gsi: (route.address, route.data) for route in self.vm.table if route.gsi >= 24}
        assert high == {**wanted, **self.messages}

    def teardown(self):
        for line in (*getattr(self, "made", {}).values(), *(s for _, s in getattr(self, "sources", ()))):
            line.close()


TestSplitLines = SplitMachine.TestCase


def test_messages_that_nobody_takes():
    """A destination without a processor is the guest's affair, whatever else KVM refuses is ours."""
    lines = SplitLines(vm := FakeVm(), GsiRoutes(vm, ()))
    assert lines.send(PinMessage(0xFEE0_0000, 0x31)) is True
    assert lines.send(PinMessage(0xFEE0_0000, 0)) is False
    assert lines.send(PinMessage(0xFEE0_5000, 0x31)) is False
    with pytest.raises(KvmOSError, match="KVM_SIGNAL_MSI"):
        lines.send(PinMessage(0xFEE0_0000, 0xBAD))


def test_a_refused_irqfd_gives_the_gsi_back():
    """A line that cannot be made leaves no GSI taken and no descriptor open."""
    vm = FakeVm()
    lines = SplitLines(vm, GsiRoutes(vm, ()))

    def refuse(_fd, _gsi):
        raise OSError("refused, as the test asked")

    vm.register_irqfd = refuse
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5000):  # more than there are GSIs
        with pytest.raises(OSError, match="refused"):
            lines.line(3)
        with pytest.raises(OSError, match="refused"), ExitStack() as undo:
            lines.resampled_line(3, undo)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_refused_route_leaves_no_line():
    """A pin that is programmed but cannot be routed has no line, and later one as if nothing had been."""
    vm = FakeVm()
    lines = SplitLines(vm, routes := GsiRoutes(vm, ()))
    lines.set_pin(3, PinMessage(0xFEE0_0000, 0x31), False)
    before = sorted(os.listdir("/proc/self/fd"))
    works = vm.set_gsi_routing

    def refuse(_routes):
        raise KvmOSError(errno.ENOMEM, "KVM_SET_GSI_ROUTING", "a fake VM")

    vm.set_gsi_routing = refuse
    with pytest.raises(KvmOSError, match="KVM_SET_GSI_ROUTING"):
        lines.line(3)
    assert (vm.irqfds, sorted(os.listdir("/proc/self/fd"))) == ({}, before)
    vm.set_gsi_routing = works
    lines.set_pin(3, PinMessage(0xFEE0_0000, 0x32), False)
    assert vm.table == ()
    assert routes.allocate() == 24
