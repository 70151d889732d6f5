from typing import Protocol

class Fault(Protocol):
    error: int
    head: int
    position: int
    known: int
    value: int
    limit: int

class Virtq(Protocol):
    desc: int
    avail: int
    used: int
    max_size: int
    size: int
    next_avail: int
    next_used: int
    flags: int
    num_added: int
    @property
    def fault(self) -> Fault: ...
    @property
    def broken(self) -> Fault: ...

class Batch(Protocol):
    abi: int
    max_chains: int
    max_segs: int
    nchains: int
    nsegs: int
    chains: object
    segs: object

class Lib(Protocol):
    VIRTIO_BATCH_ABI: int
    VIRTQ_READY: int
    VIRTQ_EVENT_IDX: int
    VIRTQ_INDIRECT: int
    VIRTQ_NO_HEAD: int
    def vq_check(self, vmm_map: int, q: Virtq, /) -> int: ...
    def vq_pop_batch(self, vmm_map: int, q: Virtq, batch: int, /) -> int: ...
    def vq_complete_batch(self, vmm_map: int, q: Virtq, batch: int, /) -> int: ...
    def vq_add_used(self, vmm_map: int, q: Virtq, head: int, written: int, /) -> int: ...
    def vq_needs_notification(self, vmm_map: int, q: Virtq, /) -> int: ...
    def vq_enable_notification(self, vmm_map: int, q: Virtq, /) -> int: ...
    def vq_disable_notification(self, vmm_map: int, q: Virtq, /) -> int: ...
    def virtq_selftest_overrun(self) -> int: ...

class FFI(Protocol):
    def new(self, cdecl: str, init: object = ..., /) -> object: ...
    def cast(self, cdecl: str, source: object, /) -> object: ...
    def buffer(self, cdata: object, size: int = ..., /) -> bytearray: ...
    def sizeof(self, cdecl: str, /) -> int: ...

lib: Lib
ffi: FFI
