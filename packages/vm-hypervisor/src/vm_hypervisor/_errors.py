"""What can go wrong between a VMM and its hypervisor.

```
HypervisorError                      every error this package raises itself
├── HypervisorUnavailableError       no usable hypervisor on this host (names the cure)
├── UnsupportedFeatureError          the hypervisor lacks what was asked of it (names the cure)
├── SlotError                        a memory slot that the hypervisor refused or that is unknown
├── RouteError                       an interrupt route that is unknown, doubled or out of range
├── VcpuStateError                   a vCPU call that its state forbids; nothing changed
└── CpuidError (ValueError)          a topology, CPUID dump or CPU template that is impossible or does not fit
```

Plain argument mistakes are `ValueError`s. A vCPU that the hypervisor cannot run on is no error of the
caller but an exit, `Failure`.
"""


class HypervisorError(Exception):
    """Root of this package's errors."""


class HypervisorUnavailableError(HypervisorError):
    """No usable hypervisor: the message says what was tried and how to mend it."""


class UnsupportedFeatureError(HypervisorError):
    """This host's hypervisor lacks a feature that was asked for; nothing was created."""


class SlotError(HypervisorError):
    """A memory slot was refused or is unknown; the slots are as before."""

    def __init__(self, slot: int, base: int, size: int, reason: str) -> None:
        """Name the slot (number), its guest base (address) and size (bytes), and why."""
        self.slot, self.base, self.size = slot, base, size
        super().__init__(f"memory slot {slot} (guest {base:#x}, {size:#x} bytes): {reason}")


class RouteError(HypervisorError):
    """An interrupt route was refused; the routing table is as before."""


class VcpuStateError(HypervisorError):
    """A call that the vCPU threads' state forbids; nothing changed."""


class CpuidError(HypervisorError, ValueError):
    """A topology, CPUID dump or CPU template is impossible, or does not fit this processor."""
