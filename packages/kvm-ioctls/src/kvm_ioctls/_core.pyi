"""Types of the cffi extension built from csrc/; kept in step with core.cdef.h by tests/test_ffi.py."""

from collections.abc import Callable
from mmap import mmap
from typing import Any, Protocol

class CData:
    """A C pointer or struct; its members are typed by whoever reads them."""

    def __getattr__(self, name: str, /) -> Any: ...  # noqa: ANN401
    def __getitem__(self, index: int | slice, /) -> Any: ...  # noqa: ANN401
    def __setattr__(self, name: str, value: object, /) -> None: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...
    def __add__(self, offset: int, /) -> CData: ...
    def __int__(self) -> int: ...
    def __len__(self) -> int: ...

class _Ffi(Protocol):
    NULL: CData
    def new(self, cdecl: str, init: object = ..., /) -> CData: ...
    def cast(self, cdecl: str, value: object, /) -> CData: ...
    def gc(self, value: CData, destructor: Callable[[CData], None], /) -> CData: ...
    def from_buffer(self, data: bytes | bytearray | memoryview | mmap, /) -> CData: ...
    def buffer(self, value: CData, size: int = ..., /) -> bytearray: ...
    def string(self, value: CData, /) -> bytes: ...
    def sizeof(self, cdecl: str, /) -> int: ...

class _Lib(Protocol):
    KX_GET_API_VERSION: int
    KX_CREATE_VM: int
    KX_CHECK_EXTENSION: int
    KX_GET_VCPU_MMAP_SIZE: int
    KX_CREATE_VCPU: int
    KX_GET_DIRTY_LOG: int
    KX_SET_USER_MEMORY_REGION: int
    KX_SET_USER_MEMORY_REGION2: int
    KX_CREATE_IRQCHIP: int
    KX_IRQ_LINE: int
    KX_IRQ_LINE_STATUS: int
    KX_REGISTER_COALESCED_MMIO: int
    KX_UNREGISTER_COALESCED_MMIO: int
    KX_SET_GSI_ROUTING: int
    KX_IRQFD: int
    KX_IOEVENTFD: int
    KX_RUN: int
    KX_INTERRUPT: int
    KX_GET_MP_STATE: int
    KX_SET_MP_STATE: int
    KX_ENABLE_CAP: int
    KX_SIGNAL_MSI: int
    KX_CLEAR_DIRTY_LOG: int
    KX_CREATE_DEVICE: int
    KX_SET_DEVICE_ATTR: int
    KX_GET_DEVICE_ATTR: int
    KX_HAS_DEVICE_ATTR: int
    KX_SET_SIGNAL_MASK: int
    KX_GET_ONE_REG: int
    KX_SET_ONE_REG: int
    KX_GET_REG_LIST: int
    KX_RESET_DIRTY_RINGS: int
    KX_GET_STATS_FD: int
    KX_SET_MEMORY_ATTRIBUTES: int
    KX_CREATE_GUEST_MEMFD: int
    KX_PRE_FAULT_MEMORY: int
    KX_GET_MSR_INDEX_LIST: int
    KX_GET_SUPPORTED_CPUID: int
    KX_GET_EMULATED_CPUID: int
    KX_GET_MSR_FEATURE_INDEX_LIST: int
    KX_SET_TSS_ADDR: int
    KX_SET_IDENTITY_MAP_ADDR: int
    KX_GET_IRQCHIP: int
    KX_SET_IRQCHIP: int
    KX_CREATE_PIT2: int
    KX_SET_BOOT_CPU_ID: int
    KX_SET_CLOCK: int
    KX_GET_CLOCK: int
    KX_GET_REGS: int
    KX_SET_REGS: int
    KX_GET_SREGS: int
    KX_SET_SREGS: int
    KX_TRANSLATE: int
    KX_GET_MSRS: int
    KX_SET_MSRS: int
    KX_GET_FPU: int
    KX_SET_FPU: int
    KX_GET_LAPIC: int
    KX_SET_LAPIC: int
    KX_SET_CPUID2: int
    KX_GET_CPUID2: int
    KX_NMI: int
    KX_SET_GUEST_DEBUG: int
    KX_GET_PIT2: int
    KX_SET_PIT2: int
    KX_GET_VCPU_EVENTS: int
    KX_SET_VCPU_EVENTS: int
    KX_GET_DEBUGREGS: int
    KX_SET_DEBUGREGS: int
    KX_SET_TSC_KHZ: int
    KX_GET_TSC_KHZ: int
    KX_GET_XSAVE: int
    KX_SET_XSAVE: int
    KX_GET_XCRS: int
    KX_SET_XCRS: int
    KX_KVMCLOCK_CTRL: int
    KX_SMI: int
    KX_GET_SREGS2: int
    KX_SET_SREGS2: int
    KX_GET_XSAVE2: int
    KX_GET_SUPPORTED_HV_CPUID: int
    KX_SET_NR_MMU_PAGES: int
    KX_GET_NR_MMU_PAGES: int
    KX_REINJECT_CONTROL: int
    KX_XEN_HVM_CONFIG: int
    KX_TPR_ACCESS_REPORTING: int
    KX_SET_VAPIC_ADDR: int
    KX_X86_SETUP_MCE: int
    KX_X86_GET_MCE_CAP_SUPPORTED: int
    KX_X86_SET_MCE: int
    KX_SET_PMU_EVENT_FILTER: int
    KX_MEMORY_ENCRYPT_OP: int
    KX_MEMORY_ENCRYPT_REG_REGION: int
    KX_MEMORY_ENCRYPT_UNREG_REGION: int
    KX_HYPERV_EVENTFD: int
    KX_GET_NESTED_STATE: int
    KX_SET_NESTED_STATE: int
    KX_X86_SET_MSR_FILTER: int
    KX_XEN_HVM_GET_ATTR: int
    KX_XEN_HVM_SET_ATTR: int
    KX_XEN_VCPU_GET_ATTR: int
    KX_XEN_VCPU_SET_ATTR: int
    KX_XEN_HVM_EVTCHN_SEND: int
    KX_ARM_VCPU_INIT: int
    KX_ARM_PREFERRED_TARGET: int
    KX_ARM_VCPU_FINALIZE: int
    KX_ARM_MTE_COPY_TAGS: int
    KX_ARM_SET_COUNTER_OFFSET: int
    KX_ARM_GET_REG_WRITABLE_MASKS: int
    KX_ARM64_SET_GUEST_DEBUG: int
    KX_RISCV64_SET_GUEST_DEBUG: int
    KVMX_ABI: int
    KVMX_NONE: int
    KVMX_CONSTANT: int
    KVMX_DROP: int
    KVMX_LATCH: int
    KVMX_EVENTFD: int
    KVMX_COUNTER: int
    KVMX_RING: int
    KVMX_TO_CALLER: int
    KVMX_IN_C: int
    KVMX_KICK: int
    KVMX_SIGNAL: int
    KVMX_WAIT: int
    def kvmx_vcpu_create(self, fd: int, run_size: int, ret: CData, /) -> int: ...
    def kvmx_vcpu_close(self, v: CData, /) -> int: ...
    def kvmx_vcpu_abandon(self, v: CData, /) -> None: ...
    def kvmx_vcpu_destroy(self, v: CData, /) -> None: ...
    def kvmx_vcpu_ioctl(self, v: CData, nr: int, arg: CData, /) -> int: ...
    def kvmx_vcpu_ioctl_value(self, v: CData, nr: int, arg: int, /) -> int: ...
    def kvmx_vcpu_run(self, v: CData, t: CData, complete_only: int, /) -> int: ...
    def kvmx_vcpu_kick(self, v: CData, /) -> int: ...
    def kvmx_vcpu_trace(self, v: CData, room: int, /) -> int: ...
    def kvmx_vcpu_trace_take(self, v: CData, ret: CData, room: int, /) -> int: ...
    def kvmx_vcpu_user(self, v: CData, /) -> int: ...
    def kvmx_vcpu_set_value(self, v: CData, value: int, /) -> int: ...
    def kvmx_vcpu_set_data(self, v: CData, data: CData, size: int, /) -> int: ...
    def kvmx_vcpu_get_data(self, v: CData, data: CData, size: int, /) -> int: ...
    def kvmx_vcpu_reply_msr(self, v: CData, error: int, data: int, /) -> int: ...
    def kvmx_vcpu_reply(self, v: CData, first: int, second: int, /) -> int: ...
    def kvmx_vcpu_request_window(self, v: CData, on: int, /) -> int: ...
    def kvmx_vcpu_ready(self, v: CData, /) -> int: ...
    def kvmx_vcpu_sync_masks(self, v: CData, valid: int, dirty: int, /) -> int: ...
    def kvmx_vcpu_sync_copy(self, v: CData, write: int, offset: int, data: CData, size: int, /) -> int: ...
    def kvmx_vcpu_exit(self, v: CData, /) -> CData: ...
    def kvmx_vcpu_stats(self, v: CData, /) -> CData: ...
    def kvmx_ioctl(self, fd: int, nr: int, arg: CData, /) -> int: ...
    def kvmx_ioctl_value(self, fd: int, nr: int, arg: int, /) -> int: ...
    def kvmx_decode(self, page: CData, page_size: int, ret: CData, /) -> int: ...
    def kvmx_reply(self, page: CData, first: int, second: int, /) -> int: ...
    def kvmx_native(self, t: CData, e: CData, page: CData, /) -> int: ...
    def kvmx_table_check(self, t: CData, /) -> int: ...
    def kvmx_cell_load(self, cell: CData, /) -> int: ...
    def kvmx_cell_store(self, cell: CData, value: int, /) -> None: ...
    def kvmx_dirty_harvest(self, ring: CData, entries: int, at: CData, ret: CData, /) -> int: ...
    def kvmx_coalesced_drain(self, ring: CData, size: int, ret: CData, /) -> int: ...
    def kvmx_ring_put(self, r: CData, e: CData, page: CData, /) -> int: ...
    def kvmx_ring_take(self, r: CData, ret: CData, most: int, /) -> int: ...
    def kvmx_install_kick(self) -> int: ...
    def kvmx_block_signals(self) -> int: ...
    def kvmx_core_cookie(self, tid: int, ret: CData, /) -> int: ...
    def kvmx_share_core(self, tid: int, /) -> int: ...
    def kvmx_layout(self, i: int, strct: CData, field: CData, offset: CData, size: CData, /) -> int: ...
    def kvmx_selftest_overrun(self) -> int: ...

ffi: _Ffi
lib: _Lib
