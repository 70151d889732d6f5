"""The system table that leads Linux to ACPI: read back by the specification's offsets, and refusals."""

import struct
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linux_loader import ConfigurationError, GuestRange, load_image
from linux_loader.testing import RecordingMemory, build_image
from linux_loader.uefi import ALIGNMENT, tables_address, uefi_handover

MIB, GIB = 1 << 20, 1 << 30
# The registry form of the GUIDs, as bytes lie in memory: three little-endian numbers, then eight bytes.
ACPI_20 = struct.pack("<IHH8s", 0x8868E871, 0xE4F1, 0x11D3, bytes.fromhex("bc220080c73c8881"))
RT_PROPERTIES = struct.pack("<IHH8s", 0xEB66918A, 0x7EEF, 0x402A, bytes.fromhex("842e931d21c38ae9"))
MEMRESERVE = struct.pack("<IHH8s", 0x888EB0C6, 0x8EDE, 0x4FF5, bytes.fromhex("a8f09aee5cb977c2"))
CONVENTIONAL, ACPI_RECLAIM = 7, 9


def handover(ram, address=None, size=0x1234, rsdp=0x55AA):
    """Of tables right behind a system table at the begin of the first range."""
    base = ram[0][0] if address is None else address
    return uefi_handover(base, GuestRange(tables_address(base), size), rsdp, ram)


def chosen(result):
    """The properties by which Linux finds it, as numbers."""
    (node,) = result.fdt.root.children
    assert node.name == "chosen"
    return {
        name.removeprefix("linux,uefi-"): int.from_bytes(data, "big")
        for name, data in node.properties.items()
    }


def memory_map(result):
    """(type, base, size, attributes) of each entry."""
    found, start = chosen(result), chosen(result)["mmap-start"] - result.address
    entries = []
    for at in range(start, start + found["mmap-size"], found["mmap-desc-size"]):
        kind, base, virtual, pages, attributes = struct.unpack_from("<I4xQQQQ", result.blob, at)
        assert virtual == 0
        entries.append((kind, base, pages * 4096, attributes))
    return entries


def test_the_system_table():
    """Signature, size, checksum, no services, three configuration tables."""
    result = handover([(GIB, 64 * MIB)])
    assert chosen(result)["system-table"] == result.address == GIB
    assert (chosen(result)["mmap-desc-ver"], chosen(result)["secure-boot"]) == (1, 2)
    blob = result.blob
    signature, revision, size, crc, reserved = struct.unpack_from("<8sIIII", blob)
    assert (signature, revision >> 16, size, reserved) == (b"IBI SYST", 2, 120, 0)
    assert crc == zlib.crc32(blob[:16] + bytes(4) + blob[20:size])
    vendor, *pointers, count, tables = struct.unpack_from("<Q8x8QQQ", blob, 24)
    assert pointers == [0] * 8
    assert blob[vendor - GIB :].decode("utf-16-le", "replace").startswith("linux-loader\0")
    entries = [struct.unpack_from("<16sQ", blob, tables - GIB + 24 * at) for at in range(count)]
    (acpi, rsdp), (properties, where), (memreserve, list_at) = entries
    assert memreserve == MEMRESERVE
    assert blob[list_at - GIB :][:16] == bytes(16)  # no entries, no room for any, none behind it
    assert (acpi, rsdp, properties) == (ACPI_20, 0x55AA, RT_PROPERTIES)
    assert struct.unpack_from("<HHI", blob, where - GIB) == (1, 8, 0)  # version, length, no service


SIZES = st.integers(ALIGNMENT // 4096 * 4, 1 << 20).map(lambda pages: pages * 4096)


@given(
    st.lists(st.tuples(SIZES, st.integers(0, 1 << 16)), min_size=1, max_size=5),
    st.integers(1, ALIGNMENT),
    st.data(),
)
def test_the_memory_map_is_ram(blocks, size, data):
    """Page by page all of RAM and nothing else; what is kept for firmware is one entry of its own."""
    ram, base = [], GIB
    for length, gap in blocks:
        base += gap * 4096
        ram.append((base, length))
        base += length
    start, length = data.draw(st.sampled_from(ram))
    address = -(-start // ALIGNMENT) * ALIGNMENT
    fits = tables_address(address) + ALIGNMENT <= start + length
    if not fits:
        with pytest.raises(ConfigurationError, match="is not within one range of RAM"):
            handover(ram, address, size)
        return
    result = handover(ram, address, size)
    entries = memory_map(result)
    assert all(attributes == 8 and length for _, _, length, attributes in entries)  # write-back
    assert [entry[1:3] for entry in entries if entry[0] == ACPI_RECLAIM] == [(address, 2 * ALIGNMENT)]
    assert {entry[0] for entry in entries} <= {CONVENTIONAL, ACPI_RECLAIM}
    assert all(one[1] + one[2] <= other[1] for one, other in pairwise(entries))
    told = [range(base, base + length) for _, base, length, _ in entries]
    assert joined(told) == joined([range(base, base + length) for base, length in ram])


def joined(parts):
    """Ranges with those that touch made one."""
    found = []
    for part in sorted(parts, key=lambda part: part.start):
        if found and found[-1].stop == part.start:
            found[-1] = range(found[-1].start, part.stop)
        else:
            found.append(part)
    return found


def test_the_loader_keeps_clear_of_it(tmp_path):
    """Kernel, initrd and tree lie beside the reserved range, and the tree that was written has it all."""
    ram = [(GIB, 64 * MIB)]
    result, memory = handover(ram), RecordingMemory(ram)
    image = tmp_path / "Image"
    image.write_bytes(build_image("aarch64"))
    loaded = load_image(memory, image, ram_ranges=ram, fdt=result.fdt, cmdline="quiet", initrd=b"x" * 99)
    assert all(written.base >= GIB + 2 * ALIGNMENT for written in loaded.writes)
    assert loaded.kernel_range.base == GIB + 2 * MIB
    (node,) = loaded.fdt.root.children
    assert {"bootargs", "linux,uefi-system-table"} <= set(node.properties)


@pytest.mark.parametrize(
    ("ram", "address", "said"),
    [
        ([(GIB, MIB)], GIB + 4096, "does not follow a system table at 0x40001000, aligned to 0x10000"),
        ([(GIB, MIB)], GIB + MIB, "is not within one range of RAM"),
        ([(GIB, ALIGNMENT), (3 * GIB, GIB)], GIB, "is not within one range of RAM"),
        ([(GIB, MIB + 1)], GIB, "is not of whole pages"),
        (
            [(GIB + n * MIB, MIB // 2) for n in range(1400)],
            GIB,
            "bytes of tables and memory map; there is room",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(ram, address, said):
    """Alignment, place, and room; nothing is made."""
    with pytest.raises(ConfigurationError, match=said):
        handover(ram, address)


def test_tables_inside_the_system_table_are_refused():
    """They would overwrite each other."""
    with pytest.raises(ConfigurationError, match="does not follow a system table"):
        uefi_handover(GIB, GuestRange(GIB + 4096, 4096), GIB, [(GIB, MIB)])
