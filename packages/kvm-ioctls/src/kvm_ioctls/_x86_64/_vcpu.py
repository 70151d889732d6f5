"""x86-64 ioctls of a vCPU: every piece of state that a boot, a snapshot or a debugger needs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._arch import only_on
from kvm_ioctls._errors import MsrError
from kvm_ioctls._ffi import lib
from kvm_ioctls._x86_64._state import CpuidEntry, Fpu, MsrEntry, Regs, Sregs
from kvm_ioctls._x86_64._system import MAX_CPUID, pack_cpuid, pack_msrs, read_cpuid, unpack_msrs
from kvm_ioctls._x86_64._vcpu_features import X86VcpuFeatures

__all__ = ("X86Vcpu",)

_LAPIC_BYTES = 1024
_XSAVE_BYTES = 4096
_MAX_XCRS = 16
_XCRS_BYTES = 392


@only_on("x86_64")
class X86Vcpu(X86VcpuFeatures):
    """Mixed into VcpuFd.

    Every method raises KvmOSError when the kernel refuses and KvmStateError when the vCPU is closed,
    forked or in use by another thread; a refused setter changes nothing.
    """

    _xsave_size: int

    def get_regs(self) -> Regs:
        """Return the general purpose registers (KVM_GET_REGS)."""
        return self._get(lib.KX_GET_REGS, Regs)

    def set_regs(self, regs: Regs) -> None:
        """Set the general purpose registers (KVM_SET_REGS)."""
        self._ioctl(lib.KX_SET_REGS, regs.pack())

    def get_sregs(self) -> Sregs:
        """Return segment, table and control registers (KVM_GET_SREGS)."""
        return self._get(lib.KX_GET_SREGS, Sregs)

    def set_sregs(self, sregs: Sregs) -> None:
        """Set segment, table and control registers (KVM_SET_SREGS); EINVAL for an impossible combination."""
        self._ioctl(lib.KX_SET_SREGS, sregs.pack())

    def get_sregs2(self) -> kvm.Sregs2:
        """Return them with the PDPTRs (KVM_GET_SREGS2, Cap.SREGS2)."""
        return self._get(lib.KX_GET_SREGS2, kvm.Sregs2)

    def set_sregs2(self, sregs: kvm.Sregs2) -> None:
        """Set them with the PDPTRs (KVM_SET_SREGS2, Cap.SREGS2)."""
        self._ioctl(lib.KX_SET_SREGS2, sregs.pack())

    def get_fpu(self) -> Fpu:
        """Return x87 and SSE state (KVM_GET_FPU)."""
        return self._get(lib.KX_GET_FPU, Fpu)

    def set_fpu(self, fpu: Fpu) -> None:
        """Set x87 and SSE state (KVM_SET_FPU)."""
        self._ioctl(lib.KX_SET_FPU, fpu.pack())

    def get_xsave(self) -> bytes:
        """Return the whole XSAVE area, 4096 bytes or more (KVM_GET_XSAVE or KVM_GET_XSAVE2)."""
        data = bytearray(self._xsave_size)
        self._ioctl(lib.KX_GET_XSAVE2 if self._xsave_size > _XSAVE_BYTES else lib.KX_GET_XSAVE, data)
        return bytes(data)

    def set_xsave(self, state: bytes) -> None:
        """Restore the XSAVE area (KVM_SET_XSAVE).

        Raises:
            ValueError: `state` is not as long as ``get_xsave`` gives it.
        """
        if len(state) != self._xsave_size:
            raise ValueError(f"XSAVE state has {len(state)} bytes, this VM's has {self._xsave_size}")
        self._ioctl(lib.KX_SET_XSAVE, bytearray(state))

    def get_xcrs(self) -> list[kvm.Xcr]:
        """Return the extended control registers (KVM_GET_XCRS)."""
        data = bytearray(_XCRS_BYTES)
        self._ioctl(lib.KX_GET_XCRS, data)
        count = min(struct.unpack_from("<I", data)[0], _MAX_XCRS)
        return [kvm.Xcr.unpack(data, 8 + 16 * i) for i in range(count)]

    def set_xcrs(self, xcrs: Sequence[kvm.Xcr]) -> None:
        """Set the extended control registers (KVM_SET_XCRS).

        Raises:
            ValueError: More than 16.
        """
        if len(xcrs) > _MAX_XCRS:
            raise ValueError(f"{len(xcrs)} XCRs, the ABI has room for {_MAX_XCRS}")
        packed = b"".join([struct.pack("<II", len(xcrs), 0), *(xcr.pack() for xcr in xcrs)])
        self._ioctl(lib.KX_SET_XCRS, bytearray(packed.ljust(_XCRS_BYTES, b"\0")))

    def get_msrs(self, indices: Iterable[int]) -> list[MsrEntry]:
        """Return the value of each MSR (KVM_GET_MSRS).

        Raises:
            MsrError: The kernel refused one; it is named.
            ValueError: More than 256.
        """
        entries = [MsrEntry(index) for index in indices]
        data = pack_msrs(entries)
        self._all_msrs("KVM_GET_MSRS", self._ioctl(lib.KX_GET_MSRS, data), entries)
        return unpack_msrs(data)

    def set_msrs(self, entries: Iterable[MsrEntry]) -> None:
        """Set MSRs in order (KVM_SET_MSRS).

        Raises:
            MsrError: The kernel refused one; it is named, and those before it are set.
            ValueError: More than 256, or a value does not fit.
        """
        wanted = list(entries)
        self._all_msrs("KVM_SET_MSRS", self._ioctl(lib.KX_SET_MSRS, pack_msrs(wanted)), wanted)

    def _all_msrs(self, name: str, done: int, entries: list[MsrEntry]) -> None:
        if done != len(entries):
            raise MsrError(name, self._subject, entries[done].index, done, len(entries))

    def get_cpuid2(self) -> list[CpuidEntry]:
        """Return the CPUID leaves that the guest sees (KVM_GET_CPUID2)."""
        return read_cpuid(self._ioctl, lib.KX_GET_CPUID2, MAX_CPUID)

    def set_cpuid2(self, entries: Iterable[CpuidEntry]) -> None:
        """Set the CPUID leaves that the guest sees; before the first run (KVM_SET_CPUID2).

        Raises:
            ValueError: More than 256 entries, or a value does not fit.
        """
        self._ioctl(lib.KX_SET_CPUID2, pack_cpuid(entries))

    def get_lapic(self) -> bytes:
        """Return the 1024 bytes of the local APIC's registers (KVM_GET_LAPIC); EINVAL without an irqchip."""
        data = bytearray(_LAPIC_BYTES)
        self._ioctl(lib.KX_GET_LAPIC, data)
        return bytes(data)

    def set_lapic(self, state: bytes) -> None:
        """Set the local APIC's registers (KVM_SET_LAPIC).

        Raises:
            ValueError: `state` is not 1024 bytes.
        """
        if len(state) != _LAPIC_BYTES:
            raise ValueError(f"local APIC state has {len(state)} bytes, not {_LAPIC_BYTES}")
        self._ioctl(lib.KX_SET_LAPIC, bytearray(state))

    def get_vcpu_events(self) -> kvm.VcpuEvents:
        """Return pending and injected events (KVM_GET_VCPU_EVENTS)."""
        return self._get(lib.KX_GET_VCPU_EVENTS, kvm.VcpuEvents)

    def set_vcpu_events(self, events: kvm.VcpuEvents) -> None:
        """Set pending and injected events (KVM_SET_VCPU_EVENTS)."""
        self._ioctl(lib.KX_SET_VCPU_EVENTS, events.pack())

    def get_debug_regs(self) -> kvm.DebugRegs:
        """Return the guest's hardware breakpoints (KVM_GET_DEBUGREGS)."""
        return self._get(lib.KX_GET_DEBUGREGS, kvm.DebugRegs)

    def set_debug_regs(self, regs: kvm.DebugRegs) -> None:
        """Set the guest's hardware breakpoints (KVM_SET_DEBUGREGS)."""
        self._ioctl(lib.KX_SET_DEBUGREGS, regs.pack())

    def set_guest_debug(self, debug: kvm.GuestDebug) -> None:
        """Choose which debug events come to the host as Debug exits (KVM_SET_GUEST_DEBUG)."""
        self._ioctl(lib.KX_SET_GUEST_DEBUG, debug.pack())

    def get_tsc_khz(self) -> int:
        """Return the guest's TSC frequency in kHz (KVM_GET_TSC_KHZ)."""
        return self._ioctl_value(lib.KX_GET_TSC_KHZ)

    def set_tsc_khz(self, khz: int) -> None:
        """Set the guest's TSC frequency in kHz (KVM_SET_TSC_KHZ); Cap.TSC_CONTROL unless it is the host's."""
        self._ioctl_value(lib.KX_SET_TSC_KHZ, khz)

    def kvmclock_ctrl(self) -> None:
        """Tell the guest's watchdog that it was paused (KVM_KVMCLOCK_CTRL); EINVAL if it has no kvmclock."""
        self._ioctl_value(lib.KX_KVMCLOCK_CTRL)

    def nmi(self) -> None:
        """Queue a non-maskable interrupt (KVM_NMI)."""
        self._ioctl_value(lib.KX_NMI)

    def smi(self) -> None:
        """Queue a system management interrupt (KVM_SMI, Cap.X86_SMM)."""
        self._ioctl_value(lib.KX_SMI)

    def interrupt(self, vector: int) -> None:
        """Inject external interrupt `vector` (0..255) when no irqchip is in the kernel (KVM_INTERRUPT).

        Raises:
            ValueError: The vector is not a byte.
        """
        if not 0 <= vector <= 255:
            raise ValueError(f"vector={vector} is not in 0..255")
        self._ioctl(lib.KX_INTERRUPT, bytearray(struct.pack("<I", vector)))

    def translate(self, linear_address: int) -> kvm.Translation:
        """Walk the guest's page tables for an address (KVM_TRANSLATE); look at ``valid`` first."""
        data = kvm.Translation(linear_address).pack()
        self._ioctl(lib.KX_TRANSLATE, data)
        return kvm.Translation.unpack(data)
