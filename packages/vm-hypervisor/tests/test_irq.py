"""The routing table: KVM's default for pins, messages beside them, all or nothing."""

import os

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from kvm_ioctls import IrqchipRoute, MsiRoute
from vm_hypervisor import RouteError
from vm_hypervisor._irq import GsiRoutes, KvmMsiRoute, legacy_routes
from vm_hypervisor.arch.x86_64 import IO_APIC_PINS


class FakeVm:
    """The three calls of `kvm_ioctls.VmFd` that routing needs; refuses when told."""

    def __init__(self):
        self.table, self.irqfds, self.refuse = legacy_routes(), {}, False

    def _check(self):
        if self.refuse:
            raise OSError("refused, as the test asked")

    def set_gsi_routing(self, routes):
        self._check()
        self.table = tuple(routes)

    def register_irqfd(self, fd, gsi):
        self._check()
        os.fstat(fd)
        self.irqfds[gsi] = fd

    def unregister_irqfd(self, fd, gsi):
        assert self.irqfds.pop(gsi) == fd


def test_legacy_routes_are_kvms_default():
    """GSI n is pin n of the I/O APIC, and of the PIC pair below 16 (kvm/irq_comm: default_routing)."""
    routes = legacy_routes()
    assert len(routes) == len(set(map(attrs.astuple, routes))) == 16 + IO_APIC_PINS
    by_chip = {(route.irqchip, route.pin): route.gsi for route in routes}
    assert by_chip == (
        {(0, n): n for n in range(8)} | {(1, n): 8 + n for n in range(8)} | {(2, n): n for n in range(24)}
    )


class RoutesMachine(RuleBasedStateMachine):
    """Allocate, point and close message routes while KVM sometimes refuses, against a dict."""

    routes = Bundle("routes")

    def __init__(self):
        super().__init__()
        self.vm = FakeVm()
        self.table = GsiRoutes(self.vm)
        self.model = {}

    @rule(target=routes)
    def allocate(self):
        gsi = self.table.allocate()
        assert gsi >= IO_APIC_PINS
        assert gsi not in self.model
        self.model[gsi] = None
        return gsi

    @rule(
        gsi=routes,
        address=st.integers(0, (1 << 64) - 1),
        data=st.integers(0, (1 << 32) - 1),
        refuse=st.booleans(),
    )
    def set_message(self, gsi, address, data, refuse):
        self.vm.refuse = refuse
        try:
            self.table.set_message(gsi, address, data)
        except OSError:
            assert refuse
        else:
            self.model[gsi] = (address, data)
        self.vm.refuse = False

    @rule(gsi=consumes(routes))
    def free(self, gsi):
        self.table.free(gsi)
        del self.model[gsi]

    @invariant()
    def table_is_the_model(self):
        pins = [route for route in self.vm.table if isinstance(route, IrqchipRoute)]
        assert pins == list(legacy_routes())
        messages = {r.gsi: (r.address, r.data) for r in self.vm.table if isinstance(r, MsiRoute)}
        assert messages == {gsi: message for gsi, message in self.model.items() if message}


TestRoutes = RoutesMachine.TestCase


def test_gsis_run_out_with_a_cure():
    """All 4072 message GSIs can be had, the next one is an error that says what to do."""
    table = GsiRoutes(FakeVm())
    gsis = [table.allocate() for _ in range(4096 - IO_APIC_PINS)]
    assert len(set(gsis)) == len(gsis)
    with pytest.raises(RouteError, match=r"^all 4072 GSIs for messages are in use; close some routes$"):
        table.allocate()
    table.free(gsis[7])
    assert table.allocate() == gsis[7]


def test_a_refused_irqfd_gives_the_gsi_back():
    """A message route that KVM refuses leaves no GSI and no descriptor behind."""
    vm = FakeVm()
    table = GsiRoutes(vm)
    vm.refuse = True
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5000):  # more than there are GSIs
        with pytest.raises(OSError, match="refused"):
            KvmMsiRoute(vm, table)
    assert len(os.listdir("/proc/self/fd")) == before
    vm.refuse = False
    route = KvmMsiRoute(vm, table)
    assert vm.irqfds == {IO_APIC_PINS: route.interrupt.eventfd}
    route.close()
    assert vm.irqfds == {}


@pytest.mark.parametrize(
    ("address", "data", "name"),
    [(-1, 0, "address"), (1 << 64, 0, "address"), (0, -1, "data"), (0, 1 << 32, "data")],
)
def test_messages_out_of_range(address, data, name):
    """A message that does not fit its registers is refused by name and value, and the table stays."""
    vm = FakeVm()
    table = GsiRoutes(vm)
    value = address if name == "address" else data
    with pytest.raises(RouteError, match=rf"^message {name} {value:#x} "):
        table.set_message(table.allocate(), address, data)
    assert vm.table == legacy_routes()
