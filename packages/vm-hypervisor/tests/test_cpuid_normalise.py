"""What each processor of a machine shows: read back the way Linux reads it, and by the program cpuid."""

import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vm_hypervisor import CpuidError
from vm_hypervisor.cpuid import CpuidLeaf, CpuTable, Topology, normalise

WORD = st.integers(0, 0xFFFF_FFFF)
FUNCTIONS = (
    *(0x0, 0x1, 0x2, 0x4, 0x7, 0xB, 0xD, 0x1F, 0x4000_0000, 0x4000_0001),
    *(0x8000_0000, 0x8000_0001, 0x8000_0008, 0x8000_001D, 0x8000_001E),
)
OURS = {*FUNCTIONS} - {0x2, 0x7, 0x4000_0001}
LEAVES = st.lists(
    st.builds(
        CpuidLeaf, st.sampled_from(FUNCTIONS), st.integers(0, 4), st.booleans(), WORD, WORD, WORD, WORD
    ),
    unique_by=lambda leaf: (leaf.function, leaf.index),
)
REAL = {
    name: CpuTable.from_text((Path(__file__).parent / f"dumps/{name}.txt").read_text())
    for name in ("intel", "amd")
}


@st.composite
def topologies(draw, most=254):
    """A topology of at most `most` processors."""
    counts = []
    for _ in range(4):
        counts.append(draw(st.integers(1, max(1, most))))
        most //= counts[-1]
    return Topology(*draw(st.permutations(counts)))


@st.composite
def machines(draw):
    """What a hypervisor supports, a topology, and one of its processors."""
    topology = draw(topologies())
    leaves = draw(LEAVES) if draw(st.booleans()) else REAL[draw(st.sampled_from(sorted(REAL)))].leaves
    return CpuTable(leaves), topology, draw(st.integers(0, topology.cpus - 1))


def linux_view(table):
    """Read one processor as Linux does since 6.9 (topology_common.c, _ext.c, _amd.c).

    Returns:
        (thread, core, die, package) as sets of bits of its APIC id: each a number that groups it with others.
    """
    amd = b"".join(table.value(0, register).to_bytes(4, "little") for register in ("ebx", "edx", "ecx")) in (
        b"AuthenticAMD",
        b"HygonGenuine",
    )
    shifts = dict.fromkeys(range(1, 7), None)
    apic_id = table.value(1, "ebx") >> 24
    if not amd or table.value(0x8000_0001, "ecx") >> 22 & 1:
        for function in (0x1F, 0xB):
            first = table.value(function, "ecx") >> 8 & 0xFF
            if table.value(0, "eax") < function or not table.value(function, "ebx") or first != 1:
                continue
            apic_id = table.value(function, "edx")
            sub = 0
            while kind := table.value(function, "ecx", sub) >> 8 & 0xFF:
                if not table.value(function, "ebx", sub) & 0xFFFF:
                    break
                shifts[kind] = table.value(function, "eax", sub) & 0x1F
                sub += 1
            break
    if shifts[1] is None and amd:
        ecx = table.value(0x8000_0008, "ecx")
        shifts[1], shifts[2] = 0, ecx >> 12 & 0xF or (ecx & 0xFF).bit_length()
    elif shifts[1] is None:  # leaves 1 and 4
        cores = (table.value(4, "eax") >> 26).bit_length()
        threads = ((table.value(1, "ebx") >> 16 & 0xFF) - 1).bit_length()
        shifts[1] = max(threads - cores, 0) if table.value(1, "edx") >> 28 & 1 else 0
        shifts[2] = shifts[1] + cores
    core = shifts[1]
    die = shifts[2] if shifts[2] is not None else core
    package = shifts[5] if shifts[5] is not None else die
    return apic_id, apic_id >> core, apic_id >> die, apic_id >> package


@given(st.sampled_from(sorted(REAL)), topologies(most=64))
@example("amd", Topology(2, 3, 2, 2))
@example("intel", Topology(1, 1, 3, 2))
@example("amd", Topology(1, 3, 1, 1))
@example("amd", Topology(1, 1, 1, 3))
def test_linux_finds_the_topology(name, topology):
    """Processors that Linux puts together are those of one core, die, package; all APIC ids differ."""
    views = [linux_view(normalise(REAL[name], topology, index)) for index in range(topology.cpus)]
    assert len({view[0] for view in views}) == topology.cpus
    sizes = (1, topology.threads, topology.threads * topology.cores)
    for level, size in enumerate((*sizes, topology.cpus // topology.sockets)):
        for one, view in enumerate(views):
            for other, seen in enumerate(views):
                assert (view[level] == seen[level]) == (one // size == other // size)


def test_levels_of_the_host_are_not_the_guests():
    """Leaf 0x80000026 of a newer AMD host does not pass."""
    level = CpuidLeaf(0x8000_0026, 0, True, 1, 2, 0x100, 0)
    after = normalise(REAL["amd"].replaced([level]), Topology(2, 2), 1)
    assert after.leaf(0x8000_0026) is None


@given(topologies(most=64))
def test_places_count_threads_first(topology):
    """Then cores, dies, sockets."""
    levels = (topology.sockets, topology.dies, topology.cores, topology.threads)
    places = [topology.place(index) for index in range(topology.cpus)]
    assert places == list(product(*map(range, levels)))
    with pytest.raises(CpuidError, match="is not within"):
        topology.place(topology.cpus)


@given(topologies(most=64))
@example(Topology(2, 2, 1, 2))
def test_old_guests_find_threads_and_packages(topology):
    """Without leaves 0xB and 0x1F, leaves 1 and 4 alone group what they can tell."""
    if topology.socket_shift > 7 or topology.socket_shift - topology.core_shift > 6:
        return
    views = []
    for index in range(topology.cpus):
        table = normalise(REAL["intel"], topology, index)
        kept = [leaf for leaf in table.leaves if leaf.function not in (0xB, 0x1F)]
        views.append(linux_view(CpuTable(kept)))
    size = topology.cpus // topology.sockets
    for one, view in enumerate(views):
        for other, seen in enumerate(views):
            assert (view[1] == seen[1]) == (one // topology.threads == other // topology.threads)
            assert (view[3] == seen[3]) == (one // size == other // size)


@given(machines())
def test_every_register_stays_a_register(machine):
    """Whatever a hypervisor reports, 32 bits go in and 32 bits come out, each leaf once."""
    leaves = normalise(*machine).leaves
    for leaf in leaves:
        assert all(0 <= value < 1 << 32 for value in attrs.astuple(leaf)[3:])
    assert len({(leaf.function, leaf.index) for leaf in leaves}) == len(leaves)


@given(machines())
def test_what_is_not_ours_is_untouched(machine):
    """Leaves that describe neither topology, XSAVE nor the hypervisor pass as they are, none is lost."""
    table, _, _ = machine
    after = normalise(*machine)
    others = [leaf for leaf in table.leaves if leaf.function not in OURS]
    assert [leaf for leaf in after.leaves if leaf.function not in OURS] == others
    assert {leaf.function for leaf in table.leaves} <= {leaf.function for leaf in after.leaves}
    assert after.msrs == table.msrs


@given(machines())
def test_once_is_enough(machine):
    """What is normal already does not change."""
    table, topology, index = machine
    once = normalise(table, topology, index)
    again = normalise(once, topology, index)
    assert {(leaf.function, leaf.index): leaf for leaf in again.leaves} == {
        (leaf.function, leaf.index): leaf for leaf in once.leaves
    }


@given(machines())
def test_leaf_1(machine):
    """The hypervisor bit is set, the APIC id is the processor's, HTT is set for more than one in a socket."""
    table, topology, index = machine
    before, after = table.leaf(1), normalise(*machine).leaf(1)
    if before is None:
        assert after is None
        return
    in_socket = topology.threads * topology.cores * topology.dies
    assert after.ecx == before.ecx | 1 << 31
    assert after.ebx >> 24 == topology.apic_id(index) & 0xFF
    assert after.ebx & 0xFFFF == before.ebx & 0xFFFF
    assert after.ebx >> 16 & 0xFF >= min(in_socket, 255)
    assert bool(after.edx >> 28 & 1) == (in_socket > 1)
    assert after.edx & ~(1 << 28) == before.edx & ~(1 << 28)


@given(machines())
def test_caches_belong_to_cores_and_dies(machine):
    """A cache counts the ids of its core below level 3, of its die from there; null leaves stay."""
    table, topology, _ = machine
    after = normalise(*machine)
    for leaf in table.leaves:
        if leaf.function not in (0x4, 0x8000_001D):
            continue
        seen = after.leaf(leaf.function, leaf.index)
        if not leaf.eax & 0x1F:
            assert seen == leaf
            continue
        sharing = (seen.eax >> 14 & 0xFFF) + 1
        size = topology.threads * (topology.cores if leaf.eax >> 5 & 7 >= 3 else 1)
        assert size <= sharing < 4 * max(size, 1)  # each level rounds up to a power of two
        assert seen.eax & 0x3FFF == leaf.eax & 0x3FFF
        assert (seen.ebx, seen.ecx, seen.edx) == (leaf.ebx, leaf.ecx, leaf.edx)


@given(machines())
def test_first_leaves_reach_the_last(machine):
    """Leaf 0, 0x40000000 and 0x80000000 name a last leaf that no leaf is beyond."""
    after = normalise(*machine)
    for first in (0, 0x4000_0000, 0x8000_0000):
        if after.leaf(first):
            last = max(leaf.function for leaf in after.leaves if leaf.function >> 16 == first >> 16)
            assert after.value(first, "eax") >= last


def test_amd_leaves():
    """Core 4 of 6, in the second die of the second socket: ids, threads, nodes."""
    after = normalise(REAL["amd"], Topology(2, 3, 2, 2), 21)
    assert after.value(0x8000_0001, "ecx") & (1 << 22 | 1 << 1) == 1 << 22 | 1 << 1
    assert after.value(0x8000_0008, "ecx") == 4 << 12 | 11
    leaf = after.leaf(0x8000_001E)
    assert (leaf.eax, leaf.ebx, leaf.ecx) == (0b1_1_01_1, 1 << 8 | 0b1_01, 1)  # before Zen a socket is a node
    zen = REAL["amd"].replaced([attrs.evolve(REAL["amd"].leaf(1), eax=0x0080_0F12)])
    assert normalise(zen, Topology(2, 3, 2, 2), 21).value(0x8000_001E, "ecx") == 1 << 8 | 3
    flat = normalise(REAL["amd"], Topology(cores=3), 2)
    assert flat.leaf(0x8000_001E) is None
    assert flat.value(0x8000_0001, "ecx") & (1 << 22 | 1 << 1) == 1 << 1


XSAVE = CpuidLeaf(1, 0, False, 0, 0, 1 << 26, 0)
AVX = attrs.evolve(XSAVE, ecx=1 << 26 | 1 << 28)


@pytest.mark.parametrize(
    ("features", "allowed", "size"),
    [
        ([CpuidLeaf(1, 0, False, 0, 0, 0, 0)], 0, 576),
        ([XSAVE], 3, 576),
        ([AVX], 7, 832),
        ([AVX, CpuidLeaf(7, 0, True, 0, 1 << 16, 0, 0)], 0xE7, 2688),
        ([AVX, CpuidLeaf(7, 0, True, 0, 1 << 16, 1 << 3, 0)], 0x2E7, 2696),
        ([AVX, CpuidLeaf(7, 0, True, 0, 0, 0, 1 << 24)], 0x6_0007, 11008),
    ],
)
def test_the_xsave_area_is_as_large_as_the_features_ask(features, allowed, size):
    """Sizes and offsets of a Sapphire Rapids: what a feature needs is there, nothing else, and fits."""
    parts = {2: (256, 576), 5: (64, 1088), 6: (512, 1152), 7: (1024, 1664), 9: (8, 2688), 17: (64, 2752)}
    parts[18] = (8192, 2816)
    areas = [CpuidLeaf(0xD, n, True, *part, 0, 0) for n, part in parts.items()]
    supervisor = CpuidLeaf(0xD, 11, True, 16, 0, 1, 0)
    head = CpuidLeaf(0xD, 0, True, 0x6_02E7, 11008, 11008, 0)
    table = CpuTable([*features, head, CpuidLeaf(0xD, 1, True, 0xF, 0, 0x800, 0), *areas, supervisor])
    after = normalise(table, Topology(), 0)
    main = after.leaf(0xD)
    assert (main.eax, main.ebx, main.ecx, main.edx) == (allowed, 576, size, 0)
    kept = {leaf.index for leaf in after.leaves if leaf.function == 0xD}
    assert kept == {0, 1, 11} | {n for n in parts if allowed >> n & 1}


@given(topologies())
def test_apic_ids_are_made_of_fields(topology):
    """Each id splits at the shifts into the numbers of thread, core, die and socket, all in range."""
    for index in range(topology.cpus):
        apic_id = topology.apic_id(index)
        thread = apic_id % (1 << topology.core_shift)
        core = apic_id % (1 << topology.die_shift) >> topology.core_shift
        die = apic_id % (1 << topology.socket_shift) >> topology.die_shift
        socket = apic_id >> topology.socket_shift
        assert (thread < topology.threads, core < topology.cores, die < topology.dies) == (True, True, True)
        place = ((socket * topology.dies + die) * topology.cores + core) * topology.threads + thread
        assert place == index
    assert Topology.parse(str(topology)) == topology


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Topology.parse("2:2"), r"^topology '2:2' is not THREADS:CORES:DIES:SOCKETS .* 2:4:1:1$"),
        (lambda: Topology.parse("2:x:1:1"), r"^topology '2:x:1:1' is not THREADS:"),
        (lambda: Topology.parse("2:-1:1:1"), r"^topology '2:-1:1:1' is not THREADS:"),
        (lambda: Topology.parse("²:1:1:1"), r"^topology '²:1:1:1' is not THREADS:"),
        (lambda: Topology(cores=0), r"^topology cores: 0 is not within 1 … 65536$"),
        (
            lambda: Topology(65536, 65536),
            r"^topology 65536:65536:1:1: APIC id 0xffffffff has more than 32 bits$",
        ),
        (lambda: Topology(2).apic_id(2), r"^processor 2 is not within 0 … 1 of topology 2:1:1:1$"),
        (lambda: normalise(REAL["amd"], Topology(), -1), r"^processor -1 is not within 0 … 0 of"),
    ],
)
def test_impossible_topologies_are_refused(make, message):
    """With what was given and what can be."""
    with pytest.raises(CpuidError, match=message):
        make()


@pytest.mark.parametrize("topology", [Topology(2, 2), Topology(2, 3, 1, 2), Topology(4, 2), Topology(2, 5)])
def test_the_program_cpuid_agrees(topology, tmp_path):
    """Another decoder counts the same threads and cores, and reads the same APIC ids, in every processor."""
    program = shutil.which("cpuid")
    if program is None:
        pytest.skip("cpuid is not installed")
    dump = tmp_path / "dump"
    dump.write_text("".join(normalise(REAL["intel"], topology, n).to_text() for n in range(topology.cpus)))
    told = subprocess.run([program, "-f", dump], capture_output=True, text=True, check=True).stdout
    threads = f", hyper-threaded (t={topology.threads})" if topology.threads > 1 else ""
    counts = f"multi-core (c={topology.cores}){threads}"
    assert re.findall(r"\(multi-processing synth\) = (.*)", told) == [counts] * topology.cpus
    assert set(re.findall(r"\(multi-processing method\) = (.*)", told)) == {"Intel leaf 0xb"}
    ids = [int(match) for match in re.findall(r"process local APIC physical ID = \S+ \((\d+)\)", told)]
    assert ids == [topology.apic_id(index) for index in range(topology.cpus)]
