"""The zero page."""

import struct

from linux_loader import E820Entry, E820Type, GuestRange
from linux_loader._bootparams import BootInfo, elf_header, setup_data, zero_page


def test_high_initrd_and_full_map():
    """Addresses above 4 GiB go to the ext_ fields; 128 map entries fill the table to its end."""
    table = [E820Entry(i << 20, 1 << 12, E820Type.RAM) for i in range(128)]
    page = zero_page(
        b"\x01", BootInfo(0x2_0000, table, GuestRange(0x1_2345_6000, 0x1_0000_0001), 7, 9), load_addr=3
    )
    assert len(page) == 4096
    assert page[0x1F1] == 1
    assert struct.unpack_from("<II", page, 0x218) == (0x2345_6000, 1)
    assert struct.unpack_from("<III", page, 0x0C0) == (1, 1, 0)
    assert struct.unpack_from("<QQ", page, 0x070) == (7, 0)
    assert struct.unpack_from("<Q", page, 0x250) == (9,)
    assert (page[0x1E8], page[0x1EF]) == (128, 0)
    assert struct.unpack_from("<QQI", page, 0x2D0 + 127 * 20) == (127 << 20, 1 << 12, 1)
    assert page[0xCD0:] == bytes(4096 - 0xCD0)


def test_header_of_an_elf_kernel():
    """The made-up header has the marks of protocol 2.15."""
    page = zero_page(
        elf_header(cmdline_size=2047, alignment=1 << 24), BootInfo(0, (), None, 0, 0), load_addr=0
    )
    assert struct.unpack_from("<H", page, 0x1FE) == (0xAA55,)
    assert struct.unpack_from("<4sH", page, 0x202) == (b"HdrS", 0x20F)
    assert (page[0x210], page[0x211]) == (0xFF, 1)
    assert struct.unpack_from("<I", page, 0x230) == (1 << 24,)
    assert struct.unpack_from("<I", page, 0x238) == (2047,)


def test_setup_data_chain():
    """Entries of the map beyond the 128th, then the seed: each node says where the next one is."""
    table = [E820Entry(i << 20, 1 << 12, E820Type.RAM) for i in range(129)]
    assert setup_data(0x1000, table[:128], None) == b""
    assert setup_data(0x1000, [], b"abc") == struct.pack("<QII", 0, 9, 3) + b"abc"
    data = setup_data(0x1000, table, b"abc")
    assert data == (
        struct.pack("<QII", 0x1028, 1, 20)
        + struct.pack("<QQI", 128 << 20, 1 << 12, 1)
        + bytes(4)
        + struct.pack("<QII", 0, 9, 3)
        + b"abc"
    )
    page = zero_page(b"", BootInfo(0, table, None, 0, 0), load_addr=0)
    assert page[0x1E8] == 128
    assert page[0xCD0:] == bytes(4096 - 0xCD0)
