"""`vmm cpuid`: dumps that come back, differences, templates, and what it says to mistakes."""

import subprocess
import sys

import pytest
from vm_hypervisor.cpuid import CpuidLeaf, CpuTable, Topology, normalise
from vmm_reference._cli import main

TABLE = CpuTable(
    [
        CpuidLeaf(0, 0, False, 0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69),
        CpuidLeaf(1, 0, False, 0x806F8, 0x800, 1 | 1 << 21, 1 << 25),
    ],
    {0x10A: 0x2B},
)


@pytest.fixture
def dump(tmp_path):
    """Return the path of a dump of TABLE."""
    path = tmp_path / "table.txt"
    path.write_text(TABLE.to_text())
    return str(path)


def test_dumps(dump, capsys):
    """As it is; without MSRs; as every processor of a machine sees it."""
    assert main(["cpuid", "dump", dump]) == 0
    assert capsys.readouterr().out == TABLE.to_text()
    assert main(["cpuid", "dump", dump, "--leaves-only", "--topology", "2:1:1:1"]) == 0
    bare, topology = CpuTable(TABLE.leaves), Topology(2)
    expected = "".join(normalise(bare, topology, index).to_text(index) for index in range(2))
    assert capsys.readouterr().out == expected


def test_template(dump, tmp_path, capsys):
    """A file of one's own is applied; the built-in ones are listed."""
    mine = tmp_path / "mine.toml"
    mine.write_text('[[cpuid]]\nleaf = 1\nregister = "ecx"\nkeep = ["sse3"]\n')
    assert main(["cpuid", "dump", dump, "--template", str(mine)]) == 0
    assert "ecx=0x00000001 edx=0x02000000" in capsys.readouterr().out
    assert main(["cpuid", "templates"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["host", "t2"]


def test_show(dump, capsys):
    """Vendor, names, MSRs."""
    assert main(["cpuid", "show", dump]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "GenuineIntel, signature 0x806f8, 2 leaves",
        "0x1.0 ecx: sse3 x2apic",
        "0x1.0 edx: sse",
        "msr 0x10a: 0x2b",
    ]


def test_diff(dump, tmp_path, capsys):
    """Status 0 and silence when two are alike, 1 and a line a register when not."""
    assert main(["cpuid", "diff", dump, dump]) == 0
    assert capsys.readouterr().out == ""
    other = tmp_path / "other.txt"
    other.write_text(CpuTable(TABLE.leaves[:1]).to_text())
    assert main(["cpuid", "diff", dump, str(other)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "0x1.0 eax: 0x806f8 → 0x0",
        "0x1.0 ebx: 0x800 → 0x0",
        "0x1.0 ecx: 0x200001 → 0x0 -sse3 -x2apic",
        "0x1.0 edx: 0x2000000 → 0x0 -sse",
        "msr 0x10a: 0x2b → none",
    ]


@pytest.mark.kvm
def test_this_machine(capsys):
    """Without a file it is this machine's KVM, which does not differ from itself."""
    assert main(["cpuid", "dump"]) == 0
    assert CpuTable.from_text(capsys.readouterr().out).vendor
    assert main(["cpuid", "diff", "host"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["show", "/none"],
            "cpuid: /none: No such file or directory; give a dump, or host for",
        ),
        (
            ["show", "/dev/null"],
            "cpuid show: /dev/null: no CPUID leaf in it; make a dump with `vmm cp",
        ),
        (
            ["dump", "DUMP", "--topology", "2"],
            "cpuid dump: topology '2' is not THREADS:CORES:DIES:",
        ),
        (
            ["dump", "DUMP", "--template", "t9"],
            "cpuid dump: CPU template 't9' is not built in; there",
        ),
        (
            ["dump", "DUMP", "--template", "t2"],
            "cpuid dump: CPU template t2 needs pclmulqdq, ssse3, ",
        ),
    ],
)
def test_mistakes(words, message, dump, capsys):
    """One line on stderr, status 2, nothing on stdout."""
    assert main(["cpuid", *(dump if word == "DUMP" else word for word in words)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"vmm: {message}")


def test_a_reader_that_leaves(dump):
    """A pipe that is closed early is no error."""
    command = [sys.executable, "-m", "vmm_reference", "cpuid", "dump", dump, "--topology", "1:254:1:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_this_machine_may_have_no_cpuid(monkeypatch, capsys):
    """On another architecture a dump is asked for, before any KVM."""
    monkeypatch.setattr("vmm_reference._cpuid.HOST", "aarch64")
    assert main(["cpuid", "show"]) == 2
    expected = "vmm: cpuid: this machine is aarch64, only x86-64 processors have CPUID; give a dump\n"
    assert capsys.readouterr().err == expected
