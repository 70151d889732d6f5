"""The I/O APIC in our process: the same kernels boot on it, and level-triggered devices work."""

import hashlib
import re
import secrets
import threading

import guest
import kvm_ioctls
import pytest
from virtio_devices import EntropySource, VirtioMmio, VirtioRng
from vm_device.platform import InterruptSpec, Trigger
from vmm_reference import CpusConfig, DiskConfig, EndReason, Irqchip, PlatformConfig

pytestmark = pytest.mark.kvm_full

BASE, PIN = 0xDFFE_0000, 20
STATUS, ACKNOWLEDGE = 0x60, 0x64  # virtio-mmio registers
SCRIPT = r"""
echo guest: ready
read line
echo guest: echo $line
echo guest: disk $(md5sum < /dev/vda)
for rng in virtio_rng.0 virtio_rng.1; do
  echo $rng > /sys/class/misc/hw_random/rng_current
  echo guest: $rng $(dd if=/dev/hwrng bs=64 count=32 2>/dev/null | wc -c)
done
echo +2 > /sys/class/rtc/rtc0/wakealarm
for _ in $(seq 60); do [ -z "$(cat /sys/class/rtc/rtc0/wakealarm)" ] || sleep 1; done
sed 's/^/guest: irq /' /proc/interrupts
echo guest: done
poweroff -f
"""


class LevelRng:
    """A virtio entropy device whose line is a level: asserted while InterruptStatus is not 0."""

    def __init__(self):
        self._lock = threading.Lock()
        self._raised = 0
        self._line = self._transport = None
        self.asserted = 0

    def describe(self):
        """Return what ACPI is told: a level-triggered line."""
        idle = VirtioMmio(
            VirtioRng("unused", EntropySource("/dev/urandom")),
            base=BASE,
            interrupt=self,
            memory=None,
            spec=InterruptSpec(PIN, Trigger.LEVEL),
            uid=99,
        )
        node = idle.describe()
        idle.close()
        return node

    def join(self, vmm):
        """Take line and memory of a machine."""
        self._line = vmm.machine.vm.irq_line(PIN)
        rng = VirtioRng("level-rng", EntropySource("/dev/urandom"))
        self._transport = VirtioMmio(rng, base=BASE, interrupt=self, memory=vmm.machine.memory, uid=99)

    def trigger(self):
        with self._lock:
            self._raised += 1
            self.asserted += 1
            self._line.set_level(True)

    def set_level(self, level):
        raise AssertionError("virtio-mmio sends edges")

    eventfd = None

    def read(self, offset, size):
        if offset != STATUS:
            return self._transport.read(offset, size)
        return self._settled(lambda: self._transport.read(STATUS, size))

    def write(self, offset, size, value):
        if offset != ACKNOWLEDGE:
            self._transport.write(offset, size, value)
            return

        def acknowledge():
            self._transport.write(offset, size, value)
            return self._transport.read(STATUS, 4)

        self._settled(acknowledge)

    def _settled(self, access):
        """Do an access; lower the line when no cause is left and none came meanwhile."""
        before = self._raised
        status = access()
        with self._lock:
            if status == 0 and self._raised == before:
                self._line.set_level(False)
        return status

    def close(self):
        """End the device."""
        self._transport.close()


def io_apic_lines(text):
    """Return what /proc/interrupts says of I/O APIC lines: "PIN-trigger" to (name, count)."""
    found = re.findall(r"guest: irq +\d+: +([\d ]+?) +IO-APIC +(\S+) +(\S+)\n", text)
    return {pin: (name, sum(map(int, counts.split()))) for counts, pin, name in found}


@pytest.mark.parametrize(
    ("kernel", "irqchip"),
    [
        ("6.12-cloud", Irqchip.SPLIT),
        ("6.12-cloud", Irqchip.KERNEL),
        ("6.1-generic", Irqchip.SPLIT),
    ],
    ids=["6.12-cloud-split", "6.12-cloud-kernel", "6.1-generic-split"],
)
def test_kernels_boot_with_either_irqchip(boot, tmp_path, kernel, irqchip):
    """Two vCPUs; disk and console by edges, a device of the test's own by level."""
    image = tmp_path / "random.raw"
    image.write_bytes(secrets.token_bytes(1 << 20))
    challenge = secrets.token_hex(8)
    level = LevelRng()
    with boot(
        guest.known_guest(kernel),
        disks=[DiskConfig(image, readonly=True)],
        cpus=CpusConfig(2, 2),
        platform=PlatformConfig(irqchip),
        devices=[level],
        prepare=level.join,
        script=SCRIPT,
    ) as machine:
        machine.console.expect("guest: ready", 40)
        machine.send(challenge + "\n")
        machine.console.expect(f"guest: echo {challenge}\n")
        machine.console.expect("guest: done", 30)
        assert machine.end().reason is EndReason.POWEROFF
        text = machine.console.text
        exits = [vcpu.fd.stats().exits for vcpu in machine.vmm.machine.vcpus]
        assert (machine.vmm.machine.vm.ioapic is not None) is (irqchip is Irqchip.SPLIT)
    level.close()
    assert f"guest: disk {hashlib.md5(image.read_bytes()).hexdigest()} -\n" in text
    for rng in ("virtio_rng.0", "virtio_rng.1"):
        assert f"guest: {rng} {64 * 32}\n" in text
    lines = io_apic_lines(text)
    assert lines["4-edge"][0] == "ttyS0"
    assert lines["8-edge"] == ("rtc0", 1)
    assert min(count for _, count in lines.values()) >= 1
    _, served = lines[f"{PIN}-fasteoi"]
    assert 1 <= served <= 4 * level.asserted
    told = sum(seen.get(kvm_ioctls.ExitReason.IOAPIC_EOI, 0) for seen in exits)
    if irqchip is Irqchip.KERNEL:
        assert told == 0
    else:
        # The guest reads on after it has printed its count. No storm: an end finds the line raised at times.
        assert served <= told <= 4 * level.asserted
