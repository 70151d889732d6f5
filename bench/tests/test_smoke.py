"""Each benchmark runs, with counts that mean nothing. Peers are absent here, and their rows say so."""

import importlib
import shutil

import p9_boot
import pytest
import run as bench
import yardsticks
from harness import Options

TINY = Options(1, 1, 100)
TOOLS = ("make", "cc", "gcc", "as", "ld", "mkdir", "sh", "python3")


@pytest.fixture(autouse=True)
def no_peers(tmp_path, monkeypatch):
    """A machine with a C compiler and nothing else: neither cargo nor QEMU."""
    for tool in TOOLS:
        if (path := shutil.which(tool)) is not None:
            (tmp_path / tool).symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path))
    yardsticks.peer.cache_clear()
    yield
    yardsticks.peer.cache_clear()


@pytest.mark.parametrize("figure", ["P1", "P3", "P4", "P5"])
def test_without_kvm(figure, capsys):
    """Every row has our figure; beside the C floor there is a ratio, the Rust crates are missing."""
    rows = bench.measure([figure], TINY)
    assert all(row.ours > 0 for row in rows if "floor check" not in row.what)
    assert {row.status for row in rows if "vm-memory" in row.yardstick_name} == {"missing"}
    assert all(row.ratio for row in rows if row.yardstick_name in {"C floor", "memcpy"})
    assert "missing" in capsys.readouterr().out


@pytest.mark.kvm
@pytest.mark.parametrize("figure", ["P6", "P7", "P8"])
def test_with_any_kvm(figure):
    """Every row has our figure and, but for QEMU's, its yardstick."""
    rows = bench.measure([figure], TINY)
    assert rows
    assert all(row.ours > 0 for row in rows)
    assert [row for row in rows if row.ratio is None] == [row for row in rows if "QEMU" in row.yardstick_name]


@pytest.mark.kvm_full
def test_a_boot_is_timed_from_both_ends(monkeypatch):
    """Our VMM and the floor reach userspace, later from process start than from the first KVM_RUN."""
    monkeypatch.undo()  # the floor's initramfs and tables may have to be made
    yardsticks.floor("floor", "initramfs.cpio", "acpi.bin")
    kernel = importlib.import_module("guest").debian_guest().image
    for name in ("ours", p9_boot.FLOOR):
        whole, inside = p9_boot.CONTENDERS[name](kernel)
        assert whole > inside > 0
