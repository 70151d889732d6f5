"""A device of your own: one register, written in Python, added to a Linux that is running.

Run it with `python examples/mmio_device.py` where `vmm doctor` says that stock kernels run on kvm, else in
the emulated host: `vmm-testhost -- python examples/mmio_device.py`.

A device is any object with `read` and `write`; `describe` says where it is. The guest is Debian's kernel
with the small init of tools/guest_init.c: once we typed a line, it maps the register's page from user
space, reads the register, and writes back what it read, plus one. Neither side knows the number before.
"""

import random
import sys
import tempfile
import threading
from pathlib import Path

from vm_device.platform import AddressRange, AddressSpace, DeviceNode
from vmm_reference import EndReason, VmConfig, Vmm

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import guest

BASE = 0xDFFF_0000  # the last pages of the MMIO hole; virtio devices are placed from its other end
CMDLINE = f"console=ttyS0 quiet panic=-1 pci=off rdinit={guest.INIT} vmm.challenge=1 vmm.reg={BASE:#x}"


class Register:
    """Thirty-two bits at offset 0; everything else reads 0 and ignores writes."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.log: list[str] = []

    def read(self, offset: int, size: int) -> int:
        """Answer the guest; runs on the thread of the vCPU that reads."""
        answer = self.value if (offset, size) == (0, 4) else 0
        self.log.append(f"guest read {answer} ({size} bytes at offset {offset})")
        return answer

    def write(self, offset: int, size: int, value: int) -> None:
        """Take what the guest writes."""
        self.log.append(f"guest wrote {value} ({size} bytes at offset {offset})")
        if (offset, size) == (0, 4):
            self.value = value

    def describe(self) -> DeviceNode:
        """Say where the device is: one page. ACPI announces only what has a `hid`, so no driver claims it."""
        return DeviceNode("register", "register", (AddressRange(AddressSpace.MMIO, BASE, 0x1000),))


class Console:
    """Collects what the guest prints, and says when its init waits for a line."""

    def __init__(self) -> None:
        self.text, self.ready = b"", threading.Event()

    def write(self, data: bytes) -> None:
        """Take output; runs on the VMM's threads."""
        self.text += data
        if b"guest: ready" in self.text:
            self.ready.set()


def main() -> int:
    """Boot, add the register to the running machine, let the guest use it, and compare."""
    number = random.randrange(2**31)
    register, console = Register(number), Console()
    kernel = guest.debian_guest()
    with tempfile.NamedTemporaryFile() as initramfs:
        initramfs.write(guest.initramfs(kernel, modules=()))
        initramfs.flush()
        config = VmConfig(kernel=kernel.image, initramfs=Path(initramfs.name), cmdline=CMDLINE)
        with Vmm(config, serial_out=console.write) as vmm:
            vmm.boot()
            console.ready.wait(timeout=120)
            vmm.machine.add_device(register)
            vmm.machine.serial.enqueue(b"go\n")
            end = vmm.wait(timeout=120)
    print(*register.log, sep="\n")
    if end is None or end.reason is not EndReason.POWEROFF or register.value != number + 1:
        print(f"not as expected: {end}; the guest's console:\n{console.text.decode(errors='replace')}")
        return 1
    print(f"register: {number} before, {register.value} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
