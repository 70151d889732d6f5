"""Debian packages and kernels in the user's cache folder, fetched through apt, never installed."""

from ._apt import fetch_package
from ._kernel import (
    GUEST_KERNEL,
    DebianKernel,
    extract_vmlinux,
    kernel,
    kernel_image,
    later_kernel,
    read_module,
)

__all__ = (
    "GUEST_KERNEL",
    "DebianKernel",
    "extract_vmlinux",
    "fetch_package",
    "kernel",
    "kernel_image",
    "later_kernel",
    "read_module",
)
