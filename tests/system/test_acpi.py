"""AArch64 machines in ACPI tables: all is found by those, and nothing by a device tree."""

import re

import guest
import pytest
from vmm_reference import CpusConfig, DiskConfig, EndReason, PlatformConfig, Tables

SCRIPT = r"""
echo guest: root $(awk '$2 == "/" { print $1, $3 }' /proc/mounts)
echo guest: disk $(readlink -f /sys/block/vda/device/..)
echo guest: tables $(ls /sys/firmware/acpi/tables)
echo guest: nodes $(ls /proc/device-tree /sys/firmware/devicetree/base 2>/dev/null | wc -l)
echo guest: online $(cat /sys/devices/system/cpu/online)
echo guest: timers $(grep arch_timer /proc/interrupts)
echo guest: clocks $(date +%Y) $(cat /sys/class/ptp/ptp0/clock_name)
dmesg | grep -oE 'psci: .*from.*|GICv3: CPU[0-9]+: found.*|ITS \[.*' | sed 's/^/guest: /'
dmesg | grep -E 'WARNING|BUG|ACPI.*(Error|Exception|Warning)|Firmware' | sed 's/^/guest: complaint /'
mount -o remount,ro /
stty -F /dev/ttyAMA0 -echo
"""


@pytest.mark.arm64
@pytest.mark.parametrize(
    ("count", "end", "reason"), [(1, "poweroff", EndReason.POWEROFF), (4, "reboot", EndReason.RESET)]
)
def test_a_root_on_disk_found_by_acpi(boot, tmp_path, count, end, reason):
    """A stock kernel, its processors, interrupts, timers, console and the disk that its root is on."""
    disk = tmp_path / "root.raw"
    guest.root_disk(disk, 16 << 20, script=f"{SCRIPT}{end} -f")
    with boot(
        jobs="root=/dev/vda vmm.end=exec",
        cpus=CpusConfig(count, count),
        disks=[DiskConfig(disk)],
        platform=PlatformConfig(tables=Tables.ACPI),
    ) as machine:
        assert machine.end(250).reason is reason
        text = machine.console.text
    found = dict(re.findall(r"guest: (\w+) (.*)\n", text))
    assert "complaint" not in found, text
    assert found.get("root") == "/dev/vda ext4", text
    assert found["disk"] == "/sys/devices/platform/LNRO0005:00"
    assert {"APIC", "DSDT", "FACP", "GTDT", "SPCR"} <= set(found["tables"].split())
    assert found["nodes"] == "0"
    assert found["online"] == ("0" if count == 1 else f"0-{count - 1}")
    ticks = re.match(r"\d+: ((?:\d+ )+)GICv3 27 Level", found["timers"])
    assert ticks
    assert len(ticks[1].split()) == count
    assert "0" not in ticks[1].split()
    assert "guest: psci: probing for conduit method from ACPI.\n" in text
    assert re.findall(r"GICv3: CPU(\d+): found", text) == [str(cpu) for cpu in range(count)]
    assert "guest: ITS [mem 0x08080000-0x0809ffff]\n" in text
    # Its clock is the one of KVM: the PL031 has no ACPI id.
    assert found["clocks"] == "1970 KVM virtual PTP"
