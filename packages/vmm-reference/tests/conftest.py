"""Kernels of a few bytes that any /dev/kvm runs."""

import pytest
from linux_loader.testing import SegmentSpec, build_elf, pvh_note

ENTRY = 0x10_0000


def _hello(text):
    """Return 32-bit code that sends `text` to the first serial port."""
    after = ENTRY + 18 + 2
    data = after.to_bytes(4, "little")
    # mov edx, 0x3f8; mov esi, text; mov ecx, length; cld; rep outsb; jmp over the text
    head = b"\xba\xf8\x03\0\0\xbe" + data + b"\xb9" + len(text).to_bytes(4, "little") + b"\xfc\xf3\x6e"
    return head + b"\xeb" + bytes([len(text)]) + text


_OUT = {
    "poweroff": (0x600, 0x34),
    "reset": (0x602, 1),
    "i8042": (0x64, 0xFE),
    "mark": (0x5F0, 0x7B),
    "panic": (0x505, 1),  # the three events of pvpanic
    "crash-kernel": (0x505, 2),
    "shutdown": (0x505, 4),
}
_STOP = b"\xfa\xf4\xeb\xfc"  # cli; hlt; for ever


@pytest.fixture
def kernel(tmp_path):
    """A function that makes a kernel: prints `text`, then does `end`; returns its path."""

    def make(end, text=b"hello\n"):
        code = _hello(text)
        for step in end.split():
            if step in _OUT:
                port, value = _OUT[step]
                code += b"\xba" + port.to_bytes(4, "little") + bytes([0xB0, value]) + b"\xee"
            elif step == "fault":
                code += b"\x0f\x0b"  # ud2 without an IDT
            elif step == "count":
                code += b"\xff\x05\x00\x00\x20\x00\xeb\xf8"  # inc dword [0x200000]; for ever
            elif step == "ports":
                code += bytes.fromhex("ba 10050000 ee ebfd")  # mov edx, 0x510; out dx, al; for ever
            elif step == "echo":  # dx = 0x3fd; wait for data; dx = 0x3f8; in; out; back
                code += bytes.fromhex("ba fd030000 ec a801 74fb ba f8030000 ec ee eb ed")
        path = tmp_path / f"kernel-{end.split()[-1]}"
        path.write_bytes(build_elf([SegmentSpec(ENTRY, code + _STOP)], entry=ENTRY, notes=[pvh_note(ENTRY)]))
        return path

    return make
