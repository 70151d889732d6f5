"""With the sibling's real guest memory instead of the recording one."""

from linux_loader import BootProtocol, KernelImage, load
from linux_loader.testing import build_bzimage
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

MIB = 1 << 20


def test_kernel_across_two_regions(vmlinux):
    """A segment that spans adjacent regions arrives whole, and a file-backed view is accepted."""
    split = 16 * MIB + 4096
    regions = [GuestRegionMmap.memfd(0, split), GuestRegionMmap.memfd(split, 64 * MIB - split)]
    memory = GuestMemoryMmap(regions)
    ram = [(r.base, r.size) for r in regions]
    loaded = load(
        memory, KernelImage.from_bytes(vmlinux), ram_ranges=ram, protocol=BootProtocol.PVH, cmdline="a b"
    )
    assert memory.read(16 * MIB, 5000) == b"\xf4" * 5000
    assert memory.read(loaded.cmdline_addr, 4) == b"a b\0"
    assert len(loaded.memory_map) == 3


def test_path_and_memory_of_the_vmm(tmp_path, vmlinux):
    """The combination a VMM uses: files in, memfd out."""
    (tmp_path / "vmlinuz").write_bytes(build_bzimage(vmlinux))
    (tmp_path / "initrd").write_bytes(b"070701" * 1000)
    memory = GuestMemoryMmap([GuestRegionMmap.memfd(0, 64 * MIB)])
    loaded = load(memory, tmp_path / "vmlinuz", ram_ranges=[(0, 64 * MIB)], initrd=tmp_path / "initrd")
    assert memory.read(loaded.initrd_range.base, 6000) == b"070701" * 1000
    assert memory.read(loaded.entry.rip, 4) == b"\xf4" * 4
