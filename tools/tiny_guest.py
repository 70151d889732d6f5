"""Kernels of a few bytes, which any /dev/kvm of this architecture runs, and how to run `vmm` with them."""

import os
import sys
from pathlib import Path

from arm64_code import PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, Code, image
from linux_loader.testing import SegmentSpec, build_elf, pvh_note

ENTRY = 0x10_0000
_HELLO = b"hello\n"
_ARM64 = os.uname().machine == "aarch64"
# Of the test's own: memory that no other device has.
DEVICE = 0x1FFF_0000 if _ARM64 else 0xD000_0000 + 0xFFF_0000
_UART, _PVPANIC = 0x900_0000, 0x902_0000


def _out(port: int, value: int) -> bytes:
    """`out` of a byte, 32-bit code."""
    return b"\xba" + port.to_bytes(4, "little") + bytes([0xB0, value]) + b"\xee"


_X86_ENDS = {
    "power-off": _out(0x600, 0x34),
    "reset": _out(0x602, 1),
    "panic": _out(0x505, 1),
    "triple fault": b"\x0f\x0b",  # ud2 without an IDT
    "halt": b"",  # what every kernel here comes to: cli; hlt; for ever
    "device": b"\xa1" + DEVICE.to_bytes(4, "little"),  # mov eax, [DEVICE]
    "spin": b"\xeb\xfe",
    # edx = 0x3fd; wait for data; edx = 0x3f8; in; out; back
    "echo": bytes.fromhex("ba fd030000 ec a801 74fb ba f8030000 ec ee eb ed"),
}
_ARM64_ENDS = {
    "power-off": Code().move(0, PSCI_SYSTEM_OFF).hvc(),
    "reset": Code().move(0, PSCI_SYSTEM_RESET).hvc(),
    "panic": Code().poke(_PVPANIC, 1, 1),
    "halt": Code(),  # interrupts are masked at the entry
    "device": Code().move(1, DEVICE).load(0, 1),
    "spin": Code().jump(0),
}


def _x86_kernel(end: str) -> bytes:
    after = ENTRY + 20
    say = b"\xba\xf8\x03\0\0\xbe" + after.to_bytes(4, "little") + b"\xb9" + len(_HELLO).to_bytes(4, "little")
    # mov edx, 0x3f8; mov esi, text; mov ecx, length; cld; rep outsb; jmp over the text
    code = say + b"\xfc\xf3\x6e\xeb" + bytes([len(_HELLO)]) + _HELLO + _X86_ENDS[end] + b"\xfa\xf4\xeb\xfc"
    return build_elf([SegmentSpec(ENTRY, code)], entry=ENTRY, notes=[pvh_note(ENTRY)])


def _arm64_kernel(end: str) -> bytes:
    say = Code()
    for char in _HELLO:
        say.poke(_UART, char, 1)
    return image(bytes(say) + bytes(_ARM64_ENDS[end]) + bytes(Code().wfi().jump(0)))


def kernel(folder: Path, end: str) -> Path:
    """Write a kernel that says hello on its serial port and then comes to that end; return its path."""
    path = folder / "kernel"
    path.write_bytes(_arm64_kernel(end) if _ARM64 else _x86_kernel(end))
    return path


# Their kernels run on any KVM: only the verdict that stock ones do not is overruled.
_VMM = """
import sys
from vmm_reference import _cli, _host
_host.choose = lambda _: _host.HostChoice("kvm", "as the test says")
sys.exit(_cli.main(sys.argv[1:]))
"""

# The same machine with a device whose code has a mistake, which the command has no option for.
_VMM_WITH_DEVICE = """
import sys
from vm_device.platform import AddressRange, AddressSpace, DeviceNode
from vmm_reference import _cli, _session

class Broken:
    def read(self, offset, size):
        raise ValueError("a mistake in a device")

    def write(self, offset, size, value):
        pass

    def describe(self):
        return DeviceNode("broken", "broken", (AddressRange(AddressSpace.MMIO, %d, 0x1000),))

arguments = _cli._parser().parse_args(sys.argv[1:])
sys.exit(_session.run(_cli.config_from(arguments), [Broken()]))
"""


def command(folder: Path, end: str, *words: str) -> list[str]:
    """Return the command line of `vmm run` with such a kernel."""
    program = _VMM_WITH_DEVICE % DEVICE if end == "device" else _VMM
    run = ["run", "--host", "kvm", "--kernel", str(kernel(folder, end)), "--memory", "size=16M"]
    return [sys.executable, "-c", program, *run, *words]
