"""With whom the vCPU threads of a machine share the cores of the host."""

import enum
import errno
import threading

import kvm_ioctls as kvm

from vm_hypervisor._errors import UnsupportedFeatureError


class CoreScheduling(enum.Enum):
    """Which threads may run beside a vCPU on one core of the host: any, the machine's vCPUs, none."""

    OFF = "off"
    VM = "vm"
    VCPU = "vcpu"


class CoreSharing:
    """Core scheduling for the threads of a machine (PR_SCHED_CORE); each calls `join` before it runs a vCPU.

    Where no core has two threads it does nothing: there is nobody to share with.

    Args:
        mode: with whom.

    Raises:
        UnsupportedFeatureError: the kernel has no core scheduling; nothing was changed.
    """

    def __init__(self, mode: CoreScheduling) -> None:
        self._mode = mode
        self._lock = threading.Lock()
        self._first = 0  # the thread whose cookie is the machine's
        self._needed = mode is not CoreScheduling.OFF and _has_siblings()

    def join(self) -> None:
        """Put the calling thread among those of the machine, or alone.

        Raises:
            kvm_ioctls.KvmOSError: the kernel refused.
        """
        if not self._needed:
            return
        with self._lock:
            kvm.share_core(self._first)
            if self._mode is CoreScheduling.VM:
                self._first = self._first or threading.get_native_id()


def _has_siblings() -> bool:
    try:
        kvm.core_cookie()
    except kvm.KvmOSError as error:
        if error.errno == errno.ENODEV:
            return False
        raise UnsupportedFeatureError(
            f"core scheduling: {error}; it needs Linux 5.14 or later with CONFIG_SCHED_CORE: boot such a "
            "kernel, switch SMT off (/sys/devices/system/cpu/smt/control), or leave core scheduling off"
        ) from None
    return True
