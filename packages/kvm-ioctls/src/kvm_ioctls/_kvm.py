"""The system file descriptor: what this host's KVM can do, and new VMs."""

from __future__ import annotations

import errno
import grp
import os
import stat
from typing import final

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._device import DeviceAttrs
from kvm_ioctls._errors import KvmUnavailableError, UnsupportedError
from kvm_ioctls._ffi import lib
from kvm_ioctls._numbers import (
    CAP_ARM_VM_IPA_SIZE,
    CAP_IMMEDIATE_EXIT,
    CAP_MAX_VCPU_ID,
    CAP_MAX_VCPUS,
    CAP_NR_MEMSLOTS,
    CAP_NR_VCPUS,
)
from kvm_ioctls._vm import VmFd
from kvm_ioctls._x86_64._system import X86Kvm

__all__ = ("API_VERSION", "Kvm")

API_VERSION = 12
"""What KVM_GET_API_VERSION answers since Linux 2.6.22; `Kvm` refuses anything else."""

_CURES = {
    errno.ENOENT: "no KVM here; load the module (`modprobe kvm_intel` or `kvm_amd`), and in a virtual "
    "machine or container pass the device in or enable nested virtualisation",
    errno.EPERM: "add your user to group kvm, or allow 10:232 in the device cgroup",
    errno.ENODEV: "the device node exists but no KVM module serves it; `modprobe kvm_intel` or `kvm_amd`",
    errno.ENXIO: "the device node exists but no KVM module serves it; `modprobe kvm_intel` or `kvm_amd`",
}


def _permission_cure(name: str) -> str:
    """What helps depends on whom the node belongs to and what its mode allows."""
    try:
        status = os.stat(name)  # noqa: PTH116
    except OSError as err:
        return f"a folder on the way is closed to you ({err.strerror})"
    mode = stat.S_IMODE(status.st_mode)
    group = _group_name(status.st_gid)
    if mode & 0o060 != 0o060 or status.st_gid == 0:
        whose = f"user {status.st_uid}, group {group}, mode {mode:04o}"
        return f"it is closed to all but its owner ({whose}); as root: `chgrp kvm {name} && chmod 660 {name}`"
    return f"add your user to group {group} (`usermod -aG {group} USER`) and log in again"


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


@final
class Kvm(X86Kvm, DeviceAttrs):
    """An open KVM device.

    Args:
        path: The device node.

    Raises:
        KvmUnavailableError: It cannot be opened, is not KVM, or speaks another API version; the message
            names the cure.
    """

    def __init__(self, path: str | os.PathLike[str] = "/dev/kvm") -> None:
        name = os.fspath(path)
        try:
            fd = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        except OSError as err:
            number = err.errno or errno.EIO
            cure = _permission_cure(name) if number == errno.EACCES else _CURES.get(number, "")
            raise KvmUnavailableError(number, "open", name, cure) from None
        super().__init__(fd, name)
        self._check_version(name)

    def _check_version(self, name: str) -> None:
        version = lib.kvmx_ioctl_value(self._fd, lib.KX_GET_API_VERSION, 0)
        if version == API_VERSION:
            return
        self.close()
        if version < 0:
            raise KvmUnavailableError(-version, "KVM_GET_API_VERSION", name, "this is not a KVM device")
        raise KvmUnavailableError(
            errno.ENOTSUP,
            "KVM_GET_API_VERSION",
            name,
            f"it speaks version {version}, only {API_VERSION} is known",
        )

    def get_api_version(self) -> int:
        """Return the API version, which is 12 on every kernel since 2.6.22 (KVM_GET_API_VERSION).

        Raises:
            KvmStateError: Closed or forked.
        """
        return self._ioctl_value(lib.KX_GET_API_VERSION)

    def check_extension(self, cap: kvm.Cap | int) -> int:
        """Return what KVM_CHECK_EXTENSION says: 0 for absent, else 1 or a capability-specific number.

        Raises:
            KvmOSError: The ioctl failed, which is not the same as absent.
        """
        return self._ioctl_value(lib.KX_CHECK_EXTENSION, int(cap))

    def get_vcpu_mmap_size(self) -> int:
        """Return the bytes of a vCPU's shared mapping (KVM_GET_VCPU_MMAP_SIZE).

        Raises:
            KvmOSError: The ioctl failed.
        """
        return self._ioctl_value(lib.KX_GET_VCPU_MMAP_SIZE)

    def get_nr_vcpus(self) -> int:
        """Return the recommended number of vCPUs; 4 when the kernel does not say."""
        return self.check_extension(CAP_NR_VCPUS) or 4

    def get_max_vcpus(self) -> int:
        """Return the most vCPUs a VM may have."""
        return self.check_extension(CAP_MAX_VCPUS) or self.get_nr_vcpus()

    def get_max_vcpu_id(self) -> int:
        """Return the bound that vCPU ids must be below."""
        return self.check_extension(CAP_MAX_VCPU_ID) or self.get_max_vcpus()

    def get_nr_memslots(self) -> int:
        """Return how many memory slots a VM may have; 32 when the kernel does not say."""
        return self.check_extension(CAP_NR_MEMSLOTS) or 32

    def create_vm(self, vm_type: int | None = None) -> VmFd:
        """Create an empty VM (KVM_CREATE_VM).

        Args:
            vm_type: None for an ordinary VM, on arm64 with as many bits of guest physical address as the
                host allows. Others as Cap.VM_TYPES lists; on arm64 the bits, from 32 up to what
                ``check_extension(Cap.ARM_VM_IPA_SIZE)`` says, or 0 for 40.

        Raises:
            UnsupportedError: The kernel lacks KVM_CAP_IMMEDIATE_EXIT (before Linux 4.11).
            KvmOSError: The kernel refused; nothing was created.
        """
        if not self.check_extension(CAP_IMMEDIATE_EXIT):
            raise UnsupportedError(
                f"{self._subject} lacks capability IMMEDIATE_EXIT ({CAP_IMMEDIATE_EXIT}), "
                "without which a vCPU cannot be stopped reliably; boot Linux 4.11 or later"
            )
        if vm_type is None:
            vm_type = self.check_extension(CAP_ARM_VM_IPA_SIZE)  # 0 on other architectures
        size = self.get_vcpu_mmap_size()
        return VmFd(self._ioctl_value(lib.KX_CREATE_VM, vm_type), size)
