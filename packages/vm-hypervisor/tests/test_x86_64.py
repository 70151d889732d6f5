"""First MSRs, the preparation of a vCPU, the chipset's addresses."""

from vm_hypervisor.arch import x86_64
from vm_hypervisor.arch.x86_64 import boot_msrs, prepare_vcpu
from vm_hypervisor.cpuid import CpuidLeaf, CpuTable, Topology, normalise


def test_boot_msrs_name_each_once():
    """No register is written twice; MTRRs are on with write-back, fast strings enabled."""
    values = dict(boot_msrs())
    assert len(values) == len(boot_msrs())
    assert values[0x2FF] == 1 << 11 | 6
    assert values[0x1A0] & 1
    assert values[0x10] == values[0x174] == values[0xC000_0082] == 0


def test_prepare_does_all_of_it():
    """A fresh vCPU gets CPUID first (later calls depend on it), then MSRs, FPU and pins."""

    class Recorder:
        def __init__(self):
            self.calls = []

        def __getattr__(self, name):
            return lambda *args: self.calls.append((name, *args))

    vcpu = Recorder()
    table = CpuTable([CpuidLeaf(1, 0, False, 0, 0, 0, 0)], {0x10A: 5})
    topology = Topology(2, 1, 1, 2)
    prepare_vcpu(vcpu, table, index=2, topology=topology)
    assert vcpu.calls == [
        ("set_cpuid", normalise(table, topology, 2).leaves),
        ("set_msrs", (*boot_msrs(), (0x10A, 5))),
        ("reset_fpu",),
        ("wire_lint_pins",),
    ]


def test_the_map_of_the_chipset_does_not_overlap():
    """KVM's own pages, the I/O APIC and the local APIC lie apart, below 4 GiB."""
    places = sorted(
        [
            (x86_64.IO_APIC_BASE, 0x1000),
            (x86_64.LOCAL_APIC_BASE, 0x1000),
            (x86_64.IDENTITY_MAP, 0x1000),
            (x86_64.TSS, 0x3000),
        ]
    )
    for (base, size), (following, _) in zip(places, [*places[1:], (1 << 32, 0)], strict=True):
        assert base + size <= following
