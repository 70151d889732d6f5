"""The ranges promised before placement are the ranges written after it."""

import pytest
from linux_loader import BootProtocol, E820Entry, GuestRange, KernelImage
from linux_loader._bootparams import BootInfo
from linux_loader._placement import PlacedKernel
from linux_loader._tables import info_ranges, info_writes, kernel_writes, table_writes


@pytest.mark.parametrize("protocol", [BootProtocol.LINUX64, BootProtocol.LINUX32, BootProtocol.PVH])
@pytest.mark.parametrize("initrd", [None, GuestRange(0x200_0000, 5)])
def test_info_stays_inside_its_ranges(vmlinux, protocol, initrd):
    """With the largest map, nothing is written outside what was reserved, and no range overlaps another."""
    table = tuple(E820Entry(i << 20, 4096) for i in range(128))
    image = KernelImage.from_bytes(vmlinux)
    placed = PlacedKernel(0x100_0000, GuestRange(0x100_0000, 4096), 0x100_0000)
    promised = [r for _, r in info_ranges(protocol, len(table))]
    for write in info_writes(protocol, image, placed, BootInfo(0x2_0000, table, initrd, 0, 0), 2047):
        assert write.range.size == 0 or any(r.contains(write.range) for r in promised)
    fixed = promised + [w.range for w in table_writes(protocol, bytes(65536), bytes(65536))]
    for i, one in enumerate(fixed):
        assert one.end <= 0x9_FC00
        assert not any(one.overlaps(other) for other in fixed[i + 1 :])


def test_kernel_writes_are_views(vmlinux):
    """Segments are views into the file, not copies."""
    image = KernelImage.from_bytes(vmlinux)
    placed = PlacedKernel(0x100_0000, GuestRange(0x100_0000, 4096), 0x100_0000)
    for write in kernel_writes(image, placed, fresh=True):
        assert isinstance(write.data, memoryview)
        assert write.data.readonly
        assert write.data.obj is vmlinux
