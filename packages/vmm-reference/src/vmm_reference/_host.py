"""Where a guest runs: this machine's KVM if it is complete, else an emulated host.

Measuring a KVM takes a fraction of a second, so the result is cached for this boot of the machine.
"""

import json
import os
from pathlib import Path
from typing import Literal, NamedTuple

import attrs
from vm_hypervisor import HypervisorUnavailableError
from vm_hypervisor.probe import KvmReport, measure

from vmm_reference._arch import HAS_EMULATED_HOST, HOST
from vmm_reference._errors import HostError

HostName = Literal["kvm", "emulated"]


class HostChoice(NamedTuple):
    """Where the guest will run, and the one-line reason."""

    host: HostName
    why: str


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "vmm" / "kvm-probe.json"


def _boot_id() -> str:
    # A reboot may bring another kernel or another machine below us, a user another access, a container
    # another /dev/kvm.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        device = Path("/dev/kvm").stat().st_rdev
    except OSError:
        device = 0
    return f"{boot}:{os.getuid()}:{device:#x}"


def _read(file: Path, key: str) -> KvmReport | None:
    """Return the cached report; None for no cache, a torn one, one of another boot, user or version."""
    try:
        cached = json.loads(file.read_text())
        report = KvmReport(**cached["report"]) if cached["boot_id"] == key else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return report if report is not None and _sane(report) else None


def _sane(report: KvmReport) -> bool:
    """Whether the values have their types: a file that others can write is no proof."""
    numbers = (report.ns_per_instruction, report.ns_per_exit, report.max_vcpus)
    capabilities = report.capabilities
    return (
        all(isinstance(number, int | float) and number >= 0 for number in numbers)
        and isinstance(report.cpuid_virtualised, bool)
        and isinstance(capabilities, dict)
        and all(isinstance(value, int) for value in capabilities.values())
    )


def probe() -> KvmReport:
    """Return what this machine's KVM can do, measured once for each boot of the machine.

    Raises:
        HypervisorUnavailableError: there is no usable `/dev/kvm`; never cached.
    """
    key = _boot_id()
    try:
        file = _cache_file()
    except RuntimeError:  # a user without a home
        return measure()
    cached = _read(file, key)
    if cached is not None and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return cached
    report = measure()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps({"boot_id": key, "report": attrs.asdict(report)}))
        scratch.rename(file)
    except OSError:
        pass  # a read-only home costs the next run a measurement, nothing else
    return report


def choose(wanted: str) -> HostChoice:
    """Return where to run.

    Args:
        wanted: "kvm", "emulated", or "auto".

    Raises:
        HostError: "kvm" was asked for, and this machine's KVM is missing or incomplete; or an emulated
            host is needed, and there is none for this machine's architecture.
    """
    if wanted == "emulated":
        return _emulated("asked for")
    try:
        report = probe()
    except HypervisorUnavailableError as error:
        if wanted == "kvm":
            raise HostError(str(error)) from None
        return _emulated(str(error))
    if report.complete:
        return HostChoice("kvm", report.summary)
    if wanted == "kvm":
        raise HostError(
            f"--host kvm: {report.summary}; a stock kernel does not run here, use --host emulated"
        )
    return _emulated(report.summary)


def _emulated(why: str) -> HostChoice:
    if not HAS_EMULATED_HOST:
        raise HostError(
            f"--host emulated: {why}; on {HOST} guests run on /dev/kvm only: use a machine that has it"
        )
    return HostChoice("emulated", why)
