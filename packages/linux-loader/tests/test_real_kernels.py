"""Kernels of distributions, where $VMM_TEST_KERNELS names a folder of them."""

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection
from linux_loader import BootProtocol, KernelImage, load, vmlinux_from_bzimage
from linux_loader.testing import RecordingMemory

MIB = 1 << 20
RAM = [(0, 512 * MIB)]


def test_bzimages_load_and_unpack(real_kernels, tmp_path):
    """Each kernel loads as bzImage, unpacks to what pyelftools reads alike, and loads both ways."""
    for path in real_kernels:
        with KernelImage.open(path) as image:
            header = image.bzimage
            loaded = load(RecordingMemory(RAM), image, ram_ranges=RAM, cmdline="quiet", rng_seed=bytes(32))
            assert loaded.entry.rip == header.pref_address + 0x200
            assert loaded.kernel_range.size >= header.init_size
        target = tmp_path / "vmlinux"
        vmlinux_from_bzimage(path, target)
        with KernelImage.open(target) as unpacked, target.open("rb") as file:
            oracle = ELFFile(file)
            wanted = [s for s in oracle.iter_segments() if s["p_type"] == "PT_LOAD"]
            assert [(s.memory.base, s.memory.size) for s in unpacked.elf.segments] == [
                (s["p_paddr"], s["p_memsz"]) for s in wanted
            ]
            for section in (s for s in oracle.iter_sections() if isinstance(s, NoteSection)):
                for note in section.iter_notes():
                    if note["n_name"] == "Xen" and note["n_type"] == 18:
                        assert int.from_bytes(note["n_descdata"], "little") == unpacked.elf.pvh_entry
            for protocol, entry in (
                (BootProtocol.LINUX64, oracle["e_entry"]),
                (BootProtocol.PVH, unpacked.elf.pvh_entry),
            ):
                memory = RecordingMemory(RAM)
                loaded = load(memory, unpacked, ram_ranges=RAM, protocol=protocol)
                assert loaded.entry.rip == entry
                for s in wanted:
                    file.seek(s["p_offset"])
                    assert memory.read(s["p_paddr"], s["p_filesz"]) == file.read(s["p_filesz"])
        target.unlink()
