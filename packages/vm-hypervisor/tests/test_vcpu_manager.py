"""Threads of vCPUs: start, pause, resume, stop, and everything that can happen in between."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from vm_hypervisor import (
    DebugStop,
    Failure,
    Halt,
    MmioRead,
    Shutdown,
    SystemEvent,
    SystemEventKind,
    VcpuManager,
    VcpuStateError,
)
from vm_hypervisor.testing import RecordingOps, SoftVcpu

MAILBOX = 0xD000_0000
CARRY_ON, SHUT_DOWN, FAIL, RESET, RAISE, DEBUG = range(6)
LEAVES = {
    SHUT_DOWN: Shutdown(),
    FAIL: Failure("out of fuel"),
    RESET: SystemEvent(SystemEventKind.RESET, 2),
    DEBUG: DebugStop(0x1000),
}


class DeviceError(Exception):
    """A device of the test gave up."""


class Mailbox:
    """Where a guest reads what to do next; one order sends the device itself down."""

    def __init__(self):
        self.orders = []

    def mmio_read(self, address, size):
        assert (address, size) == (MAILBOX, 4)
        order = self.orders.pop(0) if self.orders else CARRY_ON
        if order == RAISE:
            raise DeviceError("broken on purpose")
        return order


def obedient():
    """Spin, and do what the mailbox says."""
    while True:
        yield None
        order = int.from_bytes((yield MmioRead(MAILBOX, 4)), "little")
        if order != CARRY_ON:
            yield LEAVES[order]


class House:
    """A manager, its vCPUs, their mailboxes, and what was reported to have stopped."""

    def __init__(self, count=1, **options):
        self.vcpus = [SoftVcpu(index, obedient) for index in range(count)]
        self.boxes = [Mailbox() for _ in self.vcpus]
        self.stops = []
        self.manager = VcpuManager(self.vcpus, lambda v: self.boxes[v.index], self.stops.append, **options)

    def retired(self):
        return [vcpu.retired for vcpu in self.vcpus]

    def wait(self, condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing happened"
            time.sleep(0.001)

    def wait_for_progress(self, indices):
        before = self.retired()
        self.wait(lambda: all(self.vcpus[i].retired > before[i] for i in indices))


@pytest.fixture
def house():
    """One machine of two vCPUs, ended whatever a test does."""
    house = House(2)
    yield house
    house.manager.stop()


class ManagerMachine(RuleBasedStateMachine):
    """Orders from outside and ends from inside, in any sequence, against a model of four words."""

    def __init__(self):
        super().__init__()
        self.house = None

    @initialize(count=st.integers(1, 3))
    def build(self, count):
        self.house, self.state = House(count), "new"
        self.alive, self.expected = set(range(count)), []

    @rule()
    def start(self):
        if self.state == "new":
            self.house.manager.start()
            self.state = "running"
        else:
            with pytest.raises(VcpuStateError, match=r"^start: "):
                self.house.manager.start()

    @rule(timeout=st.sampled_from([None, 60.0]))
    def pause(self, timeout):
        if self.state == "running":
            self.house.manager.pause(timeout)
            self.state = "paused"
        else:
            with pytest.raises(VcpuStateError, match=r"^pause: "):
                self.house.manager.pause(timeout)

    @rule()
    def resume(self):
        if self.state == "paused":
            self.house.manager.resume()
            self.state = "running"
        else:
            with pytest.raises(VcpuStateError, match=r"^resume: "):
                self.house.manager.resume()

    @rule(which=st.integers(0, 2))
    def kick(self, which):
        self.house.vcpus[which % len(self.house.vcpus)].kick()

    @precondition(lambda self: self.house and self.state == "running" and self.alive)
    @rule(which=st.integers(0, 2), order=st.sampled_from([SHUT_DOWN, FAIL, RESET, RAISE]))
    def end_from_inside(self, which, order):
        index = sorted(self.alive)[which % len(self.alive)]
        self.house.boxes[index].orders.append(order)
        self.expected.append((index, LEAVES.get(order), order == RAISE))
        self.house.wait(lambda: len(self.house.stops) == len(self.expected))
        self.alive.remove(index)

    @precondition(lambda self: self.house and self.state == "running" and self.alive)
    @rule(which=st.integers(0, 2))
    def stop_at_a_breakpoint(self, which):
        index = sorted(self.alive)[which % len(self.alive)]
        self.house.boxes[index].orders.append(DEBUG)
        self.house.wait(lambda: not self.house.boxes[index].orders)

    @rule()
    def request_stop(self):
        self.house.manager.request_stop()
        self.state = "new" if self.state == "new" else "ended"

    @invariant()
    def paused_means_standing_still(self):
        if self.house and self.state in ("paused", "new"):
            before = self.house.retired()
            time.sleep(0.002)
            assert self.house.retired() == before

    @invariant()
    def running_means_getting_on(self):
        if self.house and self.state == "running":
            self.house.wait_for_progress(self.alive)

    def teardown(self):
        if self.house is None:
            return
        self.house.manager.stop()
        got = [(stop.index, stop.exit, isinstance(stop.error, DeviceError)) for stop in self.house.stops]
        assert got == self.expected
        for vcpu in self.house.vcpus:
            vcpu.close()  # refuses while any thread is inside


TestManager = ManagerMachine.TestCase
TestManager.settings = settings(stateful_step_count=12, deadline=None)


def test_signals_are_for_other_threads():
    """A vCPU's thread never takes one, whatever the backend does; the starter's mask stays."""
    seen, looked = [], threading.Event()

    def look():
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        looked.set()
        yield Shutdown()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    manager = VcpuManager([SoftVcpu(0, look)], lambda _: RecordingOps(), lambda _: None)
    manager.start()
    assert looked.wait(30)
    manager.stop()
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD} <= seen[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_needs_a_vcpu():
    """A machine without a processor is refused, with the cure."""
    with pytest.raises(ValueError, match=r"^vcpus: empty; a machine needs at least one vCPU$"):
        VcpuManager([], lambda _: RecordingOps(), lambda _: None)


def test_pauses_many_times_without_losing_one(house):
    """Every pause is a standstill and every resume a start, a hundred times."""
    house.manager.start()
    for _ in range(100):
        house.manager.pause(20)
        before = house.retired()
        time.sleep(0.0005)
        assert house.retired() == before
        house.manager.resume()
    house.wait_for_progress(range(2))


def test_kick_storm_loses_nothing(house):
    """Stray kicks from four threads neither end a vCPU nor keep a pause from coming true."""
    house.manager.start()
    done = threading.Event()

    def storm():
        while not done.is_set():
            for vcpu in house.vcpus:
                vcpu.kick()

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            house.manager.pause(20)
            house.manager.resume()
        house.wait_for_progress(range(2))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not house.stops


class Stuck:
    """A device whose register hangs until the test lets go."""

    def __init__(self):
        self.entered, self.release = threading.Event(), threading.Event()

    def mmio_read(self, address, size):
        self.entered.set()
        assert self.release.wait(60)
        return CARRY_ON


@pytest.fixture
def stuck():
    """A manager whose one vCPU hangs in a device, and the device."""
    device = Stuck()
    manager = VcpuManager([SoftVcpu(0, obedient)], lambda _: device, lambda _: None)
    manager.start()
    assert device.entered.wait(60)
    yield manager, device
    device.release.set()
    manager.stop()


def test_pause_gives_up_and_lets_all_run_on(stuck):
    """A vCPU stuck in a device makes pause time out, after which the machine is running again."""
    manager, device = stuck
    with pytest.raises(TimeoutError, match=r"^pause: 1 of 1 vCPUs did not park within 0\.01 s$"):
        manager.pause(0.01)
    device.release.set()
    manager.pause(20)  # running, so it may be paused


@pytest.mark.parametrize(("order", "now"), [("request_stop", "stopped"), ("resume", "running")])
def test_an_overtaken_pause_says_so(stuck, order, now):
    """A stop or resume that arrives while pause waits wins, and pause neither hangs nor undoes it."""
    manager, _ = stuck
    errors = []

    def pause():
        try:
            manager.pause(20)
        except VcpuStateError as error:
            errors.append(str(error))

    thread = threading.Thread(target=pause)
    thread.start()
    while True:
        try:
            manager.resume() if order == "resume" else time.sleep(0.05)
            break
        except VcpuStateError:  # the other thread has not begun to pause
            time.sleep(0.001)
    if order == "request_stop":
        manager.request_stop()
    thread.join(60)
    assert not thread.is_alive()
    assert errors == [f"pause: the vCPUs are {now}, not paused"]


@pytest.mark.parametrize("call", ["pause", "stop"])
def test_a_vcpu_cannot_wait_for_itself(call):
    """A device that pauses or stops its own machine gets an error instead of a deadlock."""

    class Suicidal:
        def mmio_read(self, address, size):
            getattr(manager, call)()

    stops = []
    manager = VcpuManager([SoftVcpu(0, obedient)], lambda _: Suicidal(), stops.append)
    manager.start()
    while not stops:
        time.sleep(0.001)
    manager.stop()
    assert str(stops[0].error) == f"{call}: called on a vCPU's own thread; use request_stop() there"


def test_stop_from_a_device(house):
    """request_stop works on a vCPU's thread, and a stop that was asked for is not reported."""
    house.boxes[0].mmio_read = lambda *_: house.manager.request_stop() or 0
    house.manager.start()
    house.wait(lambda: house.manager._alive == 0)
    assert house.stops == []


def test_stop_before_start_is_harmless():
    """A manager that never ran can be stopped, twice."""
    house = House()
    house.manager.stop()
    house.manager.stop()
    assert house.manager.first_run_ns is None


def test_halt_of_a_finished_guest_is_reported():
    """A guest that ends is a Halt, told once with its index."""

    def short():
        yield None

    stops = []
    manager = VcpuManager([SoftVcpu(7, short)], lambda _: RecordingOps(), stops.append)
    manager.start()
    while not stops:
        time.sleep(0.001)
    manager.stop()
    assert [(stop.index, stop.exit, stop.error) for stop in stops] == [(7, Halt(), None)]


def test_failures_before_the_guest_are_reported():
    """An exception in the thread's preparation ends the vCPU with a report, not in silence."""

    def refuse():
        raise DeviceError("no thread for you")

    house = House(on_thread_start=refuse)
    house.manager.start()
    house.wait(lambda: house.stops)
    house.manager.stop()
    assert isinstance(house.stops[0].error, DeviceError)


def test_host_out_of_threads(monkeypatch):
    """When the second thread cannot start, the first is ended and the error is the host's."""
    house = House(2)
    start = threading.Thread.start

    def scarce(thread):
        if thread.name == "vcpu1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        house.manager.start()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vcpu")]
    house.manager.stop()


def test_affinity_and_names(house):
    """A vCPU's thread is named after it and runs where it was pinned."""
    cpu = min(os.sched_getaffinity(0))
    seen = {}

    def note(vcpu):
        name = Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().strip()
        assert name == threading.current_thread().name
        seen[name] = os.sched_getaffinity(0)
        return house.boxes[vcpu.index]

    manager = VcpuManager(house.vcpus, note, house.stops.append, affinity={1: frozenset({cpu})})
    manager.start()
    house.wait(lambda: len(seen) == 2)
    manager.stop()
    assert seen == {"vcpu0": os.sched_getaffinity(0), "vcpu1": {cpu}}


def test_first_run_is_noted(house):
    """The start of the boot timer lies between start() and the first progress."""
    before = time.monotonic_ns()
    house.manager.start()
    house.wait_for_progress(range(2))
    assert before < house.manager.first_run_ns < time.monotonic_ns()
