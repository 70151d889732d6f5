"""The PL061 against a model that knows lines one by one."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import Pl061, Pl061State, PlatformError, SavedStateError
from vm_device.testing import FakeInterrupt

DIR, IS, IBE, IEV, IE, RIS, MIS, IC, AFSEL = 0x400, 0x404, 0x408, 0x40C, 0x410, 0x414, 0x418, 0x41C, 0x420
ALL = 0x3FC  # GPIODATA with every line in the address


class Rig:
    """A device, its line, and what it drove."""

    def __init__(self):
        self.line, self.driven = FakeInterrupt(), []
        self.gpio = Pl061(self.line, on_output=lambda line, level: self.driven.append((line, level)))

    def read(self, offset):
        return self.gpio.read(offset, 4)

    def write(self, offset, value):
        self.gpio.write(offset, 4, value)


def test_identity():
    """What an AMBA driver looks for."""
    ids = [Rig().read(0xFE0 + 4 * i) for i in range(8)]
    assert ids == [0x61, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def test_the_address_is_a_mask():
    """Only lines that the address names are written or read."""
    rig = Rig()
    rig.write(DIR, 0xFF)
    rig.write(ALL, 0xF0)
    rig.write(0x3C << 2, 0x0F)
    assert rig.read(ALL) == 0xCC
    assert rig.read(0x0F << 2) == 0x0C
    assert rig.driven == [*((n, True) for n in range(4, 8)), (2, True), (3, True), (4, False), (5, False)]


def test_a_power_button():
    """As QEMU's virt machine has it: line 3, both edges, which gpio-keys asks for."""
    rig = Rig()
    rig.write(IBE, 8)
    rig.write(IE, 8)
    rig.gpio.set_input(3, True)
    assert (rig.line.level, rig.read(MIS), rig.read(ALL)) == (True, 8, 8)
    rig.write(IC, 8)
    assert not rig.line.level
    rig.gpio.set_input(3, True)
    assert not rig.line.level
    rig.gpio.set_input(3, False)
    assert rig.line.level
    with pytest.raises(PlatformError, match="line=0x8"):
        rig.gpio.set_input(8, True)


class Model:
    """Eight lines, each by itself."""

    def __init__(self):
        self.bits = {name: [False] * 8 for name in ("out", "in", "edge", DIR, IS, IBE, IEV, IE, AFSEL)}

    def seen(self, n):
        return self.bits["out" if self.bits[DIR][n] else "in"][n]

    def change(self, setter):
        before = [self.seen(n) for n in range(8)]
        setter()
        for n in range(8):
            now = self.seen(n)
            if now == before[n] or self.bits[IS][n]:
                continue
            if self.bits[IBE][n] or now == self.bits[IEV][n]:
                self.bits["edge"][n] = True

    def raw(self, n):
        return self.seen(n) == self.bits[IEV][n] if self.bits[IS][n] else self.bits["edge"][n]

    def put(self, name, value, mask=0xFF):
        for n in range(8):
            if mask >> n & 1:
                self.bits[name][n] = bool(value >> n & 1)


def number(bits):
    """Eight booleans as a byte."""
    return sum(bool(bit) << n for n, bit in enumerate(bits))


STORED = (DIR, IS, IBE, IEV, IE, AFSEL)
OPERATIONS = st.one_of(
    st.tuples(st.just("input"), st.integers(0, 7), st.booleans()),
    st.tuples(st.just("data"), st.integers(0, 255), st.integers(0, 255)),
    st.tuples(st.just("clear"), st.integers(0, 255), st.none()),
    st.tuples(st.just("store"), st.sampled_from(STORED), st.integers(0, 255)),
)


def apply(rig, model, kind, a, b):
    """Do the same to both."""
    if kind == "input":
        rig.gpio.set_input(a, b)
        model.change(lambda: model.bits["in"].__setitem__(a, b))
    elif kind == "data":
        rig.write(a << 2, b)
        model.change(lambda: model.put("out", b, a))
    elif kind == "clear":
        rig.write(IC, a)
        model.put("edge", 0, a)
    else:
        rig.write(a, b)
        model.change(lambda: model.put(a, b))


@given(st.lists(OPERATIONS, max_size=30))
def test_lines_and_interrupts_as_the_model_has_them(operations):
    """Values, raw and masked interrupts, the line; and what was saved goes on."""
    rig, model = Rig(), Model()
    for operation in operations:
        apply(rig, model, *operation)
        raw = number(map(model.raw, range(8)))
        assert rig.read(ALL) == number(map(model.seen, range(8)))
        assert (rig.read(RIS), rig.read(MIS)) == (raw, raw & number(model.bits[IE]))
        assert rig.line.level == bool(raw & number(model.bits[IE]))
        assert [rig.read(r) for r in STORED] == [number(model.bits[r]) for r in STORED]
        again, line = rig.gpio.state(), FakeInterrupt()
        rig.gpio = Pl061.from_state(again, line)
        assert rig.gpio.state() == again
        assert line.level == rig.line.level
        rig.line = line


@given(st.lists(st.tuples(st.integers(0, 0xFFF), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1))))
def test_total_under_garbage(writes):
    """Any access is answered within its width."""
    rig = Rig()
    for offset, size, value in writes:
        rig.gpio.write(offset, size, value)
        assert 0 <= rig.gpio.read(offset, size) < 1 << 8 * size
        assert Pl061.from_state(rig.gpio.state(), FakeInterrupt()).state() == rig.gpio.state()


def test_refusals_and_description():
    """Impossible states; the node."""
    for change in ({"version": 2}, {"edges": 256}, {"direction": -1}):
        with pytest.raises(SavedStateError, match=next(iter(change))):
            Pl061.from_state(attrs.evolve(Pl061State(), **change), FakeInterrupt())
    node = Pl061.describe()
    assert (node.hid, node.compatible[0]) == ("ARMH0061", "arm,pl061")
