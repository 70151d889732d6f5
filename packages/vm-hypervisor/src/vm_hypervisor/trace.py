"""A machine's exits as a file that Perfetto shows.

The core in C records each return of KVM_RUN; a full buffer goes to an unnamed file as it is. What costs time,
names and protobuf, waits until the machine has ended.
"""

import functools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from kvm_ioctls import TRACED_EXIT_BYTES, ExitReason, RunEnd, TracedExit, traced_exits

from vm_hypervisor._kvm_core import KvmVcpuCore
from vm_hypervisor._perfetto import SliceFile

__all__ = ("ExitTrace",)

_log = logging.getLogger(__name__)

_PIECE: Final = 1024 * TRACED_EXIT_BYTES
_EVENTS: Final = 4096  # encoded at most at a time: a guest may use addresses without end
_REASONS: Final = frozenset(ExitReason)
_ADDRESSES: Final = {ExitReason.IO: "port", ExitReason.MMIO: "address"}


class ExitTrace:
    """Trace the exits of `vcpus` from now on until `close`.

    Each is a slice on its vCPU's track, from the end of one KVM_RUN to the beginning of the next: the time
    outside the guest. Its name is the exit's reason, its category what became of it (`RunEnd`); arguments
    are port or address, width and direction. Kicks, signals and waits are slices too, so there are as many
    slices as the run loop has counted.
    """

    def __init__(self, path: Path, vcpus: Sequence[KvmVcpuCore]) -> None:
        """Make the file and begin; no vCPU may run.

        Args:
            path: where the trace goes; written by `close`.
            vcpus: of one machine, as they were created.

        Raises:
            OSError: it cannot be made; nothing is traced.
        """
        # For its owner alone: what a guest does is nobody else's business.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._out: BinaryIO = os.fdopen(os.open(path, flags, 0o600), "wb")
        self._spools: list[_Spool] = []
        try:
            for vcpu in vcpus:
                self._spools.append(_Spool(vcpu, path.parent))
                vcpu.fd.trace_exits(self._spools[-1].take)
        except BaseException:
            try:
                self._stop()
            finally:
                self._close_files()
            raise

    def close(self) -> None:
        """Write the trace; the vCPUs have stopped and are not closed yet.

        What the disk has no room for is left out, with a warning.

        Raises:
            kvm_ioctls.KvmStateError: a vCPU was closed before, or runs; what was open is closed all the same.
        """
        now_ns = time.monotonic_ns()
        try:
            self._stop()
            file = SliceFile(self._out, "vmm", os.getpid())
            for spool in self._spools:
                _write(file, spool, now_ns)
            self._out.flush()
        except OSError as error:
            _log.warning("trace: the rest is lost: %s", error.strerror)
        finally:
            self._close_files()

    def _stop(self) -> None:
        with ExitStack() as every:  # also those behind one that refuses
            for spool in self._spools:
                every.callback(spool.vcpu.fd.trace_exits, None)

    def _close_files(self) -> None:
        for spool in self._spools:
            spool.close()
        try:
            self._out.close()
        except OSError as error:
            _log.warning("trace: the rest is lost: %s", error.strerror)


class _Spool:
    """The records of one vCPU, on disk."""

    def __init__(self, vcpu: KvmVcpuCore, folder: Path) -> None:
        self.vcpu = vcpu
        self._lost = 0
        try:
            # Unbuffered: what it takes is there, and what it does not take is known at once.
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by close()
        except OSError:  # the trace may be written there, other files not
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115

    def take(self, data: bytes) -> None:
        """Keep whole records; a full disk must not end the machine."""
        if not self._lost:
            taken = 0
            try:
                taken = self._file.write(data)
            except OSError as error:
                _log.warning("trace: vCPU %d is no longer traced: %s", self.vcpu.index, error.strerror)
            data = data[taken - taken % TRACED_EXIT_BYTES :]
        self._lost += len(data) // TRACED_EXIT_BYTES

    def records(self) -> Iterator[TracedExit]:
        """Read them from the first on."""
        if self._lost:
            _log.warning("trace: %d exits of vCPU %d are missing", self._lost, self.vcpu.index)
        self._file.seek(0)
        while data := self._file.read(_PIECE):
            yield from traced_exits(data[: len(data) - len(data) % TRACED_EXIT_BYTES])

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


def _write(file: SliceFile, spool: _Spool, end_ns: int) -> None:
    track = file.add_track(f"vcpu{spool.vcpu.index}")
    event = _events(track)
    last: TracedExit | None = None
    for record in spool.records():
        if last is not None:
            file.add(track, event(last[2:]), last.left_ns, record.entered_ns)
        last = record
    if last is not None:  # it was never entered again
        file.add(track, event(last[2:]), last.left_ns, max(end_ns, last.left_ns))


def _events(track: int) -> Callable[[tuple[int, ...]], bytes]:
    @functools.lru_cache(_EVENTS)
    def event(what: tuple[int, ...]) -> bytes:
        addr, reason, elements, end, is_write, size = what
        how = RunEnd(end)
        category = how.name.lower()
        if how not in {RunEnd.EXIT, RunEnd.NATIVE}:
            return SliceFile.event(track, category, category, {})
        name = ExitReason(reason).name if reason in _REASONS else f"exit {reason}"
        if not elements:
            return SliceFile.event(track, name, category, {"value": addr} if addr else {})
        access = {"access": "write" if is_write else "read", "bytes": size, "elements": elements}
        return SliceFile.event(track, name, category, {_ADDRESSES[ExitReason(reason)]: addr, **access})

    return event
