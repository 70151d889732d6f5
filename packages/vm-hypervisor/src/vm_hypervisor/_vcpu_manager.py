"""The threads that run a VM's vCPUs, and the protocol that starts, pauses and stops them.

One thread per vCPU, blocked in the backend without the GIL. Pausing is a protocol, not a flag
that is polled: the manager states what it wants, kicks every vCPU, and waits until each has
parked. A kick is never lost (`Vcpu.kick`), and `Kicked` is returned only when all accesses of
the guest are completed, so a parked vCPU's state may be read.
"""

import enum
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
from vm_device import Value, start_masked

import vm_hypervisor  # whose names load when they are used
from vm_hypervisor._errors import VcpuStateError
from vm_hypervisor._protocols import Vcpu, VmOps


class _Want(enum.Enum):
    """What the vCPU threads are asked to do; they compare it with what they are doing."""

    RUN = "running"
    PARK = "paused"
    END = "stopped"


@attrs.frozen(eq=False, repr=False)
class VcpuStop(Value):
    """Why a vCPU ended by itself.

    Args:
        index: the vCPU.
        exit: its last exit; None when an exception ended it.
        error: the exception that a device or the backend raised on its thread; None otherwise.
    """

    index: int
    exit: "vm_hypervisor.Exit | None"
    error: BaseException | None


class VcpuManager:
    """Run vCPUs in threads of their own until told otherwise."""

    def __init__(
        self,
        vcpus: Sequence[Vcpu],
        ops: Callable[[Vcpu], VmOps],
        on_stop: Callable[[VcpuStop], None],
        *,
        on_thread_start: Callable[[], None] | None = None,
        affinity: Mapping[int, frozenset[int]] | None = None,
    ) -> None:
        """Prepare the threads; none runs before `start`.

        Args:
            vcpus: at least one, each with its architectural start state set.
            ops: called once on each vCPU's thread; returns where its PIO and MMIO accesses go.
            on_stop: called on the vCPU's thread when it ends by itself (shutdown, failure, an
                exception in a device); must not wait for this manager.
            on_thread_start: called first on each thread (the backend's signal mask).
            affinity: host CPUs that a vCPU's thread may use, by vCPU index.

        Raises:
            ValueError: no vCPU.
        """
        if not vcpus:
            raise ValueError("vcpus: empty; a machine needs at least one vCPU")
        self._vcpus = tuple(vcpus)
        self._ops = ops
        self._on_stop = on_stop
        self._on_thread_start = on_thread_start
        self._affinity = dict(affinity or {})
        self._cond = threading.Condition()
        self._want = _Want.PARK
        self._parked = 0
        self._alive = 0
        self._threads: list[threading.Thread] = []
        self._first_run_ns: int | None = None

    @property
    def first_run_ns(self) -> int | None:
        """`time.monotonic_ns()` just before the first run of any vCPU; None before it."""
        return self._first_run_ns

    def start(self) -> None:
        """Start every vCPU.

        Raises:
            VcpuStateError: it was started before.
            RuntimeError: the host gives no more threads; those started have ended again.
        """
        with self._cond:
            if self._threads:
                raise VcpuStateError(
                    f"start: {len(self._threads)} vCPU threads exist already; resume() instead"
                )
            self._want = _Want.RUN
            self._alive = len(self._vcpus)
            self._threads = [
                threading.Thread(target=self._thread, args=(vcpu,), name=f"vcpu{vcpu.index}", daemon=True)
                for vcpu in self._vcpus
            ]
        self._start_threads()

    def _start_threads(self) -> None:
        try:
            for thread in self._threads:
                start_masked(thread)
        except BaseException:
            # A host out of threads: what runs already must not be left behind, nor waited for in vain.
            with self._cond:
                started = [thread for thread in self._threads if thread.ident is not None]
                self._alive -= len(self._threads) - len(started)
                self._threads = started
            self.stop()
            raise

    def pause(self, timeout: float | None = None) -> None:
        """Park every vCPU; on return none executes guest code and all accesses are completed.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            VcpuStateError: not running, called on a vCPU's thread, or overtaken by another thread's
                `resume` or `request_stop`, which is what holds.
            TimeoutError: some vCPU did not park in time; all are asked to run on.
        """
        self._refuse_own_thread("pause")
        with self._cond:
            self._require(_Want.RUN, "pause")
            self._want = _Want.PARK
        self._kick_all()
        with self._cond:
            self._cond.wait_for(lambda: self._want is not _Want.PARK or self._all_parked(), timeout)
            self._require(_Want.PARK, "pause")
            if self._all_parked():
                return
            missing = self._alive - self._parked
            self._want = _Want.RUN
            self._cond.notify_all()
        raise TimeoutError(f"pause: {missing} of {self._alive} vCPUs did not park within {timeout} s")

    def resume(self) -> None:
        """Let parked vCPUs run on.

        Raises:
            VcpuStateError: not paused.
        """
        with self._cond:
            self._require(_Want.PARK, "resume")
            self._want = _Want.RUN
            self._cond.notify_all()

    def request_stop(self) -> None:
        """Ask every vCPU to end, from any thread (a vCPU's own included); waits for nothing."""
        with self._cond:
            self._want = _Want.END
            self._cond.notify_all()
        self._kick_all()

    def stop(self) -> None:
        """End every vCPU and join its thread; harmless when it never ran.

        Raises:
            VcpuStateError: called on a vCPU's thread, which cannot wait for itself.
        """
        self._refuse_own_thread("stop")
        self.request_stop()
        for thread in self._threads:
            thread.join()

    def _refuse_own_thread(self, call: str) -> None:
        if threading.current_thread() in self._threads:
            raise VcpuStateError(f"{call}: called on a vCPU's own thread; use request_stop() there")

    def _require(self, state: _Want, call: str) -> None:
        if not self._threads or self._want is not state:
            now = self._want.value if self._threads else "not started"
            raise VcpuStateError(f"{call}: the vCPUs are {now}, not {state.value}")

    def _all_parked(self) -> bool:
        return self._parked >= self._alive

    def _kick_all(self) -> None:
        for vcpu in self._vcpus:
            vcpu.kick()

    def _thread(self, vcpu: Vcpu) -> None:
        # One place catches everything: an exception that only ended this thread would leave a
        # machine that looks alive with a CPU missing.
        exit_: vm_hypervisor.Exit | None = None
        error: BaseException | None = None
        try:
            _show_name()
            if self._on_thread_start is not None:
                self._on_thread_start()
            if vcpu.index in self._affinity:
                os.sched_setaffinity(0, self._affinity[vcpu.index])
            self._note_first_run()
            exit_ = self._run_until_stop(vcpu)
        except BaseException as caught:  # noqa: BLE001
            error = caught
        with self._cond:
            self._alive -= 1
            self._cond.notify_all()
        if exit_ is not None or error is not None:
            self._on_stop(VcpuStop(vcpu.index, exit_, error))

    def _note_first_run(self) -> None:
        with self._cond:
            if self._first_run_ns is None:
                self._first_run_ns = time.monotonic_ns()

    def _run_until_stop(self, vcpu: Vcpu) -> "vm_hypervisor.Exit | None":
        """Return the exit that ended the vCPU, or None when it was told to end."""
        run, ops = vcpu.run, self._ops(vcpu)
        while self._may_run():
            exit_ = run(ops)
            if not isinstance(exit_, vm_hypervisor.Kicked | vm_hypervisor.DebugStop):
                return exit_
        return None

    def _may_run(self) -> bool:
        """Park while that is wanted; False when the thread has to end."""
        with self._cond:
            if self._want is _Want.PARK:
                self._parked += 1
                self._cond.notify_all()
                self._cond.wait_for(lambda: self._want is not _Want.PARK)
                self._parked -= 1
            return self._want is _Want.RUN


def _show_name() -> None:
    """Tell the kernel this thread's name, for ps, top and taskset; Python before 3.14 keeps it to itself."""
    thread = threading.current_thread()
    with suppress(OSError):
        Path(f"/proc/self/task/{thread.native_id}/comm").write_text(thread.name)
