"""Processors grouped as asked for, and one that shows what a template leaves of it, as Linux sees them."""

import itertools
import json
import math
import random
import re

import guest
import pytest
from vm_hypervisor.cpuid import Topology
from vmm_reference import CpusConfig, EndReason, PlatformConfig, Tables
from vmm_testhost.pytest_plugin import LONG

pytestmark = pytest.mark.timeout(300)

# Drawn once from 1 … 3 for each level, at most 8 processors; holes between APIC ids at every level.
DRAWN = ["1:3:2:1", "2:1:2:2", "2:3:1:1", "1:1:3:2", "3:1:1:2", "1:1:1:3"]


def draw(seed):
    """Return six more, each by a name that tells the seed."""
    levels = itertools.product(*[range(1, 4)] * 4)
    fit = {":".join(map(str, counts)) for counts in levels if 2 <= math.prod(counts) <= 8}
    drawn = random.Random(seed).sample(sorted(fit - {*DRAWN}), 6)
    return {f"{asked}-seed-{seed:08x}": asked for asked in drawn}


ON_X86 = {asked: asked for asked in (DRAWN if LONG else DRAWN[:2])}
if LONG:
    ON_X86 |= draw(random.getrandbits(32))
ACPI, FDT = Tables.ACPI, Tables.FDT
ON_ARM64 = [("2:1:2:1", ACPI), ("1:1:2:2", FDT), ("2:1:2:2", FDT), ("1:3:2:1", ACPI)]
MACHINES = [
    *(
        pytest.param("x86_64", asked, None, marks=pytest.mark.kvm_full, id=name)
        for name, asked in ON_X86.items()
    ),
    *(
        pytest.param("aarch64", asked, tables, marks=pytest.mark.arm64, id=f"{asked}-aarch64-{tables.value}")
        for asked, tables in (ON_ARM64 if LONG else ON_ARM64[:1])
    ),
]
# What Linux calls the groups between package and core; on AArch64 a processor's die is itself.
DIES = {"x86_64": "die", "aarch64": "cluster"}[guest.ARCH]

SCRIPT = rf"""
lscpu -J > /lscpu
echo guest: lscpu $(cat /lscpu)
cd /sys/devices/system/cpu
for cpu in cpu[0-9]*; do
  cd $cpu/topology
  echo guest: $cpu $(cat core_cpus_list {DIES}_cpus_list package_cpus_list)
  cd ../..
done
echo guest: apicids $(grep ^apicid /proc/cpuinfo | cut -d: -f2)
poweroff -f
"""


def cpu_list(text: str) -> set[int]:
    """Return the processors of a list of the kernel's, such as 0-1,4."""
    ends = [part.partition("-") for part in text.split(",")]
    return {cpu for first, _, last in ends for cpu in range(int(first), int(last or first) + 1)}


def group(cpu: int, size: int) -> set[int]:
    """Return the processors of a group of `size` that `cpu` is in; groups follow each other."""
    return set(range(cpu - cpu % size, cpu - cpu % size + size))


@pytest.mark.parametrize(("arch", "asked", "tables"), MACHINES)
def test_linux_reports_the_topology_asked_for(boot, arch, asked, tables):
    """`lscpu -J` counts sockets, cores and threads, sysfs groups the processors; APIC ids have holes."""
    threads, cores, dies, sockets = map(int, asked.split(":"))
    count = threads * cores * dies * sockets
    config = CpusConfig.parse(f"boot={count},topology={asked}")
    with boot(
        # No line of the kernel between ours: on one processor of an emulated host, RCU finds eight slow.
        modules=(),
        jobs="loglevel=1",
        cpus=config,
        platform=PlatformConfig(tables=tables),
        script=SCRIPT,
        programs=["lscpu"],
    ) as machine:
        assert machine.end(240).reason is EndReason.POWEROFF
        text = machine.console.text
    found = re.search(r"guest: lscpu (\{.*\})\n", text)
    assert found, text
    told = dict(fields(json.loads(found[1])["lscpu"]))
    assert told["CPU(s):"] == str(count)
    assert told["Thread(s) per core:"] == str(threads)
    if tables is not FDT:  # on AArch64 lscpu asks the PPTT whether there are sockets
        assert told["Core(s) per socket:"] == str(cores * dies)
        assert told["Socket(s):"] == str(sockets)
    groups = dict(re.findall(r"guest: cpu(\d+) (\S+ \S+ \S+)\n", text))
    assert set(map(int, groups)) == set(range(count))
    for cpu, lists in groups.items():
        core, die, package = map(cpu_list, lists.split())
        assert core == group(int(cpu), threads)
        assert die == group(int(cpu), threads * cores)
        assert package == group(int(cpu), threads * cores * dies)
    if arch == "aarch64":  # the ids are KVM's
        return
    ids = " ".join(str(Topology.parse(asked).apic_id(cpu)) for cpu in range(count))
    assert f"guest: apicids {ids}\n" in text


def fields(entries):
    """Yield (field, data) of lscpu's JSON, whose later versions nest."""
    for entry in entries:
        yield entry["field"], entry["data"]
        yield from fields(entry.get("children", ()))


@pytest.mark.kvm_full
def test_guest_sees_what_a_template_leaves(boot, tmp_path):
    """Features that a file clears are gone from /proc/cpuinfo; stepping and MSR that it sets are there."""
    template = tmp_path / "plain.toml"
    template.write_text(
        "[[cpuid]]\nleaf = 0x1\nregister = 'eax'\nset = 0x00060fb7\n"
        "[[cpuid]]\nleaf = 0x1\nregister = 'ecx'\nkeep = ['sse3', 'ssse3', 'cx16', 'x2apic']\n"
        # Linux reads its microcode's revision there, Intel's in the upper half and AMD's in the lower.
        "[[msr]]\nindex = 0x8B\nset = 0x0BADCAFE0BADCAFE\n"
    )
    script = "grep -m3 -E '^(flags|stepping|microcode)' /proc/cpuinfo | sed 's/^/guest: /'\npoweroff -f\n"
    with boot(modules=(), cpus=CpusConfig(template=str(template)), script=script) as machine:
        assert machine.end(240).reason is EndReason.POWEROFF
        text = machine.console.text
    flags = set(re.search(r"guest: flags\s*: (.*)\n", text)[1].split())
    assert re.search(r"guest: stepping\s*: 7\n", text)
    assert re.search(r"guest: microcode\s*: 0xbadcafe\n", text)
    assert {"ssse3", "cx16", "sse2", "hypervisor"} <= flags
    assert not flags & {"rdrand", "aes", "popcnt", "sse4_1"}
