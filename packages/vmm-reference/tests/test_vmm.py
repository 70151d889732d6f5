"""A machine from start to end, with kernels of a few bytes on the real /dev/kvm."""

import json
import os
import threading
import time
from pathlib import Path

import kvm_ioctls
import pytest
from virtio_devices import ImageError
from vmm_reference import (
    ConfigError,
    CpusConfig,
    DiskConfig,
    End,
    EndReason,
    EventMonitorConfig,
    Irqchip,
    MemoryConfig,
    PlatformConfig,
    RngConfig,
    StateError,
    VmConfig,
    Vmm,
)
from vmm_reference._config import BUILT_IN_IDS

pytestmark = pytest.mark.kvm

RAM = MemoryConfig(16 << 20)
COUNTER = 0x20_0000


@pytest.fixture
def config(kernel):
    """A function that configures a machine for a tiny kernel."""
    return lambda end, **options: VmConfig(kernel(end), memory=RAM, **options)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("poweroff", End(EndReason.POWEROFF)),
        ("reset", End(EndReason.RESET)),
        ("i8042", End(EndReason.RESET)),
        ("fault", End(EndReason.CRASH, "triple fault on vCPU 0")),
        ("panic", End(EndReason.PANIC, "the guest's kernel panicked")),
        ("shutdown", End(EndReason.POWEROFF)),
    ],
)
def test_every_end(config, end, expected):
    """What the guest printed arrived, and its end is named; everything is given back."""
    before, output = sorted(os.listdir("/proc/self/fd")), []
    with Vmm(config(end), serial_out=output.append) as vmm:
        vmm.boot()
        assert vmm.wait(60) == expected
    assert b"".join(output) == b"hello\n"
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("vcpu", "vmm"))]


def test_a_crash_kernel_is_noted_and_goes_on(config, tmp_path):
    """A guest that deals with its panic itself goes on; saying so twice makes one record."""
    path = tmp_path / "events"
    machine = config("crash-kernel crash-kernel poweroff", event_monitor=EventMonitorConfig(path))
    with Vmm(machine) as vmm:
        vmm.boot()
        assert vmm.wait(60) == End(EndReason.POWEROFF)
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert (events.count("crash-loaded"), events[-2:]) == (1, ["shutdown", "shutdown"])


def test_a_machine_on_a_split_irqchip(config):
    """It runs, and its I/O APIC is on the bus where ACPI says."""
    with Vmm(config("poweroff", platform=PlatformConfig(Irqchip.SPLIT))) as vmm:
        vmm.machine.io.mmio.write(0xFEC0_0000, 4, 1)
        assert vmm.machine.io.mmio.read(0xFEC0_0010, 4) == 0x0017_0020
        assert vmm.machine.tree.get("ioapic") is vmm.machine.vm.ioapic
        vmm.boot()
        assert vmm.wait(60) == End(EndReason.POWEROFF)


def test_no_disk_is_called_like_a_device_of_the_machine(config):
    """Every id that a machine uses itself is refused when a disk or a card asks for it."""
    with Vmm(config("poweroff", platform=PlatformConfig(Irqchip.SPLIT))) as vmm:
        assert set(vmm.machine.tree) - {"rng0"} <= BUILT_IN_IDS


def test_a_kvm_without_split_irqchip(config, monkeypatch):
    """The refusal names the option and both cures."""
    monkeypatch.setattr(kvm_ioctls.VmFd, "check_extension", lambda *_: 0)
    with pytest.raises(ConfigError, match=r"^--platform irqchip: .*SPLIT_IRQCHIP.*\(irqchip=kernel\)$"):
        Vmm(config("poweroff", platform=PlatformConfig(Irqchip.SPLIT)))


def vcpu_cpus():
    """Return the host CPUs that each vCPU's thread may use, from its name and status in /proc."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if fields["Name"].startswith("vcpu"):
            found[fields["Name"]] = parse_cpus(fields["Cpus_allowed_list"])
    return found


def test_vcpus_run_where_they_are_pinned(config):
    """Each vCPU's thread may use the host CPUs named for it and no other; those not named use all."""
    usable = sorted(os.sched_getaffinity(0))
    pinned = {0: frozenset(usable[-1:]), 1: frozenset(usable[:1])}
    with Vmm(config("count", cpus=CpusConfig(3, 3, pinned))) as vmm:
        vmm.boot()
        # The first vCPU counts already while the last thread starts.
        wait_for(lambda: vcpu_cpus() == {"vcpu0": pinned[0], "vcpu1": pinned[1], "vcpu2": {*usable}})
        counter = vmm.machine.memory.memory()
        start = counter.load(COUNTER, 4)
        wait_for(lambda: counter.load(COUNTER, 4) > start)


def parse_cpus(text):
    """Return the numbers of a list such as 0-1,4."""
    parts = [part.partition("-") for part in text.split(",")]
    return {cpu for first, _, last in parts for cpu in range(int(first), int(last or first) + 1)}


def wait_for(condition):
    """Wait until the guest has got so far."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_a_running_machine_keeps_its_memory(config):
    """Closed under a running vCPU it refuses: memory that a guest still writes must stay its own."""
    with Vmm(config("count")) as vmm:
        vmm.boot()
        counter = vmm.machine.memory.memory()
        wait_for(lambda: counter.load(COUNTER, 4) > 1000)
        with pytest.raises(kvm_ioctls.VcpuBusyError, match="vCPU 0"):
            vmm.machine.close()
        now = counter.load(COUNTER, 4)
        wait_for(lambda: counter.load(COUNTER, 4) > now)


def test_pause_and_resume(config):
    """A paused machine's memory stands still; calls out of order change nothing and say so."""
    with Vmm(config("count")) as vmm:
        with pytest.raises(StateError, match=r"^pause: the machine is created, not running$"):
            vmm.pause()
        vmm.boot()
        with pytest.raises(StateError, match=r"^boot: the machine is running, not created$"):
            vmm.boot()
        memory = vmm.machine.memory.memory()
        for _ in range(20):
            before = memory.load(COUNTER, 4)
            end = time.monotonic() + 60
            while memory.load(COUNTER, 4) == before:
                assert time.monotonic() < end
            vmm.pause()
            standing = memory.load(COUNTER, 4)
            time.sleep(0.001)
            assert memory.load(COUNTER, 4) == standing
            with pytest.raises(StateError, match=r"^pause: the machine is paused, not running$"):
                vmm.pause()
            vmm.resume()
    assert vmm.wait(0) == End(EndReason.STOPPED)


def test_pausing_what_has_ended(config):
    """A machine that ended by itself cannot be paused any more: a StateError, not another package's."""
    with Vmm(config("poweroff")) as vmm:
        vmm.boot()
        assert vmm.wait(60) == End(EndReason.POWEROFF)
        with pytest.raises(StateError, match=r"^pause: the machine has ended \(poweroff\)$"):
            vmm.pause()


def test_first_reason_counts(config):
    """A stop that comes after the guest's own end does not rewrite it."""
    with Vmm(config("reset")) as vmm:
        vmm.boot()
        vmm.wait(60)
        vmm.request_end(EndReason.FAILED, "too late")
        assert vmm.wait(0) == End(EndReason.RESET)


def test_closed_without_a_boot(config):
    """A machine that never ran is given back; closing twice is harmless."""
    vmm = Vmm(config("count"))
    vmm.close()
    vmm.close()
    assert vmm.wait(0) == End(EndReason.STOPPED)


def test_events_of_a_life(config, tmp_path):
    """The events in order, with the boot timer's seconds and the reason at the end."""
    path = tmp_path / "events"
    with Vmm(config("mark poweroff", event_monitor=EventMonitorConfig(path))) as vmm:
        vmm.boot()
        vmm.wait(60)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert sorted(names) == sorted(
        ["starting", "booting", "booted", "userspace-reached", "shutdown", "shutdown"]
    )
    assert (names[:2], names[-2:]) == (["starting", "booting"], ["shutdown", "shutdown"])
    (mark,) = [event["properties"] for event in events if event["event"] == "userspace-reached"]
    assert mark["value"] == 0x7B
    assert 0 < mark["seconds"] < 20
    assert events[-2]["properties"] == {"reason": "poweroff", "detail": ""}


def test_a_guest_cannot_write_events_without_end(config, tmp_path):
    """Boot marks beyond the 64th are not written any more."""
    path = tmp_path / "events"
    with Vmm(config("mark " * 200 + "poweroff", event_monitor=EventMonitorConfig(path))) as vmm:
        vmm.boot()
        vmm.wait(60)
    assert path.read_text().count("userspace-reached") == 64


FOREIGN = Path(__file__).parent / "data/foreign.toml"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"disks": (DiskConfig("/nonexistent/disk"),)}, r"^--disk path: /nonexistent/disk: "),
        (
            {"cpus": CpusConfig(affinity={0: frozenset({4095})})},
            r"^--cpus affinity: vCPU 0 shall run on host CPUs \[4095\]; usable are \[",
        ),
        (
            {"cpus": CpusConfig(affinity={0: frozenset({*os.sched_getaffinity(0), 4095})})},
            r"^--cpus affinity: vCPU 0 shall run on host CPUs \[\d+, .*4095\]; usable are \[",
        ),
        ({"rng": RngConfig("/nonexistent/rng")}, r"^--rng src: .*/nonexistent/rng"),
        (
            {"cpus": CpusConfig(template=str(FOREIGN))},
            r"^--cpus template: CPU template .*/foreign\.toml is for TransmetaCPU, this processor is ",
        ),
    ],
)
def test_what_cannot_be_built(config, options, message):
    """A refusal names the option, and leaves no descriptor and no thread."""
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match=message) as caught:
        Vmm(config("poweroff", **options))
    assert not isinstance(caught.value, ImageError)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_an_empty_pool_of_huge_pages_is_named_with_its_cure(kernel):
    """The refusal speaks of the option, not of the library's argument."""
    free = int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())
    needed = free + 8
    memory = MemoryConfig(size=needed << 21, hugepages=True)
    message = f"^--memory hugepages: {needed} pages of 2 MiB are needed, {free} are free; echo {needed} >"
    with pytest.raises(ConfigError, match=message):
        Vmm(VmConfig(kernel("poweroff"), memory=memory))
