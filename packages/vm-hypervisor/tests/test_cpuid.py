"""Tables of CPUID leaves: text and back, other programs' dumps, differences with names."""

import shutil
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_hypervisor import CpuidError, KvmHypervisor
from vm_hypervisor.cpuid import CpuidLeaf, CpuTable, Difference, diff

WORD = st.integers(0, 0xFFFF_FFFF)
FUNCTIONS = st.sampled_from((0, 1, 4, 7, 0xB, 0xD, 0x4000_0000, 0x8000_0001)) | WORD
TABLES = st.builds(
    CpuTable,
    st.lists(
        st.builds(CpuidLeaf, FUNCTIONS, st.integers(0, 80), st.just(False), WORD, WORD, WORD, WORD),
        min_size=1,
        max_size=20,
        unique_by=lambda leaf: (leaf.function, leaf.index),
    ),
    st.dictionaries(WORD, st.integers(0, 2**64 - 1), max_size=5),
)
INTEL = CpuidLeaf(0, 0, False, 1, 0x756E_6547, 0x6C65_746E, 0x4965_6E69)


def registers(table):
    """Return the table without what text does not hold."""
    return {(leaf.function, leaf.index): (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) for leaf in table.leaves}


def flat(table):
    """Return (function, index, number of the register) → value."""
    return {(*place, n): value for place, four in registers(table).items() for n, value in enumerate(four)}


@given(TABLES)
def test_text_and_back(table):
    """All leaves and MSRs come back; whether an index matters is known by the leaf."""
    back = CpuTable.from_text(table.to_text())
    assert (registers(back), back.msrs) == (registers(table), table.msrs)
    assert back.to_text() == table.to_text()


@given(st.text() | st.lists(st.sampled_from(["CPU 0:", "# x", "   0x1 0x0:", "0", "\n"])).map("".join))
def test_any_text_is_a_table_or_an_error(text):
    """Nothing but a CpuidError comes out of what is no dump."""
    with suppress(CpuidError):
        assert CpuTable.from_text(text).leaves


def test_the_first_processor_counts():
    """A dump of several processors gives the first one's answers."""
    leaf = CpuidLeaf(1, 0, False, 1, 2, 3, 4)
    other = CpuidLeaf(1, 0, False, 5, 6, 7, 8)
    text = CpuTable([INTEL, leaf], {0x10A: 1}).to_text().replace("CPU:", "CPU 0:")
    text += CpuTable([INTEL, other], {0x10A: 2, 0x8B: 3}).to_text().replace("CPU:", "CPU 1:")
    table = CpuTable.from_text(text)
    assert table == CpuTable([INTEL, leaf], {0x10A: 1})
    assert (table.vendor, table.value(1, "ecx"), table.value(2, "ecx")) == ("GenuineIntel", 3, 0)
    assert (table.leaf(1), table.leaf(1, 1), CpuTable([]).vendor) == (leaf, None, "")


def test_a_dump_of_this_processor():
    """What the program cpuid prints of this machine is read whole, and printed again."""
    program = shutil.which("cpuid")
    if program is None:
        pytest.skip("cpuid is not installed")
    text = subprocess.run([program, "-1", "-r"], capture_output=True, text=True, check=True).stdout
    table = CpuTable.from_text(text)
    assert table.to_text().splitlines() == [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CpuTable.from_text("", "host.txt"),
            r"^host.txt: no CPUID leaf in it; make a dump with `vmm",
        ),
        (
            lambda: CpuTable.from_text("CPU:\n   hello\n", "host.txt"),
            r"^host.txt line 2: 'hello' is none of a CPUID dump; make one with .* --raw`$",
        ),
        (
            lambda: CpuTable.from_text("x" * (1 << 20) + "x"),
            r"^dump: 1048577 characters are .* 1048576$",
        ),
        (lambda: CpuTable([INTEL, INTEL]), r"^CPUID leaf 0x0 index 0x0 is there twice; keep one of them$"),
        (
            lambda: CpuTable([CpuidLeaf(n, 0, False, 0, 0, 0, 0) for n in range(257)]),
            r"^257 CPUID leaves; KVM takes at most 256$",
        ),
    ],
)
def test_impossible_tables_are_refused(make, message):
    """With where and what, and how to make one."""
    with pytest.raises(CpuidError, match=message):
        make()


@given(TABLES, TABLES)
def test_differences_are_all_there_is(first, second):
    """Patching the first table with the differences gives the second; equal tables have none."""
    assert diff(first, first) == ()
    patched = flat(first)
    msrs = dict(first.msrs)
    for one in diff(first, second):
        place, _, register = one.where.partition(" ")
        if place == "msr":
            msrs[int(register, 16)] = one.second
            continue
        function, _, index = place.partition(".")
        key = int(function, 16), int(index, 16), ("eax", "ebx", "ecx", "edx").index(register)
        assert patched.get(key, 0) == one.first
        patched[key] = one.second
    assert {key: value for key, value in patched.items() if value} == {
        key: value for key, value in flat(second).items() if value
    }
    assert {key: value for key, value in msrs.items() if value is not None} == second.msrs


def test_differences_name_the_bits():
    """Features by the names of /proc/cpuinfo; unnamed bits by number; registers without names by value."""
    first = CpuTable([INTEL, CpuidLeaf(7, 0, True, 0, 1 << 5 | 1 << 16, 1 << 15, 0)], {0x10A: 1})
    second = CpuTable([INTEL, CpuidLeaf(7, 0, True, 2, 1 << 5 | 1 << 3, 0, 0)], {0x345: 2})
    assert [str(one) for one in diff(first, second)] == [
        "0x7.0 eax: 0x0 → 0x2",
        "0x7.0 ebx: 0x10020 → 0x28 -avx512f +bmi1",
        "0x7.0 ecx: 0x8000 → 0x0 -bit 15",
        "msr 0x10a: 0x1 → none",
        "msr 0x345: none → 0x2",
    ]
    assert diff(first, second)[1] == Difference("0x7.0 ebx", 0x10020, 0x28, ("avx512f",), ("bmi1",))


@pytest.mark.kvm
def test_kvm_tells_what_it_supports():
    """The leaves that a guest cannot be without are there, and the feature MSRs fit 64 bits."""
    with KvmHypervisor() as hypervisor:
        table, msrs = hypervisor.supported_cpuid(), hypervisor.feature_msrs()
    assert len(table.vendor) == 12
    assert table.value(0, "eax") >= 1
    assert table.value(1, "edx") & 1 << 25  # SSE
    assert diff(table, CpuTable.from_text(table.to_text())) == ()
    assert all(0 <= value < 1 << 64 for value in msrs.values())
