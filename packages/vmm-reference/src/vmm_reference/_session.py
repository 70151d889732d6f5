"""`vmm run` in the foreground: a machine, this process's signals, a serial console, an exit status."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Final

from acpi_tables import AcpiError
from linux_loader import LoaderError
from virtio_devices import VirtioDeviceError
from vm_device import VmDeviceError
from vm_hypervisor import HypervisorError
from vmm_memory import GuestMemoryError

from vmm_reference._config import VmConfig
from vmm_reference._errors import HostError, StateError
from vmm_reference._files import new_outputs_removed
from vmm_reference._machine import PlatformDevice
from vmm_reference._serial import SerialBackend, open_backend
from vmm_reference._signals import SIGNALS, EarlySignals, with_early_signals
from vmm_reference._vmm import End, EndReason, Vmm

STATUS: Final = {
    EndReason.POWEROFF: 0,
    EndReason.RESET: 3,
    EndReason.CRASH: 4,
    EndReason.FAILED: 5,
    EndReason.PANIC: 6,
    EndReason.STOPPED: 130,
}
_GIVE_UP_AFTER: Final = 2.0  # seconds for a console's reader to take the last output

# What the packages below refuse at creation: the user's options or host, not a bug of ours.
REFUSALS: Final = (
    AcpiError,
    GuestMemoryError,
    HypervisorError,
    LoaderError,
    OSError,
    VirtioDeviceError,
    VmDeviceError,
)


class _Session:
    """One machine and what this process has to do with it."""

    def __init__(self, config: VmConfig, devices: Sequence[PlatformDevice], early: EarlySignals) -> None:
        self._signal: int | None = None
        self._vmm: Vmm | None = None
        self._backend: SerialBackend | None = open_backend(config.serial, self._quit)
        try:
            self._vmm = Vmm(
                config,
                serial_out=None if self._backend is None else self._backend.write,
                devices=devices,
                host="emulated" if "VMM_TESTHOST" in os.environ else "kvm",
            )
            for number in SIGNALS:
                signal.signal(number, self._on_signal)
            if early.came is not None:
                self._on_signal(early.came, None)
        except BaseException:
            if self._backend is not None:
                self._backend.close()
            raise

    def _quit(self) -> None:
        if self._vmm is not None:
            self._vmm.request_end(EndReason.STOPPED, "Ctrl-A x")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        assert self._vmm is not None
        self._vmm.request_end(EndReason.STOPPED, signal.Signals(number).name)

    def run(self) -> int:
        """Boot, wait for the end, and return the exit status."""
        vmm = self._vmm
        assert vmm is not None
        try:
            self._attach_serial(vmm)
            # What exists now lives as long as the machine: no collection need look at it again, and none
            # of the first ones holds up a device.
            gc.freeze()
            gc.enable()
            with suppress(StateError):  # a signal has ended it already
                vmm.boot()
            end = vmm.wait()
        finally:
            self._close(vmm)
        assert end is not None
        return self._status(end)

    def _attach_serial(self, vmm: Vmm) -> None:
        port = vmm.machine.serial
        if self._backend is not None and port is not None:
            port.on_rx_space = self._backend.resume_input
            self._backend.attach(vmm.machine.events, port)

    def _close(self, vmm: Vmm) -> None:
        """Close the machine first: its last output still goes to the backend."""
        if self._backend is None:
            vmm.close()
            return
        # A vCPU that writes to a terminal nobody reads would never see that it should end, and holds
        # the port that the loop feeds: even to detach waits for it.
        give_up = threading.Timer(_GIVE_UP_AFTER, self._backend.hang_up)
        give_up.start()
        try:
            self._backend.detach()
            vmm.close()
        finally:
            give_up.cancel()
            give_up.join()
            self._backend.close()

    def _status(self, end: End) -> int:
        if end.reason in {EndReason.CRASH, EndReason.FAILED, EndReason.PANIC}:
            print(f"vmm: {end.reason.value}: {end.detail}", file=sys.stderr)
        if self._signal is not None and end.reason is EndReason.STOPPED:
            return 128 + self._signal
        return STATUS[end.reason]


def _build(config: VmConfig, devices: Sequence[PlatformDevice], early: EarlySignals) -> _Session:
    with new_outputs_removed(config, only_empty=False):
        try:
            return _Session(config, devices, early)
        except REFUSALS as error:
            raise HostError(str(error)) from error


def run(config: VmConfig, devices: Sequence[PlatformDevice] = ()) -> int:
    """Boot `config` on this host's KVM and wait for its end; return the exit status.

    Args:
        config: the machine.
        devices: devices of the caller's own.

    Raises:
        VmmError: it could not be created; nothing is left behind.
    """
    return with_early_signals(lambda early: _build(config, devices, early).run())
