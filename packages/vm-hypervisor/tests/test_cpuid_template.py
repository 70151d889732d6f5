"""Templates: read from files, applied to processors that have what they need, refused otherwise."""

import os
import re
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_hypervisor import CpuidError
from vm_hypervisor.cpuid import (
    BUILT_IN,
    CpuidLeaf,
    CpuTable,
    MsrRule,
    RegisterRule,
    Template,
    Topology,
    diff,
    normalise,
)

DUMPS = Path(__file__).parent / "dumps"
AMD = CpuTable.from_text((DUMPS / "amd.txt").read_text())
WORD = st.integers(0, 0xFFFF_FFFF)
ALL = 0xFFFF_FFFF


def server(features=ALL, **registers):
    """Return an Intel server that has every feature of `features`."""
    leaves = [
        CpuidLeaf(0, 0, False, 0x20, 0x756E_6547, 0x6C65_746E, 0x4965_6E69),
        CpuidLeaf(1, 0, False, 0x806F8, 0x800, features, features),
        CpuidLeaf(6, 0, False, 0x77, 2, 9, 0),
        *(CpuidLeaf(7, n, True, 2, features, features, features) for n in range(3)),
        *(CpuidLeaf(0xD, n, True, features, features, features, features) for n in range(2)),
        CpuidLeaf(0x8000_0001, 0, False, 0, 0, features, features),
        CpuidLeaf(0x8000_0007, 0, False, 0, 0, 0, 0x100),
        CpuidLeaf(0x8000_0008, 0, False, 0x3930, features, 0, 0),
    ]
    return CpuTable(leaves, {0x10A: 2**64 - 1, **registers})


def test_host_changes_nothing():
    """The template `host` gives the processor as it is, without its MSRs."""
    assert Template.load("host").apply(AMD) == CpuTable(AMD.leaves)


def test_servers_look_alike():
    """Under t2 a newer server has the features of an older one, and its family, model and stepping."""
    template = Template.load("t2")
    new, old = server(), server()
    # What Haswell lacks: AVX-512, SHA, PKU, VNNI; another model.
    old = old.replaced(
        [
            attrs.evolve(old.leaf(1), eax=0x306F2),
            attrs.evolve(old.leaf(7), ebx=0x0000_27AB, ecx=0, edx=0xBC00_0400),
            attrs.evolve(old.leaf(7, 1), eax=0, edx=0),
        ]
    )
    assert diff(template.apply(new), template.apply(old)) == ()
    after = template.apply(new)
    assert after.value(1, "eax") == 0x306F2
    assert not after.value(7, "ebx") & (1 << 16 | 1 << 14 | 1 << 11 | 1 << 4)  # AVX-512, MPX, TSX
    assert after.value(7, "ebx") & 1 << 5  # AVX2
    assert after.msrs == {0x10A: 0x16B}


# Processors before Cascade Lake have no MSR 0x10a: KVM makes one up, of what it does itself (PSCHANGE_MC_NO,
# SKIP_L1DFL_VMENTRY).
MADE_UP = {0x10A: 0x48}
SERVERS = {
    name: attrs.evolve(table, msrs=table.msrs or MADE_UP)
    for name in ("haswell", "broadwell", "skylake", "cascadelake", "icelake", "sapphirerapids")
    for table in [CpuTable.from_text((DUMPS / f"{name}.txt").read_text())]
}
# What the template says stays the host's: caches, width of addresses, what it does against its flaws.
STAYS = re.compile(r"(0x2|0x4|0x80000006)\.\d e.x|0x80000008\.0 eax|0x7\.0 edx|msr 0x10a")
MITIGATIONS = {
    *("md_clear", "spec_ctrl", "intel_stibp", "flush_l1d", "arch_capabilities", "spec_ctrl_ssbd"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_t2_makes_real_servers_one(name):
    """Six generations as they really are: all have what t2 needs, and show the same but for what it names."""
    template, topology = Template.load("t2"), Topology(threads=2, cores=3, dies=1, sockets=2)
    for index in range(topology.cpus):
        first, second = (
            normalise(template.apply(SERVERS[server]), topology, index) for server in ("haswell", name)
        )
        differences = [one for one in diff(first, second) if not one.where.startswith("0x4000")]
        for one in differences:
            assert STAYS.fullmatch(one.where), one
            assert {*one.only_first, *one.only_second} <= MITIGATIONS
        assert second.value(0, "eax") == 0xD
        assert second.value(1, "eax") == 0x306F2
        assert (second.value(0xD, "ecx"), second.value(0xD, "ebx", 1)) == (0x340, 0)
        assert max(leaf.function for leaf in second.leaves if leaf.function < 0x4000_0000) == 0xD
        assert second.value(0x8000_0008, "eax") >> 8 == 48


def test_differences_of_real_servers_have_names():
    """Ice Lake against Haswell: what the newer one added, by the names of /proc/cpuinfo."""
    found = {one.where: one for one in diff(SERVERS["haswell"], SERVERS["icelake"])}
    added = found["0x7.0 ebx"].only_second
    assert {"avx512f", "avx512vl", "clflushopt", "sha_ni", "rdseed", "adx", "smap", "rtm"} <= {*added}
    assert {"umip", "avx512_vnni", "vaes", "gfni", "la57", "rdpid"} <= {*found["0x7.0 ecx"].only_second}
    assert {"avx2", "bmi2", "fsgsbase", "erms"}.isdisjoint(added)
    assert found["0xd.1 eax"].only_second == ("xsavec", "xgetbv1", "xsaves")
    assert found["0x80000001.0 ecx"].only_second == ("3dnowprefetch",)
    assert found["0x1.0 eax"].only_second == ()  # family, model and stepping are no features
    assert (found["0x1.0 eax"].first, found["0x1.0 eax"].second) == (0x306F2, 0x606A0)
    named = [name for one in found.values() for name in (*one.only_first, *one.only_second)]
    # Of leaf 6: how firmware overrides the frequency, which Linux has no name for.
    assert [name for name in named if name.startswith("bit ")] == ["bit 16"]


def test_a_range_ends_where_the_template_says():
    """Leaves behind the last are gone, of its own range only; a shorter range stays as it is."""
    table = SERVERS["sapphirerapids"]
    short = Template.parse("last = [0x7, 0x80000020]", "x").apply(table)
    assert short.leaves[1:] == tuple(
        leaf for leaf in table.leaves[1:] if leaf.function <= 7 or leaf.function >= 0x4000_0000
    )
    assert (short.value(0, "eax"), short.value(0x8000_0000, "eax")) == (7, 0x8000_0008)
    assert short.leaf(0) == attrs.evolve(table.leaf(0), eax=7)


def test_t2_needs_its_features():
    """Another vendor, a missing feature, a missing MSR: each is named, with what to do."""
    template = Template.load("t2")
    with pytest.raises(
        CpuidError, match=r"^CPU template t2 is for GenuineIntel, .* AuthenticAMD; use template"
    ):
        template.apply(AMD)
    table = server()
    without = table.replaced([attrs.evolve(table.leaf(7), ebx=ALL & ~(1 << 5 | 1 << 3))])
    message = r"^CPU template t2 needs bmi1, avx2 \(0x7\.0 ebx\), which this host cannot give a guest; use "
    with pytest.raises(CpuidError, match=message):
        template.apply(without)
    with pytest.raises(CpuidError, match=r"^CPU template t2 needs msr 0x10a, which this host cannot"):
        template.apply(CpuTable(table.leaves))


MASKS = st.integers(0, ALL)


@given(MASKS, MASKS, MASKS, MASKS)
def test_masks_apply_bit_by_bit(value, need, keep, set_):
    """Each bit: set wins, then need and keep pass the host's; a bit that is needed and lacks is an error."""
    table = CpuTable([CpuidLeaf(0x19, 0, False, value, 1, 2, 3)], {5: value})
    rules = (RegisterRule(0x19, 0, "eax", need, keep, set_),)
    msrs = (MsrRule(5, need, keep, set_),)
    expected = sum(
        1 << bit
        for bit in range(32)
        if set_ >> bit & 1 or (value >> bit & 1 and (need >> bit & 1 or keep >> bit & 1))
    )
    for template in (Template("x", registers=rules), Template("x", msrs=msrs)):
        if need & ~value:
            with pytest.raises(CpuidError, match=r"^CPU template x needs "):
                template.apply(table)
            continue
        after = template.apply(table)
        assert after.value(0x19, "eax") == (expected if template.registers else value)
        assert after.msrs == ({5: expected} if template.msrs else {})
        assert (after.value(0x19, "ebx"), after.value(0x19, "ecx"), after.value(0x19, "edx")) == (1, 2, 3)


def test_a_leaf_can_be_made():
    """A rule that sets bits of a leaf that is not there makes it; one that clears does not."""
    template = Template(
        "x", registers=(RegisterRule(7, 1, "eax", set=1 << 4), RegisterRule(9, 0, "eax", keep=1))
    )
    assert template.apply(CpuTable([])).leaves == (CpuidLeaf(7, 1, True, 1 << 4, 0, 0, 0),)


def test_files_are_read(tmp_path):
    """Names and numbers, all keys; a path is told from a name by its slash or suffix."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'description = "d"\nvendor = "AuthenticAMD"\n[[cpuid]]\nleaf = 0x1\nregister = "ecx"\n'
        'need = ["sse3"]\nkeep = 0x202\nset = ["hypervisor"]\n[[msr]]\nindex = 0x8B\nkeep = 0xFF\n'
    )
    template = Template.load(path)
    assert template.registers == (RegisterRule(1, 0, "ecx", 1, 0x202, 1 << 31),)
    assert (template.description, template.vendor, template.msrs) == (
        "d",
        "AuthenticAMD",
        (MsrRule(0x8B, 0, 0xFF),),
    )
    assert [Template.load(name).name for name in BUILT_IN] == list(BUILT_IN)


RULE = "[[cpuid]]\nleaf = 1\nregister = 'ecx'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[cpuid", r"^CPU template t: Expected"),
        ("colour = 1", r"unknown key 'colour'; known are cpuid, description, last, msr, vendor$"),
        ("last = 0xD", r"^CPU template t: last=13 is no list of leaves$"),
        ("last = [-1]", r"last=-1 in .* is no number of 32 bits$"),
        ("last = [0xD, 1]", r"two rules for the last leaf of range 0x0; make one of them$"),
        ("last = [0]\n" + RULE, r"0x1\.0 ecx is behind the last leaf; drop the rule or move that$"),
        ("vendor = 1", r"vendor=1 is no text$"),
        ("cpuid = 1", r"cpuid is 1, not a list of tables; write \[\[cpuid\]\] before each$"),
        ("[[cpuid]]\nregister = 'eax'", r"leaf=None in .* is no number of 32 bits$"),
        ("[[cpuid]]\nleaf = 0x100000000", r"leaf=4294967296 in .* is no number of 32 bits$"),
        (
            "[[cpuid]]\nleaf = 1\nregister = 'rax'",
            r"register='rax' of leaf 0x1 is none of eax, ebx, ecx, edx$",
        ),
        (RULE + "keep = true", r"keep=True in .* is no number of 32 bits$"),
        (
            RULE + "keep = ['sse33']",
            r"'sse33' is no bit of 0x1\.0 ecx; did you mean sse3\? A mask such as 0x3",
        ),
        (RULE + "keep = [1]", r"1 is no bit of 0x1\.0 ecx"),
        (
            "[[cpuid]]\nleaf = 9\nregister = 'eax'\nset = ['x']",
            r"'x' is no bit of 0x9\.0 eax; known are none",
        ),
        (RULE + "clear = 1", r"unknown key 'clear'; known are index, keep, leaf, need, register, set$"),
        (RULE + RULE, r"two rules for 0x1\.0 ecx; make one of them$"),
        ("[[msr]]\nindex = 1\n[[msr]]\nindex = 1", r"two rules for msr 0x1; make one of them$"),
        ("[[msr]]\nindex = -1", r"index=-1 in .* is no number of 32 bits$"),
    ],
)
def test_mistakes_in_a_template(text, message):
    """Say where, what, and what would be right."""
    with pytest.raises(CpuidError, match=message):
        Template.parse(text, "t")


@given(st.text())
def test_any_text_is_a_template_or_an_error(text):
    """Nothing but a CpuidError comes out of what is no template."""
    with suppress(CpuidError):
        assert Template.parse(text, "t").name == "t"


def test_names_that_are_none(tmp_path):
    """An unknown name lists those there are; a file says what is wrong with it."""
    with pytest.raises(
        CpuidError, match=r"^CPU template 't3' is not built in; there are host, t2, or give a file"
    ):
        Template.load("t3")
    with pytest.raises(
        CpuidError, match=r"^CPU template .*/none\.toml: No such file or directory; give the path"
    ):
        Template.load(tmp_path / "none.toml")
    (tmp_path / "raw.toml").write_bytes(b"\xff")
    with pytest.raises(
        CpuidError, match=r"^CPU template .*/raw\.toml: no UTF-8 at byte 0; a template is TOML$"
    ):
        Template.load(tmp_path / "raw.toml")


def test_only_a_whole_regular_file_is_a_template(tmp_path):
    """A pipe can be read once and a long file was cut: both would mask less than was meant."""
    os.mkfifo(tmp_path / "pipe.toml")
    for path, why in ((tmp_path / "pipe.toml", "is not a regular file"), (tmp_path, "is not a regular file")):
        with pytest.raises(CpuidError, match=why):
            Template.load(f"{path}/" if path == tmp_path else path)
    long = tmp_path / "long.toml"
    long.write_text("# " + "x" * (1 << 20))
    with pytest.raises(CpuidError, match="more than 1048576 characters"):
        Template.load(long)
