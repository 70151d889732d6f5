"""The PM timer and the generation ID, which Linux finds by ACPI tables made of the platform description."""

import re

import pytest
from vm_device import PmTimer, VmGenId
from vmm_reference import EndReason

GSI = 23
WHERE = 0xF_F000  # among what the map of the reference VMM reserves below 1 MiB

SCRIPT = r"""
clocks=/sys/devices/system/clocksource/clocksource0
echo guest: port $(dmesg | grep -o 'PM-Timer IO Port: .*')
echo guest: clocks $(cat $clocks/available_clocksource)
echo acpi_pm >$clocks/current_clocksource
sleep 1
echo guest: clock $(cat $clocks/current_clocksource)
echo guest: hids $(cat /sys/bus/acpi/devices/*/hid)
echo guest: cid $(cat /sys/bus/acpi/devices/VMGENCTR:00/modalias)
echo guest: driver $(ls -d /sys/bus/*/drivers/vmgenid/VMGENCTR:00)
dmesg | grep -E 'vmgenid|ACPI.*(Error|Exception|Warning)|Firmware' | sed 's/^/guest: complaint /'
echo guest: ready
n=0
until dmesg | grep 'virtual machine fork' || [ $n = 600 ]; do sleep 0.1; n=$((n + 1)); done
echo guest: events $(grep -c 'ACPI:Ged' /proc/interrupts)
poweroff -f
"""


class Timer(PmTimer):
    """Counts how often it is read."""

    reads = 0

    def read(self, offset, size):
        """As it is."""
        self.reads += 1
        return super().read(offset, size)


class Generation:
    """The identifier as a device of the machine; its memory and line are there when the machine is."""

    def __init__(self):
        self.machine = None
        self.device = VmGenId(self, WHERE, lambda: self.machine.vm.irq_line(GSI).trigger())

    def write(self, address, data):
        """Write guest memory."""
        self.machine.memory.memory().write(address, data)

    def describe(self):
        """With its interrupt."""
        return self.device.describe(gsi=GSI)

    def install(self, vmm):
        """Before the machine runs."""
        self.machine = vmm.machine
        self.device.install()


@pytest.mark.kvm_full
def test_linux_finds_and_uses_both(boot):
    """A clock source that it reads, and a driver that mixes a new identifier into the random numbers."""
    timer, generation = Timer(), Generation()
    with boot(script=SCRIPT, devices=[timer, generation], prepare=generation.install) as machine:
        machine.console.expect("guest: ready")
        generation.device.renew()
        assert machine.end(200).reason is EndReason.POWEROFF
        text = machine.console.text
    found = dict(re.findall(r"guest: (\w+) (.*)\n", text))
    assert "complaint" not in found, text
    assert found.get("port") == "PM-Timer IO Port: 0x608", text
    assert "acpi_pm" in found["clocks"].split()
    assert found["clock"] == "acpi_pm"
    assert timer.reads > 100
    assert {"VMGENCTR", "ACPI0013"} <= set(found["hids"].split())
    assert found["cid"] == "acpi:VMGENCTR:VM_GEN_COUNTER:"
    assert found["driver"].endswith("/drivers/vmgenid/VMGENCTR:00"), text
    assert "crng reseeded due to virtual machine fork" in text
    assert found["events"] == "1"
