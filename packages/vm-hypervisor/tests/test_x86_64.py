"""CPUID, first MSRs and the preparation of a vCPU."""

import attrs
from hypothesis import given
from hypothesis import strategies as st
from vm_hypervisor.arch import x86_64
from vm_hypervisor.arch.x86_64 import CpuidLeaf, boot_msrs, guest_cpuid, prepare_vcpu

WORD = st.integers(0, 0xFFFF_FFFF)
FUNCTIONS = (0, 1, 4, 7, 0xB, 0x1F, 0x4000_0000, 0x8000_0001, 0x8000_0008, 0x8000_001E)
LEAVES = st.lists(
    st.builds(
        CpuidLeaf, st.sampled_from(FUNCTIONS), st.integers(0, 4), st.booleans(), WORD, WORD, WORD, WORD
    ),
    unique_by=lambda leaf: (leaf.function, leaf.index),
)
COUNTS = st.integers(1, 1024)
ADAPTED = {1, 4, 0xB, 0x1F, 0x8000_0008, 0x8000_001E}


@st.composite
def machines(draw):
    """Supported leaves, a vCPU, and how many there are."""
    count = draw(COUNTS)
    return draw(LEAVES), draw(st.integers(0, count - 1)), count


def find(leaves, function, index=None):
    """Return the leaves of a function, by sub-leaf when `index` is given."""
    return [leaf for leaf in leaves if leaf.function == function and index in (None, leaf.index)]


@given(machines())
def test_every_register_stays_a_register(machine):
    """Whatever KVM reports, 32 bits go in and 32 bits come out."""
    supported, index, count = machine
    for leaf in guest_cpuid(supported, index=index, count=count):
        assert all(0 <= value < 1 << 32 for value in attrs.astuple(leaf)[3:])


@given(machines())
def test_what_is_not_ours_is_untouched(machine):
    """Leaves that describe neither topology nor the hypervisor bit pass as they are, none is lost."""
    supported, index, count = machine
    result = guest_cpuid(supported, index=index, count=count)
    assert [leaf for leaf in result if leaf.function not in ADAPTED] == [
        leaf for leaf in supported if leaf.function not in ADAPTED
    ]
    assert {leaf.function for leaf in result} == {leaf.function for leaf in supported}


@given(machines())
def test_leaf_1(machine):
    """The hypervisor bit is set, the APIC id is the vCPU's, HTT is set for more than one."""
    supported, index, count = machine
    result = guest_cpuid(supported, index=index, count=count)
    for before, after in zip(find(supported, 1), find(result, 1), strict=True):
        assert after.ecx == before.ecx | 1 << 31
        assert after.ebx >> 24 == index & 0xFF
        assert after.ebx & 0xFFFF == before.ebx & 0xFFFF
        assert after.ebx >> 16 & 0xFF == min(count, 255)
        assert bool(after.edx >> 28 & 1) == (count > 1)
        assert after.edx & ~(1 << 28) == before.edx & ~(1 << 28)


@given(machines())
def test_topology_leaves_tell_the_cores_apart(machine):
    """Leaves 0xB and 0x1F: shifting the x2APIC id by the core level leaves one package for all vCPUs."""
    supported, index, count = machine
    result = guest_cpuid(supported, index=index, count=count)
    for function in (0xB, 0x1F):
        leaves = find(result, function)
        assert len(leaves) == (3 if find(supported, function) else 0)
        for sub, leaf in enumerate(leaves):
            assert (leaf.index, leaf.ecx & 0xFF, leaf.edx, leaf.significant) == (sub, sub, index, True)
        if leaves:
            thread, core, end = leaves
            assert (thread.eax, thread.ebx, thread.ecx >> 8) == (0, 1, 1)
            assert (core.ebx, core.ecx >> 8, end.ebx, end.ecx >> 8) == (count, 2, 0, 0)
            assert index >> core.eax == 0
            assert count <= 1 << core.eax < max(2 * count, 2)


@given(machines(), st.integers(1, 3))
def test_caches_belong_to_cores_but_the_last(machine, level):
    """Leaf 4: private caches below level 3, one for all from there; a null leaf stays null."""
    supported, index, count = machine
    leaf = CpuidLeaf(4, level, True, level << 5 | 1, 7, 8, 9)
    null = CpuidLeaf(4, 9, True, 0, 0, 0, 0)
    given_ = [entry for entry in supported if entry.function != 4] + [leaf, null]
    result = guest_cpuid(given_, index=index, count=count)
    (after,) = find(result, 4, level)
    assert after.eax >> 14 & 0xFFF == (count - 1 if level == 3 else 0)
    assert after.eax >> 26 == min(count - 1, 63)
    assert after.eax & 0x3FFF == leaf.eax
    assert find(result, 4, 9) == [null]


def test_more_sharers_than_the_field_holds():
    """Leaf 4 with more than 4096 vCPUs says 4096 sharers, not a remainder."""
    leaf = CpuidLeaf(4, 3, True, 3 << 5 | 1, 0, 0, 0)
    (after,) = guest_cpuid([leaf], index=0, count=4097)
    assert after.eax >> 14 & 0xFFF == 0xFFF


@given(machines())
def test_amd_leaves(machine):
    """0x80000008 has cores and APIC id bits, 0x8000001E the id, and one thread a core."""
    supported, index, count = machine
    result = guest_cpuid(supported, index=index, count=count)
    for leaf in find(result, 0x8000_0008):
        assert leaf.ecx & 0xFF == min(count - 1, 255)
        assert count <= 1 << (leaf.ecx >> 12 & 0xF)
    for leaf in find(result, 0x8000_001E):
        assert (leaf.eax, leaf.ebx & 0xFFFF, leaf.ecx) == (index, index & 0xFF, 0)


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
    leaf = CpuidLeaf(1, 0, False, 0, 0, 0, 0)
    prepare_vcpu(vcpu, [leaf], index=2, count=4)
    assert vcpu.calls == [
        ("set_cpuid", guest_cpuid([leaf], index=2, count=4)),
        ("set_msrs", boot_msrs()),
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
