"""Guest memory: regions, the immutable map, checked access, dirty tracking.

`GuestMemory` is the Protocol to depend on, `GuestMemoryMmap` what implements it, `GuestMemoryAtomic` what
publishes it. C code includes vmm_access.h (`get_include`) and walks `GuestMemory.access_map().address`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmm_memory._access import AccessMap
    from vmm_memory._atomic import GuestMemoryAtomic
    from vmm_memory._bitmap import AtomicBitmap
    from vmm_memory._errors import (
        ClosedError,
        FileTooSmallError,
        ForkedError,
        GuestAccessError,
        GuestMemoryError,
        HugepageError,
        InvalidGuestAddressError,
        InvalidRegionError,
        IommuFaultError,
        ListenerError,
        MappingError,
        MisalignedAccessError,
        NoSuchRegionError,
        PartialBufferError,
        ReadOnlyRegionError,
        RegionBusyError,
        RegionOverlapError,
        TransferError,
        UnexpectedEofError,
    )
    from vmm_memory._include import get_include
    from vmm_memory._iommu import IommuMemory
    from vmm_memory._iotlb import Iommu, Iotlb, IotlbEntry, Permissions
    from vmm_memory._map import GuestMemoryMmap
    from vmm_memory._protocols import DiscardListener, GuestAddressSpace, GuestMemory, RegionListener
    from vmm_memory._region import GuestRegionMmap
    from vmm_memory._slice import GuestSlice
    from vmm_memory._types import FileOffset, GuestAddress, MemoryOrder, ReadableBuffer, WritableBuffer
    from vmm_memory._vector import AccessVector

__all__ = (
    "AccessMap",
    "AccessVector",
    "AtomicBitmap",
    "ClosedError",
    "DiscardListener",
    "FileOffset",
    "FileTooSmallError",
    "ForkedError",
    "GuestAccessError",
    "GuestAddress",
    "GuestAddressSpace",
    "GuestMemory",
    "GuestMemoryAtomic",
    "GuestMemoryError",
    "GuestMemoryMmap",
    "GuestRegionMmap",
    "GuestSlice",
    "HugepageError",
    "InvalidGuestAddressError",
    "InvalidRegionError",
    "Iommu",
    "IommuFaultError",
    "IommuMemory",
    "Iotlb",
    "IotlbEntry",
    "ListenerError",
    "MappingError",
    "MemoryOrder",
    "MisalignedAccessError",
    "NoSuchRegionError",
    "PartialBufferError",
    "Permissions",
    "ReadOnlyRegionError",
    "ReadableBuffer",
    "RegionBusyError",
    "RegionListener",
    "RegionOverlapError",
    "TransferError",
    "UnexpectedEofError",
    "WritableBuffer",
    "get_include",
)

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_access": ("AccessMap",),
    "_atomic": ("GuestMemoryAtomic",),
    "_bitmap": ("AtomicBitmap",),
    "_errors": (
        "ClosedError",
        "FileTooSmallError",
        "ForkedError",
        "GuestAccessError",
        "GuestMemoryError",
        "HugepageError",
        "InvalidGuestAddressError",
        "InvalidRegionError",
        "IommuFaultError",
        "ListenerError",
        "MappingError",
        "MisalignedAccessError",
        "NoSuchRegionError",
        "PartialBufferError",
        "ReadOnlyRegionError",
        "RegionBusyError",
        "RegionOverlapError",
        "TransferError",
        "UnexpectedEofError",
    ),
    "_include": ("get_include",),
    "_iommu": ("IommuMemory",),
    "_iotlb": ("Iommu", "Iotlb", "IotlbEntry", "Permissions"),
    "_map": ("GuestMemoryMmap",),
    "_protocols": ("DiscardListener", "GuestAddressSpace", "GuestMemory", "RegionListener"),
    "_region": ("GuestRegionMmap",),
    "_slice": ("GuestSlice",),
    "_types": ("FileOffset", "GuestAddress", "MemoryOrder", "ReadableBuffer", "WritableBuffer"),
    "_vector": ("AccessVector",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load the module of a public name."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
