"""What is looked at before anything is built."""

import os
from pathlib import Path

import pytest
from vmm_reference import ConfigError, MemoryConfig, VmConfig
from vmm_reference._files import check_memory, open_for_output


@pytest.mark.parametrize(("swap", "fits"), [(0, False), (1 << 20, True)])
def test_memory_is_ram_and_swap(tmp_path, swap, fits):
    """Swap counts; what does not fit is named with what there is."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {1 << 20} kB\nMemFree: 5 kB\nSwapTotal: {swap} kB\nodd line\n")
    config = VmConfig(Path("k"), memory=MemoryConfig(2 << 30))
    if fits:
        assert check_memory(config, meminfo) is None
    else:
        with pytest.raises(ConfigError) as caught:
            check_memory(config, meminfo)
        assert str(caught.value) == (
            "--memory size: 2048M is more than the 1024M of RAM and swap here; ask for less"
        )


@pytest.mark.parametrize(
    ("options", "fits"),
    [({"size": 3 << 20}, True), ({"size": 17 << 20}, False), ({"size": 17 << 20, "hugepages": True}, True)],
    ids=["fits", "too-much", "from-the-pool"],
)
def test_memory_to_be_touched_at_once_has_to_be_free(tmp_path, options, fits):
    """Without prefault, RAM in use now may be free when the guest wants it; huge pages are a pool."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(
        "MemTotal: 1048576 kB\nMemAvailable: 14336 kB\nSwapTotal: 8192 kB\nSwapFree: 2048 kB\n"
    )
    size = options.pop("size") + (13 << 20)
    config = VmConfig(Path("k"), memory=MemoryConfig(size, prefault=True, **options))
    assert check_memory(VmConfig(Path("k"), memory=MemoryConfig(size, **options)), meminfo) is None
    if fits:
        assert check_memory(config, meminfo) is None
    else:
        with pytest.raises(ConfigError) as caught:
            check_memory(config, meminfo)
        assert str(caught.value) == (
            "--memory prefault: 30M is more than the 16M that are free here; ask for less, or prefault=off"
        )


def test_output_files(tmp_path):
    """A file is made or truncated, and not inherited by programs that we start."""
    path = tmp_path / "out"
    path.write_text("old")
    fd = open_for_output(path)
    assert (path.read_text(), os.get_inheritable(fd)) == ("", False)
    os.close(fd)
