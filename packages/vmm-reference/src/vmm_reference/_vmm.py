"""A virtual machine from start to end: threads, lifecycle, events."""

import enum
import logging
import select
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import attrs
import vm_hypervisor as hv  # whose names load when they are used
from vm_device import BootTimer, EventFd, Lifecycle, LifecycleState, PvpanicEvent, Value
from vm_hypervisor import VcpuManager, VcpuStateError, VcpuStop

from vmm_reference._arch.base import GuestRequests
from vmm_reference._config import VmConfig
from vmm_reference._errors import StateError
from vmm_reference._events import EventMonitor
from vmm_reference._machine import Machine, PlatformDevice
from vmm_reference._open import core_sharing

if TYPE_CHECKING:
    from vm_hypervisor.trace import ExitTrace

_log = logging.getLogger(__name__)

_SOFT_OFF: Final = 5
_MOST_MARKS: Final = 64


class EndReason(enum.Enum):
    """Why a machine ended."""

    POWEROFF = "poweroff"
    RESET = "reset"
    CRASH = "crash"
    PANIC = "panic"
    FAILED = "failed"
    STOPPED = "stopped"


@attrs.frozen(eq=False, repr=False)
class End(Value):
    """How a machine ended: the `reason`, and `detail`, for a failure what failed."""

    reason: EndReason
    detail: str = ""


class Vmm:
    """One virtual machine.

    `boot()`, then `wait()`; `pause()` and `resume()` in between; `close()` (or leaving the `with`
    block) gives everything back, whatever happened before.
    """

    def __init__(
        self,
        config: VmConfig,
        *,
        serial_out: Callable[[bytes], None] | None = None,
        devices: Sequence[PlatformDevice] = (),
        host: str = "kvm",
    ) -> None:
        """Create the machine; nothing runs yet.

        Args:
            config: what it is made of.
            serial_out: takes what the guest sends to its serial port; None leaves the port out.
            devices: devices of the caller's own, beside the standard ones.
            host: what the event "starting" names as the host.

        Raises:
            ConfigError: an option cannot be; nothing is left open.
            vm_hypervisor.HypervisorError, linux_loader.LoaderError, vmm_memory.GuestMemoryError:
                from the package that refused; nothing is left open.
        """
        self._end: End | None = None
        self._end_lock = threading.Lock()
        self._marks = 0
        self._crash_noted = False
        self._lifecycle = Lifecycle("vmm")
        self._monitor = EventMonitor.open(config.event_monitor)
        self._ended = EventFd()
        self._monitor.emit("vmm", "starting", {"host": host})
        try:
            self._cores = core_sharing(config.cpus)
            requests = GuestRequests(
                self._on_reset,
                self._on_sleep,
                self._on_boot_mark,
                self._on_panic,
                self._on_device_event,
            )
            self.machine = Machine(config, requests, serial_out=serial_out, devices=devices)
            self._trace = None if config.trace is None else _trace(config.trace, self.machine)
        except BaseException:
            self._monitor.close()
            self._ended.close()
            raise
        self._vcpus = VcpuManager(
            self.machine.vcpus,
            lambda vcpu: self.machine.io_reader(self.machine.vcpus[vcpu.index]),
            self._on_vcpu_stop,
            on_thread_start=self._prepare_vcpu_thread,
            affinity=config.cpus.affinity,
        )

    def _prepare_vcpu_thread(self) -> None:
        self.machine.hypervisor.prepare_vcpu_thread()
        self._cores.join()

    @property
    def state(self) -> LifecycleState:
        """Where the machine stands."""
        return self._lifecycle.state

    def boot(self) -> None:
        """Start the vCPUs.

        Raises:
            StateError: it was booted before.
        """
        self._step(LifecycleState.RUNNING, "boot", LifecycleState.CREATED)
        self._monitor.emit("vm", "booting")
        self.machine.events.start()
        self._vcpus.start()
        self._monitor.emit("vm", "booted")

    def pause(self) -> None:
        """Stop every vCPU where it is; devices finish what is in flight.

        Raises:
            StateError: not running, or the machine ended meanwhile.
        """
        self._step(LifecycleState.PAUSED, "pause", LifecycleState.RUNNING)
        self._monitor.emit("vm", "pausing")
        try:
            self._vcpus.pause()
        except VcpuStateError:
            self._refuse_ended("pause")  # the guest's own end came first
            raise
        for device in self.machine.virtio:
            device.pause()
        self._monitor.emit("vm", "paused")

    def resume(self) -> None:
        """Let a paused machine run on.

        Raises:
            StateError: not paused.
        """
        self._step(LifecycleState.RUNNING, "resume", LifecycleState.PAUSED)
        self._monitor.emit("vm", "resuming")
        for device in self.machine.virtio:
            device.resume()
        self._vcpus.resume()
        self._monitor.emit("vm", "resumed")

    def _refuse_ended(self, call: str) -> None:
        if self._end is not None:
            raise StateError(f"{call}: the machine has ended ({self._end.reason.value})")

    def _step(self, target: LifecycleState, call: str, only_from: LifecycleState) -> None:
        self._refuse_ended(call)
        if self.state is not only_from:
            raise StateError(f"{call}: the machine is {self.state.value}, not {only_from.value}")
        self._lifecycle.to(target)

    def request_end(self, reason: EndReason, detail: str = "") -> None:
        """End the machine, from any thread or signal handler; the first reason counts."""
        # A signal handler may interrupt its own thread inside this lock: never wait for it.
        if self._end_lock.acquire(blocking=False):
            self._end = End(reason, detail)
            self._ended.write()
            self._vcpus.request_stop()

    def wait(self, timeout: float | None = None) -> End | None:
        """Wait until the machine ends.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            How it ended; None when `timeout` passed first.
        """
        # Not threading.Event: a signal handler that sets one while this thread enters its wait
        # would wait for a lock that this thread holds.
        poll = select.poll()
        if self._end is None:
            poll.register(self._ended, select.POLLIN)
            poll.poll(None if timeout is None else timeout * 1000)
        return self._end

    def close(self) -> None:
        """Stop the vCPUs, join every thread, give everything back; harmless when repeated."""
        if self.state is LifecycleState.CLOSED:
            return
        self.request_end(EndReason.STOPPED)
        self._vcpus.stop()
        if self._trace is not None:
            self._trace.close()
        if self.state is LifecycleState.RUNNING:
            self._lifecycle.to(LifecycleState.PAUSED)
        self._lifecycle.to(LifecycleState.CLOSED)
        assert self._end is not None
        self.machine.close()
        self._monitor.emit("vm", "shutdown", {"reason": self._end.reason.value, "detail": self._end.detail})
        self._monitor.emit("vmm", "shutdown")
        self._monitor.close()
        self._ended.close()

    def __enter__(self) -> "Vmm":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_reset(self) -> None:
        self._monitor.emit("vm", "reset-requested")
        self.request_end(EndReason.RESET)

    def _on_sleep(self, state: int) -> None:
        if state == _SOFT_OFF:
            self.request_end(EndReason.POWEROFF)
        else:
            _log.warning("the guest asked for sleep state S%d, which this machine does not have", state)

    def _on_panic(self, event: PvpanicEvent) -> None:
        if event & PvpanicEvent.PANICKED:
            self._monitor.emit("vm", "panic")
            self.request_end(EndReason.PANIC, "the guest's kernel panicked")
        elif event & PvpanicEvent.SHUTDOWN:
            self.request_end(EndReason.POWEROFF)
        else:
            self._crash_loaded()

    def _crash_loaded(self) -> None:
        """A crash kernel takes over: worth a record, and no end."""
        if not self._crash_noted:  # a guest can say it without end
            self._crash_noted = True
            self._monitor.emit("vm", "crash-loaded")

    def _on_device_event(self, device: str, event: str, reason: str) -> None:
        self._monitor.emit(device, event, {"reason": reason})

    def _on_boot_mark(self, when_ns: int, value: int) -> None:
        # What a guest can write without end must not fill the disk that the events go to.
        self._marks += 1
        if self._marks > _MOST_MARKS:
            return
        start = self._vcpus.first_run_ns
        assert start is not None
        seconds = (when_ns - start) / 1e9
        event = "userspace-reached" if value == BootTimer.USERSPACE else "boot-mark"
        self._monitor.emit("vm", event, {"seconds": seconds, "value": value})

    def _on_vcpu_stop(self, stop: VcpuStop) -> None:
        match stop.exit:
            case hv.Shutdown():
                self.request_end(EndReason.CRASH, f"triple fault on vCPU {stop.index}")
            case hv.SystemEvent(hv.SystemEventKind.SHUTDOWN, _):
                self.request_end(EndReason.POWEROFF)
            case hv.SystemEvent(hv.SystemEventKind.RESET, _):
                self._on_reset()
            case hv.SystemEvent(_, code):
                self.request_end(EndReason.CRASH, f"system event {code} on vCPU {stop.index}")
            case hv.Halt():
                self.request_end(EndReason.CRASH, f"vCPU {stop.index} halted for ever")
            case hv.Failure(reason):
                self.request_end(EndReason.FAILED, f"vCPU {stop.index}: {reason}")
            case other:
                detail = f"vCPU {stop.index}: unexpected exit {other!r}"
                if stop.error is not None:
                    _log.debug("%s", "".join(traceback.format_exception(stop.error)))
                    detail = f"vCPU {stop.index}: {type(stop.error).__name__}: {stop.error}"
                self.request_end(EndReason.FAILED, detail)


def _trace(path: Path, machine: Machine) -> "ExitTrace":
    """Trace a machine from its first exit on; when that fails it is closed."""
    from vm_hypervisor.trace import ExitTrace  # noqa: PLC0415 - few need it

    try:
        return ExitTrace(path, machine.vcpus)
    except BaseException:
        machine.close()
        raise
