"""Guest RAM: its size and the hole in it, pages of 2 MiB, pages that are there beforehand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import guest
import pytest
from vmm_reference import BootProtocol, ConfigError, EndReason, MemoryConfig, VmConfig, Vmm

pytestmark = pytest.mark.kvm_full

MIB, GIB = 1 << 20, 1 << 30
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
SCRIPT = r"""
for entry in /sys/firmware/memmap/*; do
  echo guest: map $(cat $entry/start $entry/end) $(cat $entry/type)
done
echo guest: $(grep MemTotal /proc/meminfo)
echo guest: done
poweroff -f
"""


@attrs.frozen
class Pages:
    """What smaps says of guest RAM, in bytes: mapped, in memory (ordinary and huge), and the page size."""

    size: int
    resident: int
    page: int


def guest_pages() -> Pages:
    """Add up the mappings of the memfd that is guest RAM."""
    sizes = {"Size": 0, "Rss": 0, "Shared_Hugetlb": 0, "Private_Hugetlb": 0, "KernelPageSize": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = "/memfd:guest-ram" in line
        elif inside and (found := re.match(r"(\w+): +(\d+) kB$", line)) and found[1] in sizes:
            sizes[found[1]] += int(found[2]) << 10
    resident = sizes["Rss"] + sizes["Shared_Hugetlb"] + sizes["Private_Hugetlb"]
    return Pages(sizes["Size"], resident, sizes["KernelPageSize"])


def documented_map(size: int) -> list[tuple[int, int, str]]:
    """Return the memory map that a guest is told, from docs: RAM up to 3 GiB, the rest from 4 GiB on.

    The last KiB of the first 640 and all up to 1 MiB are the BIOS's.
    """
    below = min(size, 3 * GIB)
    entries = [(0, 0x9_FBFF, "System RAM"), (0x9_FC00, MIB - 1, "Reserved"), (MIB, below - 1, "System RAM")]
    if size > below:
        entries.append((4 * GIB, 4 * GIB + size - below - 1, "System RAM"))
    return entries


@pytest.fixture
def hugepages():
    """64 huge pages of 2 MiB for one test."""
    pool = POOL / "nr_hugepages"
    before = pool.read_text()
    pool.write_text("64")
    yield int((POOL / "free_hugepages").read_text())
    pool.write_text(before)


def check_map(boot, memory, protocol=BootProtocol.AUTO):
    """Boot with `memory`; the map that the kernel was told is the documented one. Return what smaps says."""
    with boot(modules=(), memory=memory, boot_protocol=protocol, script=SCRIPT) as machine:
        machine.console.expect("guest: done")
        pages = guest_pages()
        assert machine.end().reason is EndReason.POWEROFF
        text = machine.console.text
    found = re.findall(r"guest: map 0x(\w+) 0x(\w+) (.+)\n", text)
    entries = sorted((int(start, 16), int(end, 16), kind) for start, end, kind in found)
    assert entries == documented_map(memory.size)
    ram = sum(end - start + 1 for start, end, kind in entries if kind == "System RAM")
    assert 0 <= memory.size - ram <= MIB
    total = re.search(r"guest: MemTotal: (\d+) kB", text)
    assert total
    assert 0.6 * memory.size < int(total[1]) << 10 < memory.size
    assert pages.size == memory.size
    return pages


@pytest.mark.root_net  # the size of the pool is root's to set
def test_128_mib_of_huge_pages_touched_beforehand(boot, hugepages):
    """Every page is a huge one of the pool, and all are taken before the guest asks for any."""
    memory = MemoryConfig(128 * MIB, hugepages=True, prefault=True)
    assert hugepages == 64
    pages = check_map(boot, memory)
    assert pages == Pages(128 * MIB, 128 * MIB, 2 * MIB)
    assert (POOL / "free_hugepages").read_text() == "64\n"


@pytest.mark.parametrize(
    ("size", "protocol"),
    [(3584 * MIB, BootProtocol.PVH), (6 * GIB, BootProtocol.LINUX64)],
    ids=["3584M-pvh", "6G-linux64"],
)
def test_ram_around_the_hole(boot, size, protocol):
    """What does not fit below 3 GiB is at 4 GiB, by either boot protocol; only what is used is there."""
    pages = check_map(boot, MemoryConfig(size), protocol)
    assert pages.resident < GIB


@pytest.mark.root_net
def test_huge_pages_that_are_not_there(hugepages):
    """The refusal counts the whole machine and leaves the pool as it was."""
    config = VmConfig(guest.debian_guest().image, memory=MemoryConfig(256 * MIB, hugepages=True))
    said = r"^--memory hugepages: 128 pages of 2 MiB are needed, 64 are free; echo 128 > /proc/sys/vm/"
    with pytest.raises(ConfigError, match=said):
        Vmm(config)
    assert (POOL / "free_hugepages").read_text() == "64\n"
    assert (POOL / "resv_hugepages").read_text() == "0\n"


def test_more_beforehand_than_there_is():
    """`prefault=on` beyond what is free is refused in one line, and not left to the OOM killer."""
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    command = [sys.executable, "-m", "vmm_reference", "run", "--host", "kvm", "--kernel"]
    command += [str(guest.debian_guest().image), "--memory", f"size={have}M,prefault=on"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    said = (
        rf"--memory prefault: {have}M is more than the \d+M that are free here; ask for less, or prefault=off"
    )
    assert re.fullmatch(f"vmm: {said}\n", done.stderr)
