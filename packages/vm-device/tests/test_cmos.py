"""The CMOS clock against datetime."""

import itertools
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vm_device import CmosRtc, PlatformError, SavedStateError
from vm_device.testing import FakeInterrupt

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2255, 12, 31), timezones=st.just(UTC))
MODES = st.sampled_from([0x00, 0x02, 0x04, 0x06])  # BCD/binary (4) and 12/24 hours (2)


def read(rtc, cell):
    """Read a cell as a driver does."""
    rtc.write(0, 1, cell)
    return rtc.read(1, 1)


def write(rtc, cell, value):
    """Write a cell."""
    rtc.write(0, 1, cell)
    rtc.write(1, 1, value)


def encode(value, mode):
    """A number as the mode wants it."""
    return value if mode & 4 else int(f"{value}", 16)


def cells_of(when, mode):
    """The cells of a date, computed from its text, not from the device's arithmetic."""
    hour = (
        encode(when.hour, mode)
        if mode & 2
        else encode(int(when.strftime("%I")), mode) | 0x80 * (when.hour >= 12)
    )
    year = f"{when.year:04}"
    return {
        0: encode(when.second, mode),
        2: encode(when.minute, mode),
        4: hour,
        6: encode(int(when.strftime("%w")) + 1, mode),
        7: encode(when.day, mode),
        8: encode(when.month, mode),
        9: encode(int(year[2:]), mode),
        0x32: encode(int(year[:2]), mode),
    }


def seconds(when):
    """Seconds since 1970."""
    return (when - EPOCH).total_seconds()


@given(TIMES, MODES)
@example(datetime(2000, 2, 29, 0, 30, tzinfo=UTC), 0x00)
@example(datetime(1999, 12, 31, 12, 0, tzinfo=UTC), 0x00)
def test_reading_the_clock(when, mode):
    """Every mode shows the injected time, with century and weekday."""
    rtc = CmosRtc(lambda: seconds(when))
    write(rtc, 0x0B, mode)
    assert {cell: read(rtc, cell) for cell in cells_of(when, mode)} == cells_of(when, mode)


@given(TIMES, TIMES, MODES, st.integers(0, 10**8))
def test_setting_the_clock(host, wanted, mode, later):
    """After SET, write, release, the guest's clock runs on from what it wrote."""
    now = [seconds(host)]
    rtc = CmosRtc(lambda: now[0])
    write(rtc, 0x0B, 0x80 | mode)
    for cell, value in cells_of(wanted, mode).items():
        write(rtc, cell, value)
    now[0] += 5
    assert read(rtc, 0) == cells_of(wanted, mode)[0], "the cells stand still while SET"
    write(rtc, 0x0B, mode)
    now[0] += later
    expected = cells_of(wanted.replace(microsecond=0) + timedelta(seconds=later), mode)
    shown = {cell: read(rtc, cell) for cell in expected}
    drift = {c: (shown[c], expected[c]) for c in expected if shown[c] != expected[c]}
    plus_one = cells_of(wanted.replace(microsecond=0) + timedelta(seconds=later + 1), mode)
    assert not drift or shown == plus_one, drift  # rounding of a fractional host clock may carry one second


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=40), st.floats(-1e18, 1e18))
def test_total_under_garbage(writes, clock):
    """No register write and no clock value breaks it; UIP is never seen; state survives."""
    rtc = CmosRtc(lambda: clock)
    for index, value in writes:
        write(rtc, index, value)
        assert 0 <= read(rtc, index) <= 0xFF
        assert read(rtc, 0x0A) & 0x80 == 0
        state = rtc.state()
        assert CmosRtc.from_state(state, lambda: clock).state() == state


def test_status_registers_and_ram():
    """A keeps its rate, C reads 0, D reports good power; the rest is RAM; index bit 7 masks NMI."""
    rtc = CmosRtc(lambda: 0)
    assert [read(rtc, cell) for cell in (0x0A, 0x0B, 0x0C, 0x0D)] == [0x26, 0x02, 0x00, 0x80]
    for cell in (0x0C, 0x0D):
        write(rtc, cell, 0x55)
    assert [read(rtc, cell) for cell in (0x0C, 0x0D)] == [0x00, 0x80]
    write(rtc, 0x80 | 0x40, 0xA5)
    assert rtc.nmi_masked
    assert read(rtc, 0x40) == 0xA5
    assert not rtc.nmi_masked
    assert rtc.read(0, 1) == 0xFF
    rtc.write(0, 2, 0x7741)
    assert read(rtc, 0x41) == 0x77
    assert rtc.read(0, 2) == 0x77FF


def test_setting_single_cells_while_running():
    """Without SET each cell takes effect at once; a date that does not exist moves nothing."""
    rtc = CmosRtc(lambda: seconds(datetime(2024, 1, 31, 10, 20, 30, tzinfo=UTC)))
    write(rtc, 0x04, 0x23)
    assert (read(rtc, 0x04), read(rtc, 0x02)) == (0x23, 0x20)
    write(rtc, 0x08, 0x02)
    assert read(rtc, 0x08) == 0x01
    write(rtc, 0x00, 0xFF)
    assert read(rtc, 0x00) == 0x30


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        (0, 0, {0x15: 0, 0x17: 0, 0x34: 0, 0x5B: 0}),
        (512 << 20, 0, {0x15: 640, 0x17: 0xFFFF, 0x30: 0xFFFF, 0x34: (496 << 20) >> 16, 0x5B: 0}),
        (8 << 20, 0, {0x15: 640, 0x17: 7168, 0x30: 7168, 0x34: 0, 0x5B: 0}),
        (
            3 << 30,
            5 << 30,
            {0x15: 640, 0x17: 0xFFFF, 0x34: ((3 << 30) - (16 << 20)) >> 16, 0x5B: (5 << 30) >> 16 & 0xFFFF},
        ),
    ],
)
def test_memory_sizes(below, above, expected):
    """The cells firmware leaves behind, little-endian pairs."""
    rtc = CmosRtc(lambda: 0, memory_below_4g=below, memory_above_4g=above)
    assert {cell: read(rtc, cell) | read(rtc, cell + 1) << 8 for cell in expected} == expected
    assert read(rtc, 0x5D) == above >> 32


def test_refusals():
    """Negative sizes and impossible states."""
    with pytest.raises(PlatformError, match="memory_above_4g=-0x1"):
        CmosRtc(memory_above_4g=-1)
    state = CmosRtc().state()
    for field, value in (("version", 3), ("index", 256), ("cells", b"")):
        with pytest.raises(SavedStateError, match=f"{field}="):
            CmosRtc.from_state(attrs.evolve(state, **{field: value}))


def test_description():
    """Two ports, no interrupt: Linux then polls."""
    node = CmosRtc.describe()
    assert (node.hid, node.ranges[0].base, node.ranges[0].size, node.interrupts) == ("PNP0B00", 0x70, 2, ())


def test_set_freezes_the_present_time():
    """Entering SET keeps the time of that moment readable; releasing it untouched goes on from there."""
    now = [seconds(datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))]
    rtc = CmosRtc(lambda: now[0])
    write(rtc, 0x0B, 0x82)
    now[0] += 100
    assert [read(rtc, cell) for cell in (4, 2, 0)] == [0x05, 0x06, 0x07]
    write(rtc, 0x0B, 0x02)
    now[0] += 3
    assert [read(rtc, cell) for cell in (4, 2, 0)] == [0x05, 0x06, 0x10]


class Loop:
    """A clock and the timers that go with it."""

    def __init__(self, when):
        self.now, self.timers, self.most = seconds(when), [], 0

    def call_later(self, delay, callback):
        """As EventManager.call_later."""
        assert delay >= 0
        self.timers.append((self.now + delay, callback))
        self.most = max(self.most, len(self.timers))

    def advance(self, to):
        """Let time pass, timer by timer."""
        while due := min(
            (timer for timer in self.timers if timer[0] <= to), key=lambda t: t[0], default=None
        ):
            self.timers.remove(due)
            self.now = max(self.now, due[0])
            due[1]()
        self.now = to


CELLS = st.one_of(st.integers(0, 59), st.integers(0xC0, 0xFF))


def moments(cells):
    """The seconds of a day at which an alarm comes, by counting."""
    limits = zip(cells, (24, 60, 60), strict=True)
    values = [range(limit) if cell >= 0xC0 else [cell] for cell, limit in limits]
    return [hour * 3600 + minute * 60 + second for hour, minute, second in itertools.product(*values)]


@given(TIMES, CELLS.filter(lambda c: not 24 <= c < 0xC0), CELLS, CELLS)
@example(datetime(2024, 1, 1, 23, 59, 59, 500_000, tzinfo=UTC), 0, 0, 0)
@example(datetime(2024, 1, 1, tzinfo=UTC), 0, 0, 0)
def test_the_alarm_comes_at_its_moment(when, hour, minute, second):
    """As a search second by second finds it; by timers alone, and once."""
    loop, line = Loop(when), FakeInterrupt()
    rtc = CmosRtc(lambda: loop.now, interrupt=line, call_later=loop.call_later)
    write(rtc, 0x0B, 0x06)
    for cell, value in ((5, hour), (3, minute), (1, second)):
        write(rtc, cell, value)
    write(rtc, 0x0B, 0x26)
    start = when.replace(microsecond=0)
    today = start.hour * 3600 + start.minute * 60 + start.second
    step = min((moment - today - 1) % 86_400 + 1 for moment in moments((hour, minute, second)))
    loop.advance(seconds(start) + step - 0.01)
    assert line.edges == 0
    loop.advance(seconds(start) + step)
    assert line.edges == 1
    assert read(rtc, 0x0C) == 0xB0
    assert loop.most <= 62


def test_update_ended_interrupts_each_second():
    """One edge a second as long as each is acknowledged; SET ends it."""
    loop, line = Loop(datetime(2024, 1, 1, tzinfo=UTC)), FakeInterrupt()
    rtc = CmosRtc(lambda: loop.now, interrupt=line, call_later=loop.call_later)
    write(rtc, 0x0B, 0x12)
    for n in range(1, 4):
        loop.advance(loop.now + 1)
        assert line.edges == n
        assert read(rtc, 0x0C) == 0x90
    loop.advance(loop.now + 5)
    assert line.edges == 4
    write(rtc, 0x0B, 0x82)
    assert read(rtc, 0x0B) == 0x82
    read(rtc, 0x0C)
    loop.advance(loop.now + 5)
    assert line.edges == 4


def test_flags_are_there_without_a_loop():
    """Polling status C sees them; enabling one that is set interrupts at once; state keeps them."""
    now, line = [0.0], FakeInterrupt()
    rtc = CmosRtc(lambda: now[0], interrupt=line)
    for cell, value in ((1, 0x05), (3, 0xFF), (5, 0xFF)):
        write(rtc, cell, value)
    assert read(rtc, 0x0C) == 0
    now[0] = 6.0
    assert rtc.state().flags == 0x30
    again = CmosRtc.from_state(rtc.state(), lambda: now[0], interrupt=line)
    write(again, 0x0B, 0x22)
    assert line.edges == 1
    assert read(again, 0x0C) == 0xB0
    assert read(again, 0x0C) == 0
    with pytest.raises(SavedStateError, match="flags"):
        CmosRtc.from_state(attrs.evolve(rtc.state(), flags=1), lambda: 0)


def test_an_alarm_that_is_no_time_never_comes():
    """25 o'clock, in binary; 0x7A seconds, in BCD."""
    for mode, cell, value in ((0x26, 5, 25), (0x22, 1, 0x7A)):
        loop, line = Loop(datetime(2024, 1, 1, tzinfo=UTC)), FakeInterrupt()
        rtc = CmosRtc(lambda loop=loop: loop.now, interrupt=line, call_later=loop.call_later)
        for other in (1, 3, 5):
            write(rtc, other, value if other == cell else 0xFF)
        write(rtc, 0x0B, mode)
        loop.advance(loop.now + 3 * 86_400)
        assert (line.edges, read(rtc, 0x0C)) == (0, 0x10)
