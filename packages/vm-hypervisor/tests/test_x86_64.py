"""First MSRs, the preparation of a vCPU, the chipset's addresses."""

import pytest
from kvm_ioctls import MsrEntry, MsrError
from vm_hypervisor.arch import x86_64
from vm_hypervisor.arch.x86_64 import boot_msrs, prepare_vcpu
from vm_hypervisor.cpuid import CpuidLeaf, CpuTable, MsrRule, Template, Topology, normalise

CAPABILITIES, REVISION = 0x10A, 0x8B  # IA32_ARCH_CAPABILITIES, IA32_BIOS_SIGN_ID
OWN = 0x0BAD_CAFE_1234_5678


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


def takes(vcpu, index, value):
    """Whether KVM lets a vCPU have the value that KVM itself gives for a register."""
    try:
        vcpu.fd.set_msrs([MsrEntry(index, value)])
    except MsrError:
        return False
    return True


@pytest.mark.kvm
def test_a_template_changes_what_the_guest_reads(machine):
    """KVM gives back the MSRs of a template, and RDMSR of a guest gives them too; the others are KVM's.

    IA32_ARCH_CAPABILITIES is Intel's: on AMD, a KVM does not show it, or shows it and refuses to set it.
    """
    msrs = machine.hypervisor.feature_msrs()
    leaves = machine.hypervisor.supported_cpuid().leaves
    rules, expected = [MsrRule(REVISION, set=OWN)], {REVISION: OWN}
    vcpu = machine.vcpu("")
    prepare_vcpu(vcpu, CpuTable(leaves), index=0)
    if takes(vcpu, CAPABILITIES, msrs.get(CAPABILITIES, 0)):
        first = msrs[CAPABILITIES] & -msrs[CAPABILITIES]
        assert first  # what is to be cleared
        rules.append(MsrRule(CAPABILITIES, keep=2**64 - 1 - first))
        expected[CAPABILITIES] = msrs[CAPABILITIES] & ~first
    # For each: mov ecx, index; rdmsr; out 0x80, eax; mov eax, edx; out 0x80, eax
    reads = (
        f"66 b9 {index.to_bytes(4, 'little').hex()} 0f 32 66 e7 80 66 89 d0 66 e7 80" for index in expected
    )
    machine.memory.write(0x1000, bytes.fromhex(f"{' '.join(reads)} e6 f4"))
    table = CpuTable(leaves, {index: msrs[index] for index in expected})
    prepare_vcpu(vcpu, Template("x", msrs=tuple(rules)).apply(table), index=0)
    assert {entry.index: entry.data for entry in vcpu.fd.get_msrs(expected)} == expected
    words = [value >> shift & 0xFFFF_FFFF for value in expected.values() for shift in (0, 32)]
    assert machine.run(vcpu) == [("pio", "write", 0x80, 4, word) for word in words]
    assert [entry.data for entry in vcpu.fd.get_msrs(expected)] == [*expected.values()]


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
