from typing import Protocol

class Disk(Protocol):
    abi: int
    capacity: int
    fd: int
    flags: int
    max_discard_sectors: int
    max_discard_ranges: int
    max_zeroes_sectors: int
    max_zeroes_ranges: int
    id: bytes
    has_id: int

class Report(Protocol):
    read_bytes: int
    written_bytes: int
    error_offset: int
    error: int
    error_type: int
    errors: int
    broken: int

class Lib(Protocol):
    VBLK_ABI: int
    VBLK_MAX_RANGES: int
    def vblk_process_at(self, guest: int, batch: int, disk: Disk, ret: Report, /) -> int: ...
    def vblk_selftest_overrun(self) -> int: ...

class FFI(Protocol):
    def new(self, cdecl: str, init: object = ..., /) -> object: ...
    def sizeof(self, cdecl: str, /) -> int: ...

lib: Lib
ffi: FFI
