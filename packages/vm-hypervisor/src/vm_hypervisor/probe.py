"""Measure what this machine's KVM really does.

Capabilities say what a kernel offers; they do not say whether it runs ring 0 natively, or whether
a processor's identity is what the VMM set. Three tiny guests find out: a loop that is timed, one that
reports who it is, and one that does nothing but exit.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Protocol

import attrs
import kvm_ioctls as kvm
from vm_device import Value

from vm_hypervisor._errors import HypervisorUnavailableError

__all__ = ("INTERPRETED_NS", "KvmReport", "measure")

INTERPRETED_NS = 100.0
"""From this many ns per instruction on, ring 0 is called interpreted: hardware and even QEMU's TCG
need below 20, the known interpreters about 200 and more."""

# The least of many runs: one that is preempted by another process says nothing about the KVM. The short
# loops fit between two preemptions even in an emulated host on a busy machine.
_RUNS, _LOOPS = 21, (200, 5_200)
_LONG_RUNS, _LONG_LOOPS = 7, (200, 1_000_200)
_EXITS = 200
_GUESTS = {"x86_64": "_x86_64_probe", "aarch64": "_aarch64_probe"}


class _Guests(Protocol):
    """What a module of an architecture's tiny guests has."""

    @property
    def CAPABILITIES(self) -> Sequence[str]:  # noqa: N802 - a constant of the module
        """Names of the capabilities that a report shows."""

    @property
    def LOOP(self) -> bytes:  # noqa: N802
        """A loop of two instructions, behind which the guest reports."""

    @property
    def EXIT_LOOP(self) -> bytes:  # noqa: N802
        """Does nothing but exit."""

    def guest(self, stack: ExitStack, system: kvm.Kvm, code: bytes) -> kvm.VcpuFd:
        """Return a vCPU that starts at `code`, in ring 0."""

    def start_loop(self, vcpu: kvm.VcpuFd, loops: int) -> None:
        """Set it to the beginning of so many rounds of LOOP."""

    def reported(self, vcpu: kvm.VcpuFd) -> int:
        """Return what the guest said; raises HypervisorUnavailableError when it exited in another way."""

    def identity_virtualised(self, system: kvm.Kvm) -> bool:
        """Tell whether a processor is what the VMM said, to the guest's own eyes."""


@attrs.frozen(eq=False, repr=False)
class KvmReport(Value):
    """What was measured.

    Args:
        ns_per_instruction: of a ring-0 loop.
        ns_per_exit: of a port write answered in C.
        cpuid_virtualised: CPUID answers what the VMM set, in ring 3 as well; MPIDR_EL1 on AArch64.
        max_vcpus: KVM_CAP_MAX_VCPUS.
        capabilities: KVM_CHECK_EXTENSION by name; 0 is absent.
    """

    ns_per_instruction: float
    ns_per_exit: float
    cpuid_virtualised: bool
    max_vcpus: int
    capabilities: Mapping[str, int]

    @property
    def native(self) -> bool:
        """Whether ring 0 runs natively rather than interpreted."""
        return self.ns_per_instruction < INTERPRETED_NS

    @property
    def complete(self) -> bool:
        """Whether stock kernels can be expected to run."""
        return self.native and self.cpuid_virtualised and bool(self.capabilities.get("IRQCHIP"))

    @property
    def summary(self) -> str:
        """One line: what matters for running a stock kernel."""
        how = "natively" if self.native else "interpreted"
        cpuid = "" if self.cpuid_virtualised else ", CPUID is not virtualised"
        chip = "" if self.capabilities.get("IRQCHIP") else ", no in-kernel interrupt controller"
        return f"/dev/kvm runs ring 0 {how} ({self.ns_per_instruction:.1f} ns per instruction){cpuid}{chip}"


def measure() -> KvmReport:
    """Run the tiny guests on `/dev/kvm`; takes well under a second.

    Raises:
        HypervisorUnavailableError: there is no usable `/dev/kvm`, it cannot even run a tiny guest, or this is
            neither an x86-64 nor an AArch64 machine.
    """
    try:
        with kvm.Kvm() as system:
            guests = _guests(os.uname().machine)  # now: who may not open it may not import more either
            return KvmReport(
                ns_per_instruction=_ns_per_instruction(guests, system),
                ns_per_exit=_ns_per_exit(guests, system),
                cpuid_virtualised=guests.identity_virtualised(system),
                max_vcpus=system.get_max_vcpus(),
                capabilities={name: system.check_extension(kvm.Cap[name]) for name in guests.CAPABILITIES},
            )
    except kvm.KvmError as error:
        raise HypervisorUnavailableError(str(error)) from None


def _guests(arch: str) -> _Guests:
    if arch not in _GUESTS:
        raise HypervisorUnavailableError(f"KVM of {arch} cannot be measured, only of {', '.join(_GUESTS)}")
    guests: _Guests = import_module(f"vm_hypervisor.arch.{_GUESTS[arch]}")
    return guests


def _timed(action: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    action()
    return time.perf_counter_ns() - start


def _loop_time(guests: _Guests, vcpu: kvm.VcpuFd, loops: int) -> int:
    guests.start_loop(vcpu, loops)
    spent = _timed(vcpu.run)
    guests.reported(vcpu)
    vcpu.complete_pending()
    return spent


def _ns_per_instruction(guests: _Guests, system: kvm.Kvm) -> float:
    with ExitStack() as stack:
        vcpu = guests.guest(stack, system, guests.LOOP)
        rough = _slope(guests, vcpu, _LOOPS, _RUNS)
        # An interpreter would take a second for the long loop that a native KVM needs for a figure.
        fine = _slope(guests, vcpu, _LONG_LOOPS, _LONG_RUNS) if rough < INTERPRETED_NS else rough
        # The short loops have shown what it is; long ones that came out slow were disturbed, all of them.
        return fine if fine < INTERPRETED_NS else rough


def _slope(guests: _Guests, vcpu: kvm.VcpuFd, loops: tuple[int, int], runs: int) -> float:
    short, long = (min(_loop_time(guests, vcpu, count) for _ in range(runs)) for count in loops)
    return max(long - short, 0) / (2 * (loops[1] - loops[0]))


def _ns_per_exit(guests: _Guests, system: kvm.Kvm) -> float:
    with ExitStack() as stack:
        vcpu = guests.guest(stack, system, guests.EXIT_LOOP)
        times = [_timed(vcpu.run_raw) for _ in range(_EXITS)]
    return sorted(times)[len(times) // 2]
