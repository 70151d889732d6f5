"""What boot.rst of riscv says of addresses, in numbers."""

from linux_loader import GuestRange
from linux_loader.arch import riscv64


def test_windows():
    """Nothing below the kernel; the tree near it."""
    kernel = GuestRange(0x8020_0000, 0x30_0000)
    assert riscv64.initrd_window(kernel).base == kernel.base
    assert riscv64.fdt_limit(kernel) == 0x8020_0000 + (512 << 20)
