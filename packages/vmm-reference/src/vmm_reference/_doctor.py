"""`vmm doctor`: what this machine can really do, what will run where, and how to mend the rest."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
from vm_hypervisor import HypervisorUnavailableError
from vm_hypervisor.probe import KvmReport, measure

_TOOLS: Final = "qemu-system-x86 busybox-static kmod xz-utils zstd"
_HUGEPAGES: Final = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


@attrs.frozen
class Finding:
    """One thing looked at.

    Args:
        name: short key, stable across versions.
        ok: whether it is as it should be.
        value: what was measured or found.
        cure: how to mend it; empty when it is fine.
    """

    name: str
    ok: bool
    value: str | int | float | bool
    cure: str = ""


def _kvm() -> tuple[KvmReport | None, list[Finding]]:
    try:
        report = measure()
    except HypervisorUnavailableError as error:
        return None, [Finding("kvm", ok=False, value=str(error), cure="guests will run in the emulated host")]
    interpreted = "" if report.native else "stock kernels need the emulated host; tiny guests run here"
    findings = [
        Finding("kvm", ok=True, value="/dev/kvm opens, API version 12"),
        Finding(
            "ring0", ok=report.native, value="native" if report.native else "interpreted", cure=interpreted
        ),
        Finding("ns_per_instruction", ok=report.native, value=round(report.ns_per_instruction, 2)),
        Finding("ns_per_exit", ok=True, value=round(report.ns_per_exit)),
        Finding(
            "cpuid",
            ok=report.cpuid_virtualised,
            value="virtualised" if report.cpuid_virtualised else "not virtualised",
            cure="" if report.cpuid_virtualised else "guests see the host's processor: use the emulated host",
        ),
        Finding("max_vcpus", ok=True, value=report.max_vcpus),
    ]
    findings += [
        Finding(f"cap_{name.lower()}", ok=bool(value), value=value)
        for name, value in report.capabilities.items()
    ]
    return report, findings


def _tap() -> Finding:
    if os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return Finding("tap", ok=True, value="/dev/net/tun opens")
    reason = "not accessible" if Path("/dev/net/tun").exists() else "missing"
    return Finding("tap", ok=False, value=f"/dev/net/tun is {reason}", cure="modprobe tun, or run as root")


def _hugepages() -> Finding:
    try:
        free = int((_HUGEPAGES / "free_hugepages").read_text())
    except OSError:
        return Finding("hugepages", ok=False, value=0, cure="this kernel has no 2 MiB huge pages")
    cure = "" if free else "echo 512 > /proc/sys/vm/nr_hugepages (as root) for --memory hugepages=on"
    return Finding("hugepages", ok=free > 0, value=free, cure=cure)


def _qemu() -> Finding:
    program = shutil.which("qemu-system-x86_64")
    if program:
        return Finding("qemu", ok=True, value=program)
    cure = f"fetched at first use when root; else: apt-get install {_TOOLS}"
    return Finding("qemu", ok=False, value="missing", cure=cure)


def _placement(report: KvmReport | None) -> dict[str, str]:
    """What runs where, by kind of guest."""
    stock = "kvm" if report is not None and report.complete else "emulated"
    return {"stock kernels": stock, "tiny guests": "emulated" if report is None else "kvm"}


def _lines(findings: list[Finding], placement: dict[str, str]) -> Iterator[str]:
    for finding in findings:
        mark = "ok  " if finding.ok else "note"
        yield f"{mark} {finding.name:22} {finding.value}"
        if finding.cure:
            yield f"     {'':22} → {finding.cure}"
    yield ""
    for what, where in placement.items():
        yield f"{what} will run here: --host {where}"


def main(style: str) -> int:
    """Measure and print, as "text" or "json"; return exit status 0."""
    report, findings = _kvm()
    findings += [_tap(), _hugepages(), _qemu()]
    placement = _placement(report)
    if style == "json":
        document = {"findings": [attrs.asdict(finding) for finding in findings], "runs": placement}
        text = json.dumps(document, indent=2)
    else:
        text = "\n".join(_lines(findings, placement))
    sys.stdout.write(text + "\n")
    return 0
