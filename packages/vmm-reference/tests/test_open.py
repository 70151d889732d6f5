"""Memory as a configuration asks for it, and refusals in the option's words."""

import os
import re
import resource
from pathlib import Path

import pytest
from vmm_memory.arch.x86_64 import ram_ranges
from vmm_reference import ConfigError, MemoryConfig
from vmm_reference._open import _check_hugepages, guest_ram

GIB = 1 << 30


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (128 << 20, [(0, 128 << 20)]),
        (3 * GIB, [(0, 3 * GIB)]),
        (7 * GIB // 2, [(0, 3 * GIB), (4 * GIB, GIB // 2)]),
        (6 * GIB, [(0, 3 * GIB), (4 * GIB, 3 * GIB)]),
    ],
    ids=["128M", "3G", "3584M", "6G"],
)
def test_where_ram_is(size, expected):
    """What does not fit below the hole from 3 to 4 GiB is above it."""
    regions = list(guest_ram(MemoryConfig(size), ram_ranges(size)))
    assert [(region.base, region.size) for region in regions] == expected
    for region in regions:
        region.close()


@pytest.mark.parametrize(
    ("pool", "needed", "said"),
    [
        ((0, 0, 0), 8, "8 pages of 2 MiB are needed, 0 are free; echo 8 > "),
        ((10, 4, 0), 8, "8 pages of 2 MiB are needed, 4 are free; echo 14 > "),
        ((10, 10, 7), 8, "8 pages of 2 MiB are needed, 3 are free; echo 15 > "),
        ((10, 8, 0), 8, None),
        (None, 8, "this kernel has no pages of 2 MiB; hugepages=off"),
    ],
)
def test_a_pool_that_is_too_small(tmp_path, pool, needed, said):
    """Pages promised to others are not free, and the cure keeps what others have."""
    for name, value in zip(("nr", "free", "resv"), pool or (), strict=False):
        (tmp_path / f"{name}_hugepages").write_text(f"{value}\n")
    if said is None:
        assert _check_hugepages(needed, tmp_path) is None
        return
    with pytest.raises(ConfigError) as caught:
        _check_hugepages(needed, tmp_path)
    assert str(caught.value).startswith(f"--memory hugepages: {said}")


@pytest.mark.parametrize("shared", [True, False])
def test_prefault_has_every_page_there(shared):
    """Touched beforehand, RAM is in memory as a whole; else none of it is."""
    for prefault in (True, False):
        (region,) = guest_ram(MemoryConfig(32 << 20, shared=shared, prefault=prefault), ram_ranges(32 << 20))
        assert resident(region.host_address) == (32 << 20 if prefault else 0)
        region.close()


def resident(address):
    """Return the Rss in bytes of the mapping that begins at `address`, from smaps."""
    text = Path("/proc/self/smaps").read_text()
    (mapping,) = re.findall(rf"^0*{address:x}-.*?^Rss: +(\d+) kB", text, re.MULTILINE | re.DOTALL)
    return int(mapping) << 10


def test_what_the_kernel_refuses_is_the_options_error():
    """A limit on file sizes refuses the memfd: one error that names the option, and no descriptor left."""
    before = sorted(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ConfigError, match=r"^--memory size: .*File too large; ask for less$"):
            list(guest_ram(MemoryConfig(32 << 20), ram_ranges(32 << 20)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir("/proc/self/fd")) == before
