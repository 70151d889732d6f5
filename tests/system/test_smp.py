"""Several vCPUs: all online, each really executing, each thread where it was told to be."""

import os
import re
import subprocess
from pathlib import Path

import arm64
import pytest
from vmm_reference import CpusConfig, EndReason, Irqchip, PlatformConfig
from vmm_testhost.pytest_plugin import LONG

# Field 39 of a process's stat is the CPU it ran on last; -c of taskset is younger than Debian's busybox.
SCRIPT = r"""
echo guest: online $(cat /sys/devices/system/cpu/online)
echo guest: count $(grep -c ^processor /proc/cpuinfo)
echo guest: apicids $(grep ^apicid /proc/cpuinfo | cut -d: -f2)
echo guest: packages $(sort -u /sys/devices/system/cpu/cpu*/topology/physical_package_id)
for cpu in $(seq 0 $(($(nproc) - 1))); do
  echo guest: ran $cpu $(taskset $(printf %x $((1 << cpu))) awk '{ print $39 }' /proc/self/stat)
done
echo guest: timers $(grep -E 'LOC:|arch_timer' /proc/interrupts)
poweroff -f
"""


def threads() -> dict[str, set[int]]:
    """Return the host CPUs that each of our threads may use, by the name that the kernel has."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        found[name] = os.sched_getaffinity(int(task.name))
    return found


def on_x86(count, irqchip):
    """Return an instance for an x86-64 host."""
    name = f"{count}-split" if irqchip is Irqchip.SPLIT else str(count)
    return pytest.param("x86_64", count, irqchip, marks=pytest.mark.kvm_full, id=name)


LONG_ON_X86 = [
    on_x86(3, Irqchip.SPLIT),
    on_x86(5, Irqchip.KERNEL),
    on_x86(6, Irqchip.SPLIT),
    on_x86(7, Irqchip.KERNEL),
]


@pytest.mark.parametrize(
    ("arch", "count", "irqchip"),
    [
        on_x86(1, Irqchip.KERNEL),
        on_x86(2, Irqchip.KERNEL),
        on_x86(4, Irqchip.SPLIT),
        on_x86(8, Irqchip.KERNEL),
        *(LONG_ON_X86 if LONG else ()),
        pytest.param("aarch64", 1, Irqchip.KERNEL, marks=pytest.mark.arm64, id="1-aarch64"),
        pytest.param("aarch64", 4, Irqchip.KERNEL, marks=pytest.mark.arm64, id="4-aarch64"),
    ],
)
def test_all_cpus_are_online_and_execute(boot, arch, count, irqchip):
    """The guest has as many CPUs as asked for, a process runs on each, and each takes timer interrupts."""
    usable = sorted(os.sched_getaffinity(0))
    pinned = {vcpu: frozenset({usable[vcpu // 2 % len(usable)]}) for vcpu in range(0, count, 2)}
    with boot(
        modules=(),
        cpus=CpusConfig(count, count, pinned),
        platform=PlatformConfig(irqchip),
        script=SCRIPT,
    ) as machine:
        machine.console.expect("guest: count")
        allowed = threads()
        assert machine.end().reason is EndReason.POWEROFF
        text = machine.console.text
    last = count - 1
    assert f"guest: online {'0' if count == 1 else f'0-{last}'}\n" in text
    assert f"guest: count {count}\n" in text
    if arch == "x86_64":
        assert f"guest: apicids {' '.join(map(str, range(count)))}\n" in text
        assert "guest: packages 0\n" in text
    assert re.findall(r"guest: ran (\d+) (\d+)\n", text) == [(str(cpu),) * 2 for cpu in range(count)]
    ticks = re.search(r"guest: timers \w+: ((?:\d+ )+)", text)
    assert ticks
    assert len(ticks[1].split()) == count
    assert "0" not in ticks[1].split()
    for vcpu in range(count):
        assert allowed[f"vcpu{vcpu}"] == pinned.get(vcpu, frozenset(usable))


@pytest.mark.timeout(600)  # a launch, a boot, and the cross-build if it has not been made
@pytest.mark.testhost
def test_two_host_cpus_run_the_vcpus_of_one_guest():
    """A stock kernel's vCPUs execute at the same time, pinned to either CPU of their host or to none.

    The hosts of the other tests have one CPU, where no two vCPUs are ever inside the guest at once. An x86-64
    host with two panics or stands still in one run of five: QEMU does not see in time what one CPU patches in
    the code that another executes, as kvm.ko has Linux do for each machine. On AArch64 that needs a barrier.
    """
    arm64.prepare()
    host = [*arm64.arguments(memory=3072), "--cpus", "2", "--no-tty", "--"]
    tests = f'nproc && exec python3 -m pytest -q -p no:cacheprovider -m arm64 "{__file__}" -k "4-aarch64"'
    done = subprocess.run(
        [*host, "sh", "-c", tests], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[0] == "2"
    assert re.search(r"^1 passed", done.stdout, re.MULTILINE)
