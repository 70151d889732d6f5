"""KVM's exits as the neutral ones; loaded with the first that reaches a caller of `Vcpu.run`."""

from typing import Final

import kvm_ioctls as kvm

from vm_hypervisor import _exits as exits

__all__ = ("failure_reason", "neutral")

_EVENTS: Final = {
    1: exits.SystemEventKind.SHUTDOWN,
    2: exits.SystemEventKind.RESET,
    3: exits.SystemEventKind.CRASH,
}


def neutral(exit_: "kvm.Exit") -> exits.Exit:  # noqa: PLR0911 - one arm an exit
    """Return what a caller of `Vcpu.run` sees of KVM's exit."""
    match exit_:
        case kvm.IoIn(port, size, count):
            return exits.PioRead(port, size, count)
        case kvm.IoOut(port, size, _, data):
            return exits.PioWrite(port, size, data)
        case kvm.MmioRead(addr, size):
            return exits.MmioRead(addr, size)
        case kvm.MmioWrite(addr, _, data):
            return exits.MmioWrite(addr, data)
        case kvm.Hlt():
            return exits.Halt()
        case kvm.Shutdown():
            return exits.Shutdown()
        case kvm.SystemEvent(code, _):
            return exits.SystemEvent(_EVENTS.get(code, exits.SystemEventKind.OTHER), code)
        case kvm.IoapicEoi(vector):
            return exits.IoapicEoi(vector)
        case kvm.Intr():
            return exits.Kicked()
        case kvm.Debug() as stop:
            return exits.DebugStop(stop.pc)
        case other:
            return exits.Failure(failure_reason(other))


def failure_reason(exit_: "kvm.Exit") -> str:
    """Say in words why KVM cannot go on."""
    match exit_:
        case kvm.FailEntry(reason, cpu):
            return f"the processor refused to enter the guest (hardware reason {reason:#x} on host CPU {cpu})"
        case kvm.InternalError(suberror, data, insn):
            words = " ".join(f"{word:#x}" for word in data)
            return f"KVM internal error {suberror} (data {words}; instruction {insn.hex(' ') or 'unknown'})"
    return f"unexpected exit {exit_!r}"
