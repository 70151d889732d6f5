"""x86-64 ioctls of /dev/kvm: CPUID and MSR lists."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from kvm_ioctls._arch import only_on
from kvm_ioctls._errors import MsrError
from kvm_ioctls._fd import OwnedFd
from kvm_ioctls._ffi import lib
from kvm_ioctls._number_list import read_list
from kvm_ioctls._x86_64._state import CpuidEntry, MsrEntry

__all__ = (
    "MAX_CPUID",
    "X86Kvm",
    "pack_cpuid",
    "pack_msrs",
    "read_cpuid",
    "unpack_cpuid",
    "unpack_msrs",
)

MAX_CPUID = 256
"""Most entries that the kernel takes or gives (KVM_MAX_CPUID_ENTRIES)."""
MAX_MSRS = 256
_HEAD = struct.Struct("<II")


def pack_cpuid(entries: Iterable[CpuidEntry]) -> bytearray:
    """Return a struct kvm_cpuid2 with its entries.

    Raises:
        ValueError: More than 256 entries.
    """
    packed = [entry.pack() for entry in entries]
    if len(packed) > MAX_CPUID:
        raise ValueError(f"{len(packed)} CPUID entries, the kernel takes at most {MAX_CPUID}")
    return _join(len(packed), packed)


def _join(count: int, packed: list[bytearray]) -> bytearray:
    return bytearray(b"".join([_HEAD.pack(count, 0), *packed]))


def unpack_cpuid(data: bytearray) -> list[CpuidEntry]:
    """Return the entries of a struct kvm_cpuid2."""
    count, _ = _HEAD.unpack_from(data)
    size = CpuidEntry.wire_size()
    return [CpuidEntry.unpack(data, _HEAD.size + i * size) for i in range(count)]


def pack_msrs(entries: Iterable[MsrEntry]) -> bytearray:
    """Return a struct kvm_msrs with its entries.

    Raises:
        ValueError: More than 256 entries.
    """
    packed = [entry.pack() for entry in entries]
    if len(packed) > MAX_MSRS:
        raise ValueError(f"{len(packed)} MSRs in one call, the kernel takes at most {MAX_MSRS}")
    return _join(len(packed), packed)


def unpack_msrs(data: bytearray) -> list[MsrEntry]:
    """Return the entries of a struct kvm_msrs."""
    count, _ = _HEAD.unpack_from(data)
    size = MsrEntry.wire_size()
    return [MsrEntry.unpack(data, _HEAD.size + i * size) for i in range(count)]


def read_cpuid(ioctl: Callable[[int, bytearray], int], number: int, room: int) -> list[CpuidEntry]:
    """Return the entries that an ioctl fills in, at most `room`."""
    data = _join(room, [CpuidEntry().pack()] * room)
    ioctl(number, data)
    return unpack_cpuid(data)


@only_on("x86_64")
class X86Kvm(OwnedFd):
    """Mixed into Kvm."""

    def get_supported_cpuid(self) -> list[CpuidEntry]:
        """Return the CPUID leaves that this host and KVM can give a guest (KVM_GET_SUPPORTED_CPUID).

        Raises:
            KvmOSError: The ioctl failed.
        """
        return read_cpuid(self._ioctl, lib.KX_GET_SUPPORTED_CPUID, MAX_CPUID)

    def get_emulated_cpuid(self) -> list[CpuidEntry]:
        """Return the leaves whose features KVM emulates in software (KVM_GET_EMULATED_CPUID).

        Raises:
            KvmOSError: The ioctl failed.
        """
        return read_cpuid(self._ioctl, lib.KX_GET_EMULATED_CPUID, MAX_CPUID)

    def get_supported_hv_cpuid(self) -> list[CpuidEntry]:
        """Return the Hyper-V leaves that a guest can have (KVM_GET_SUPPORTED_HV_CPUID, Cap.SYS_HYPERV_CPUID).

        Raises:
            KvmOSError: The ioctl failed.
        """
        return read_cpuid(self._ioctl, lib.KX_GET_SUPPORTED_HV_CPUID, MAX_CPUID)

    def get_mce_cap(self) -> int:
        """Return the machine-check features that a guest can have (KVM_X86_GET_MCE_CAP_SUPPORTED, Cap.MCE).

        Raises:
            KvmOSError: The ioctl failed.
        """
        data = bytearray(8)
        self._ioctl(lib.KX_X86_GET_MCE_CAP_SUPPORTED, data)
        return int.from_bytes(data, "little")

    def get_msr_index_list(self) -> list[int]:
        """Return the MSRs that make up a vCPU's state (KVM_GET_MSR_INDEX_LIST).

        Raises:
            KvmOSError: The ioctl failed.
        """
        return read_list(self._ioctl, lib.KX_GET_MSR_INDEX_LIST, "I")

    def get_msr_feature_index_list(self) -> list[int]:
        """Return the MSRs that describe features and can be read here (KVM_GET_MSR_FEATURE_INDEX_LIST).

        Raises:
            KvmOSError: The ioctl failed.
        """
        return read_list(self._ioctl, lib.KX_GET_MSR_FEATURE_INDEX_LIST, "I")

    def get_msrs(self, indices: Iterable[int]) -> list[MsrEntry]:
        """Return the host's value of each feature MSR (KVM_GET_MSRS on the system fd).

        Raises:
            MsrError: The kernel refused one of them.
            ValueError: More than 256 indices.
        """
        wanted = [MsrEntry(index) for index in indices]
        data = pack_msrs(wanted)
        done = self._ioctl(lib.KX_GET_MSRS, data)
        if done != len(wanted):
            raise MsrError("KVM_GET_MSRS", self._subject, wanted[done].index, done, len(wanted))
        return unpack_msrs(data)
