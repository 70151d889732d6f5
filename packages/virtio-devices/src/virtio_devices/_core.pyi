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

class CData(Protocol):
    def __len__(self) -> int: ...

class PortData(Protocol):
    abi: int
    scratch: CData
    capture: CData
    capture_size: int
    capture_used: int
    snaplen: int
    fd: int
    flags: int
    pending: int
    large: int

class PortReport(Protocol):
    packets: int
    bytes: int
    csum: int
    gso: int
    merged: int
    invalid: int
    oversized: int
    refused: int
    error: int
    used: int
    broken: int
    stop: int

class Lib(Protocol):
    VBLK_ABI: int
    VBLK_MAX_RANGES: int
    VNET_ABI: int
    VNET_SCRATCH: int
    VNET_RECORD: int
    VNET_BODY_MAX: int
    def vblk_process_at(self, guest: int, batch: int, disk: Disk, ret: Report, /) -> int: ...
    def vblk_selftest_overrun(self) -> int: ...
    def vnet_receive_at(self, guest: int, batch: int, port: PortData, ret: PortReport, /) -> int: ...
    def vnet_transmit_at(self, guest: int, batch: int, port: PortData, ret: PortReport, /) -> int: ...

class FFI(Protocol):
    def new(self, cdecl: str, init: object = ..., /) -> object: ...
    def sizeof(self, cdecl: str, /) -> int: ...
    def buffer(self, cdata: CData, size: int, /) -> bytes: ...

lib: Lib
ffi: FFI
