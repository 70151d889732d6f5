"""What booting.rst says of addresses, in numbers."""

from linux_loader import GuestRange
from linux_loader.arch import aarch64


def test_windows():
    """32 GiB from the kernel's GiB for the initrd; 512 MiB from its 2 MiB for the tree."""
    kernel = GuestRange(0x7FE8_0000, 0x30_0000)
    assert aarch64.initrd_window(kernel) == GuestRange(0x4000_0000, 32 << 30)
    assert aarch64.fdt_limit(kernel) == 0x7FE0_0000 + (512 << 20)
