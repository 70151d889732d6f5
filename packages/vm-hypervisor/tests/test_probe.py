"""Measuring a KVM."""

import os

import attrs
import kvm_ioctls
import pytest
from vm_hypervisor import HypervisorUnavailableError, probe
from vm_hypervisor.probe import INTERPRETED_NS, KvmReport

GOOD = KvmReport(0.4, 900.0, True, 254, {"IRQCHIP": 1})


@pytest.mark.parametrize(
    "arch",
    [pytest.param("x86_64", marks=pytest.mark.kvm), pytest.param("aarch64", marks=pytest.mark.arm64)],
)
def test_measures_this_machine(arch):
    """The numbers are possible ones, and the verdict follows from them."""
    assert os.uname().machine == arch
    report = probe.measure()
    assert 0 <= report.ns_per_instruction < 100_000
    assert 100 < report.ns_per_exit < 10_000_000
    assert report.max_vcpus >= 1
    assert report.capabilities["IRQCHIP"] in (0, 1)
    assert report.native == (report.ns_per_instruction < INTERPRETED_NS)
    assert report.summary.startswith("/dev/kvm runs ring 0 ")


@pytest.mark.parametrize(
    ("change", "complete", "summary"),
    [
        ({}, True, "/dev/kvm runs ring 0 natively (0.4 ns per instruction)"),
        (
            {"ns_per_instruction": 320.06},
            False,
            "/dev/kvm runs ring 0 interpreted (320.1 ns per instruction)",
        ),
        (
            {"cpuid_virtualised": False},
            False,
            "/dev/kvm runs ring 0 natively (0.4 ns per instruction), CPUID is not virtualised",
        ),
        (
            {"capabilities": {}},
            False,
            "/dev/kvm runs ring 0 natively (0.4 ns per instruction), no in-kernel interrupt controller",
        ),
    ],
)
def test_verdict(change, complete, summary):
    """Complete means native ring 0, virtualised CPUID and an irqchip; the summary names what lacks."""
    report = attrs.evolve(GOOD, **change)
    assert (report.complete, report.summary) == (complete, summary)


def test_no_kvm(monkeypatch):
    """Without /dev/kvm the error is this package's, with the cure of the one below."""
    kvm = kvm_ioctls.Kvm
    monkeypatch.setattr(kvm_ioctls, "Kvm", lambda: kvm("/nonexistent/kvm"))
    with pytest.raises(HypervisorUnavailableError, match="/nonexistent/kvm"):
        probe.measure()


def test_another_architecture():
    """What cannot be measured says so: no guest of another processor is tried."""
    with pytest.raises(HypervisorUnavailableError, match=r"^KVM of riscv64 .* of x86_64, aarch64$"):
        probe._guests("riscv64")
