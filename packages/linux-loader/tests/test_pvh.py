"""PVH start info."""

import struct

from linux_loader import E820Entry, E820Type, GuestRange
from linux_loader._bootparams import BootInfo
from linux_loader._pvh import memory_map, module_list, start_info


def test_without_initrd():
    """No module, no module list address."""
    info = BootInfo(0x2_0000, (E820Entry(0, 4096, E820Type.RAM),), None, 0, 0)
    assert struct.unpack("<IIIIQQQQII", start_info(info)) == (
        0x336EC578,
        1,
        0,
        0,
        0,
        0x2_0000,
        0,
        0x7000,
        1,
        0,
    )
    assert module_list(info) == b""
    assert memory_map(info) == struct.pack("<QQII", 0, 4096, 1, 0)


def test_with_initrd():
    """The initrd is module 0."""
    info = BootInfo(0, (), GuestRange(0x10_0000, 77), 0, 0)
    assert struct.unpack_from("<IQ", start_info(info), 12) == (1, 0x6040)
    assert module_list(info) == struct.pack("<QQQQ", 0x10_0000, 77, 0, 0)
