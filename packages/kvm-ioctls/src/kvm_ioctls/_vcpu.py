"""The vCPU file descriptor: running, kicking, answering exits."""

from __future__ import annotations

import errno
import os
import warnings
import weakref
from collections.abc import Callable
from typing import Self, final

import kvm_ioctls as kvm  # whose names load when they are used
from kvm_ioctls._aarch64._vcpu import Arm64Vcpu
from kvm_ioctls._errors import ClosedError, ForkedError, KvmOSError, VcpuBusyError
from kvm_ioctls._fd import generation
from kvm_ioctls._ffi import CData, buffer, check, ffi, lib
from kvm_ioctls._native import NativeExits
from kvm_ioctls._numbers import EXIT_INTR, EXIT_IO, EXIT_MMIO
from kvm_ioctls._record import IoRecord
from kvm_ioctls._riscv64._vcpu import Riscv64Vcpu
from kvm_ioctls._signals import install_kick
from kvm_ioctls._wire import check_u64
from kvm_ioctls._x86_64._vcpu import X86Vcpu

__all__ = ("VcpuFd",)

_IO = frozenset((EXIT_IO, EXIT_MMIO))
_NO_TABLE = ffi.NULL
_MOST_TRACED = 1 << 20
# Bound once: an attribute lookup on lib costs a good part of a call.
_run = lib.kvmx_vcpu_run


@final
class VcpuFd(X86Vcpu, Arm64Vcpu, Riscv64Vcpu):
    """A virtual CPU; made by ``VmFd.create_vcpu``.

    One thread at a time may be inside a vCPU (running it or in one of its calls); another one's call
    raises VcpuBusyError and changes nothing. ``kick``, ``stats`` and ``closed`` may be used from any
    thread at any time.
    """

    def __init__(self, fd: int, vcpu_id: int, run_size: int, xsave_size: int, nested_size: int) -> None:
        self.id = vcpu_id
        self._fd = fd
        self._born = generation()
        self._subject = f"vCPU {vcpu_id}"
        self._xsave_size = max(4096, xsave_size)
        self._nested_size = nested_size
        self._vcpu: CData = ffi.NULL
        self._open = False
        self._trace: tuple[Callable[[bytes], object], CData] | None = None
        ret = ffi.new("struct kvmx_vcpu **")
        try:
            install_kick()
            check(lib.kvmx_vcpu_create(fd, run_size, ret), "mmap of the run page", self._subject)
        except BaseException:
            os.close(fd)
            raise
        # SAFETY: the C object is freed with the last reference to this cdata, never by close(), so a
        # thread that is just entering a call still finds it and learns that it is closed.
        self._vcpu = ffi.gc(ret[0], lib.kvmx_vcpu_destroy)
        self._open = True
        _live.add(self)
        # SAFETY: both point into the C object, which _vcpu keeps alive.
        self._stats = lib.kvmx_vcpu_stats(self._vcpu)
        self.io = IoRecord(self._vcpu, lib.kvmx_vcpu_exit(self._vcpu), self._subject)

    def run(self, native: NativeExits | None = None) -> kvm.Exit:
        """Run the guest until an exit that `native` does not answer (KVM_RUN, with the GIL released).

        An unanswered IoIn or MmioRead gives the guest all-ones.

        Args:
            native: Ranges answered in C.

        Returns:
            The exit; ``Intr`` after a kick.

        Raises:
            KvmOSError: KVM_RUN failed.
            KvmAbiError: The run page was malformed.
            KvmStateError: Closed, forked, or another thread is inside.
        """
        if self.run_raw(native) != EXIT_INTR:
            return self.io.exit()
        from kvm_ioctls._exits import Intr  # noqa: PLC0415 - as IoRecord.exit does

        return Intr()

    def run_raw(self, native: NativeExits | None = None) -> int:
        """As ``run``, but build no object: return the KVM_EXIT_* number and leave the rest in ``io``.

        Returns:
            An ``ExitReason`` number; ``ExitReason.INTR`` after a kick.

        Raises:
            KvmOSError: KVM_RUN failed.
            KvmAbiError: The run page was malformed.
            KvmStateError: Closed, forked, or another thread is inside.
        """
        # Nothing is asked about forks here: C refuses what was abandoned in a child, and _fail says so.
        table = _NO_TABLE if native is None else native.pointer
        while True:
            ret = _run(self._vcpu, table, 0)
            if ret >= 0:
                return ret
            if ret == -errno.EINTR:
                return EXIT_INTR
            if ret == -errno.ENOBUFS and self._trace is not None:
                self._hand_over_trace()
            # A signal that is not a kick: back through the interpreter, so that Ctrl-C gets its turn.
            elif ret != -errno.ERESTART:
                self._fail(ret, lib.KX_RUN)

    def complete_pending(self, native: NativeExits | None = None) -> kvm.Exit | None:
        """Let a pending port or MMIO access finish, without running guest code.

        For reading state after an exit other than ``Intr`` (which already implies it). One instruction
        may have several accesses; call again until it gives None.

        Returns:
            None when nothing is pending, else the next access to answer.

        Raises:
            KvmOSError: KVM_RUN failed.
            KvmStateError: Closed, forked, or another thread is inside.
        """
        self._check_usable()
        table = ffi.NULL if native is None else native.pointer
        self._hand_over_trace()
        # An access may have parts that C answers, and each is a record.
        while (ret := lib.kvmx_vcpu_run(self._vcpu, table, 1)) == -errno.ENOBUFS and self._trace is not None:
            self._hand_over_trace()
        if ret >= 0:
            return self.io.exit()
        if ret != -errno.EINTR:
            self._fail(ret, lib.KX_RUN)
        return None

    def kick(self) -> None:
        """Make ``run`` return ``Intr`` soon, or the next one at once; never lost, never counted twice.

        Kicks that come before ``run`` has reported one are the same kick. After close(), nothing.

        Raises:
            ForkedError: In a forked child.
        """
        if self._born != generation():
            self._check_usable()
        lib.kvmx_vcpu_kick(self._vcpu)

    def set_io_result(self, data: bytes) -> None:
        """Answer the last IoIn or MmioRead.

        Args:
            data: Exactly size * count bytes, little-endian.

        Raises:
            ValueError: Another length.
            KvmOSError: ENODATA when the last exit was no read.
        """
        # SAFETY: C compares the length with the exit's before it copies; `data` outlives the call.
        ret = lib.kvmx_vcpu_set_data(self._vcpu, ffi.from_buffer(data), len(data))
        if ret == -errno.EMSGSIZE:
            raise ValueError(
                f"set_io_result got {len(data)} bytes, the exit wants {self.io.size * self.io.count}"
            )
        if ret:
            self._fail(ret, "set_io_result")

    def set_msr_result(self, data: int = 0, *, error: bool = False) -> None:
        """Answer the last RdMsr or WrMsr; `error` raises #GP in the guest.

        Raises:
            ValueError: `data` does not fit 64 bits.
            KvmOSError: ENODATA when the last exit was neither.
        """
        check_u64(data=data)
        ret = lib.kvmx_vcpu_reply_msr(self._vcpu, int(error), data)
        if ret:
            self._fail(ret, "set_msr_result")

    def set_exit_result(self, value: int, second: int = 0) -> None:
        """Answer the last call that waits for a number.

        Hypercall, XenHcall, HypervHcall, HypervSyndbg, RiscvSbi, RiscvCsr, Tdx and SnpReqCerts do.

        Args:
            value: What the guest sees: the result, the status, the SBI error, the CSR's old value.
            second: The value of an SBI call; the first operand of a TDVMCALL's answer.

        Raises:
            ValueError: A number does not fit 64 bits.
            KvmOSError: ENODATA when the last exit waits for no such answer.
        """
        check_u64(value=value, second=second)
        ret = lib.kvmx_vcpu_reply(self._vcpu, value, second)
        if ret:
            self._fail(ret, "set_exit_result")

    def set_hypercall_result(self, value: int) -> None:
        """As ``set_exit_result``, for a Hypercall: the guest sees `value` in RAX or X0.

        Raises:
            ValueError: It does not fit 64 bits.
            KvmOSError: ENODATA when the last exit waits for no such answer.
        """
        self.set_exit_result(value)

    def request_interrupt_window(self, on: bool = True) -> None:
        """Ask for an IrqWindowOpen exit as soon as the guest can take an interrupt (no in-kernel irqchip).

        Raises:
            KvmStateError: Closed, or another thread is inside.
        """
        ret = lib.kvmx_vcpu_request_window(self._vcpu, int(on))
        if ret:
            self._fail(ret, "request_interrupt_window")

    def ready_for_interrupt(self) -> bool:
        """Say whether the guest could take an interrupt at the last exit.

        Raises:
            KvmStateError: Closed, or another thread is inside.
        """
        ret = lib.kvmx_vcpu_ready(self._vcpu)
        if ret < 0:
            self._fail(ret, "ready_for_interrupt")
        return bool(ret & 1)

    def map_dirty_ring(self, size: int) -> kvm.DirtyRing:
        """Map this vCPU's ring of dirty pages; `size` bytes as the VM's capability was enabled with.

        Raises:
            ValueError: `size` is not a power of two from a page to 1 MiB.
            OSError: The VM has no dirty rings, or of another size.
            KvmStateError: Closed or forked.
        """
        return kvm.DirtyRing(self.fileno(), size, self._subject)

    def map_coalesced_ring(self) -> kvm.CoalescedRing:
        """Map the ring of coalesced writes, which all vCPUs of the VM share.

        Raises:
            OSError: The kernel has none (Cap.COALESCED_MMIO).
            KvmStateError: Closed or forked.
        """
        return kvm.CoalescedRing(self.fileno(), self._subject)

    def trace_exits(self, sink: Callable[[bytes], object] | None, *, room: int = 4096) -> None:
        """Hand a record of each return of KVM_RUN to `sink`, up to `room` at a time; with None no longer.

        Before ``run`` would enter the guest without room for one more, it calls `sink`, whose exceptions come
        out of it: nothing is lost. An earlier trace is ended; end the last one before ``close()``.

        Args:
            sink: Takes whole records, for ``traced_exits``.
            room: Records, 1..2^20.

        Raises:
            ValueError: `room` is out of range; nothing was changed.
            KvmStateError: Closed, forked, or another thread is inside.
        """
        if not 1 <= room <= _MOST_TRACED:
            raise ValueError(f"room={room} is not in 1..{_MOST_TRACED}")
        self._check_usable()
        self._hand_over_trace()
        # First what may fail here: a trace that C keeps and nobody empties would end every run.
        trace = None if sink is None else (sink, ffi.new("struct kvmx_traced[]", room))
        ret = lib.kvmx_vcpu_trace(self._vcpu, 0 if sink is None else room)
        if ret:
            self._fail(ret, "trace_exits")
        self._trace = trace

    def _hand_over_trace(self) -> None:
        if self._trace is None:
            return
        sink, records = self._trace
        size = ffi.sizeof("struct kvmx_traced")
        # SAFETY: `records` has the room that C was given for its own.
        count = lib.kvmx_vcpu_trace_take(self._vcpu, records, len(records))
        if count < 0:
            self._fail(count, "trace_exits")
        if count:
            sink(bytes(ffi.buffer(records, count * size)))

    def stats(self) -> kvm.RunStats:
        """Return the counters; from any thread, a moment old when the vCPU is running."""
        raw = self._stats
        exits = {reason: count for reason, count in enumerate(raw.exits) if count}
        return kvm.RunStats(exits, raw.native, raw.kicks, raw.interrupted, raw.waits)

    def fileno(self) -> int:
        """Return the descriptor, which stays owned by this object.

        Raises:
            KvmStateError: Closed or forked.
        """
        self._check_usable()
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether ``close()`` has succeeded."""
        return not self._open

    def close(self) -> None:
        """Unmap the run page and close the descriptor; a second call does nothing.

        Raises:
            VcpuBusyError: A thread is running it or is inside one of its calls; nothing was changed.
        """
        if not self._open:
            return
        if self._born == generation():
            ret = lib.kvmx_vcpu_close(self._vcpu)
            if ret == -errno.EDEADLK:
                self._fail(ret, "close")
        self._open = False

    def __enter__(self) -> Self:
        self._check_usable()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False) and self._born == generation():
            warnings.warn(f"{self._subject} was never closed", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"<VcpuFd {self.id} fd={self._fd if self._open else -1}>"

    def _check_usable(self) -> None:
        if self._born != generation():
            raise ForkedError(f"{self._subject} belongs to the parent process, which keeps running it")
        if not self._open:
            raise ClosedError(f"{self._subject} is closed")

    def _fail(self, ret: int, what: int | str) -> None:
        if ret == -errno.EDEADLK:
            raise VcpuBusyError(self.id, lib.kvmx_vcpu_user(self._vcpu))
        if ret == -errno.EBADF:
            self._check_usable()
            raise ClosedError(f"{self._subject} is closed")
        check(ret, what, self._subject)
        raise KvmOSError(-ret, str(what), self._subject)

    def _ioctl(self, number: int, data: bytearray) -> int:
        self._check_usable()
        ret = lib.kvmx_vcpu_ioctl(self._vcpu, number, buffer(data))
        if ret < 0:
            self._fail(ret, number)
        return ret

    def _ioctl_value(self, number: int, value: int = 0) -> int:
        check_u64(argument=value)
        self._check_usable()
        ret = lib.kvmx_vcpu_ioctl_value(self._vcpu, number, value)
        if ret < 0:
            self._fail(ret, number)
        return ret


_live: weakref.WeakSet[VcpuFd] = weakref.WeakSet()


def _abandon_all() -> None:
    for vcpu in list(_live):
        # SAFETY: the run page is not mapped here (MADV_DONTFORK); from now on C refuses to touch it.
        lib.kvmx_vcpu_abandon(vcpu._vcpu)


# Checked once per fork and not once per call: answering a read is on the path of every device access.
os.register_at_fork(after_in_child=_abandon_all)
