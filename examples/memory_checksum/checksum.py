"""A C extension of your own on guest memory, also behind an IOMMU. Needs gcc; no /dev/kvm.

python build_checksum.py && python checksum.py
"""

import errno

from _checksum import ffi, lib
from vmm_memory import GuestMemory, GuestMemoryMmap, IommuMemory, IotlbEntry, Permissions


def fletcher32(memory: GuestMemory, addr: int, size: int) -> int:
    """Sum a range of guest memory.

    Args:
        memory: Any: C gets its table, and what it finds untranslated there is resolved here.
        addr: First guest address.
        size: Bytes, an even number.

    Raises:
        GuestAccessError: Not all of it can be read.
        ValueError: size is odd.
    """
    out = ffi.new("uint32_t *")
    while True:
        table = memory.access_map()  # kept until C is done
        rc = lib.checksum_fletcher32(table.address, addr, size, out)
        if rc == 0:
            return int(out[0])
        if rc == -errno.EINVAL:
            raise ValueError(f"size is {size}, must be even")
        if rc == -errno.EPROTO:
            raise RuntimeError("built against another vmm_access.h: run build_checksum.py again")
        memory.resolve(addr, size)  # raises what is wrong with the range; or there is more to be read now


class OnePage:
    """An IOMMU that maps one page, for reading."""

    def translate(self, iova: int, _size: int, permissions: Permissions) -> list[IotlbEntry]:
        """Answer for IOVA 0x7000 alone."""
        inside = iova >> 12 == 7 and permissions == Permissions.READ
        return [IotlbEntry(0x7000, 0x1000, 0x1000, Permissions.READ)] if inside else []


def main() -> None:
    """Sum the same bytes by both addresses."""
    ram = GuestMemoryMmap.from_ranges([(0, 1 << 20)])
    ram.write(0x1000, b"abcdefgh")
    print(f"{fletcher32(ram, 0x1000, 8):#x}")
    print(f"{fletcher32(IommuMemory(ram, OnePage()), 0x7000, 8):#x}")


if __name__ == "__main__":
    main()
