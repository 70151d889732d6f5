"""PVH start info (Xen ``public/arch-x86/hvm/start_info.h``), version 1 with a memory map."""

from __future__ import annotations

import struct

from linux_loader._bootparams import BootInfo
from linux_loader.arch.x86_64 import PVH_MEMMAP_ADDR, PVH_MODLIST_ADDR

_MAGIC = 0x336E_C578
_VERSION = 1
_START_INFO = struct.Struct("<IIIIQQQQII")
_MODULE = struct.Struct("<QQQQ")
_MEMMAP_ENTRY = struct.Struct("<QQII")


def start_info(info: BootInfo) -> bytes:
    """The 56-byte structure EBX points to."""
    modules = 0 if info.initrd is None else 1
    return _START_INFO.pack(
        _MAGIC, _VERSION, 0, modules, PVH_MODLIST_ADDR if modules else 0,
        info.cmdline_addr, info.rsdp_addr, PVH_MEMMAP_ADDR, len(info.memory_map), 0,
    )  # fmt: skip


def module_list(info: BootInfo) -> bytes:
    """The initrd as the only module; empty without one."""
    return b"" if info.initrd is None else _MODULE.pack(info.initrd.base, info.initrd.size, 0, 0)


def memory_map(info: BootInfo) -> bytes:
    """The memory map, 24 bytes an entry."""
    return b"".join(_MEMMAP_ENTRY.pack(e.base, e.size, e.type, 0) for e in info.memory_map)
