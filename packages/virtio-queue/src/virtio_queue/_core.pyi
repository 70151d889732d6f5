from collections.abc import MutableSequence, Sequence
from typing import Protocol

class CData:
    def __len__(self) -> int: ...

class Fault(Protocol):
    error: int
    head: int
    position: int
    known: int
    value: int
    limit: int

class Counters(Protocol):
    chains: int
    tables: int
    wraps: int
    notified: int
    suppressed: int

class Held(Protocol):
    order: int
    slots: int
    chosen: int

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
    popped: int
    in_flight: int
    busy: int
    ids: int
    order_mask: int
    held: Sequence[Held]
    order: MutableSequence[int]
    @property
    def fault(self) -> Fault: ...
    @property
    def broken(self) -> Fault: ...
    @property
    def counters(self) -> Counters: ...

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
    VIRTQ_PACKED: int
    VIRTQ_COMPATIBLE: int
    VIRTQ_IN_ORDER: int
    VIRTQ_WRAP: int
    VIRTQ_NO_HEAD: int
    def vq_check(self, vmm_map: object, q: Virtq, /) -> int: ...
    def vq_pop_batch(self, vmm_map: object, q: Virtq, batch: Batch, /) -> int: ...
    def vq_complete_batch(self, vmm_map: object, q: Virtq, batch: Batch, /) -> int: ...
    def vq_add_used(self, vmm_map: object, q: Virtq, head: int, written: int, /) -> int: ...
    def virtq_undo_pop(self, q: Virtq, count: int, /) -> int: ...
    def vq_needs_notification(self, vmm_map: object, q: Virtq, /) -> int: ...
    def vq_enable_notification(self, vmm_map: object, q: Virtq, /) -> int: ...
    def vq_disable_notification(self, vmm_map: object, q: Virtq, /) -> int: ...
    def vq_gather(self, vmm_map: object, batch: Batch, to: CData, size: int, /) -> int: ...
    def vq_scatter(self, vmm_map: object, batch: Batch, source: CData, size: int, sizes: CData, /) -> int: ...
    def virtq_selftest_overrun(self) -> int: ...

class FFI(Protocol):
    def new(self, cdecl: str, init: object = ..., /) -> object: ...
    def cast(self, cdecl: str, source: object, /) -> object: ...
    def buffer(self, cdata: object, size: int = ..., /) -> bytearray: ...
    def sizeof(self, cdecl: str, /) -> int: ...
    def typeof(self, cdecl: str, /) -> object: ...
    def from_buffer(self, cdecl: object, data: object, require_writable: bool = ..., /) -> CData: ...
    NULL: CData

lib: Lib
ffi: FFI
