"""Guest memory: regions, the immutable map, checked access, dirty tracking.

`GuestMemory` is the Protocol to depend on, `GuestMemoryMmap` what implements it, `GuestMemoryAtomic` what
publishes it. C code includes vmm_access.h (`get_include`) and walks `GuestMemory.access_map().address`.
"""

from ._access import AccessMap
from ._atomic import GuestMemoryAtomic
from ._bitmap import AtomicBitmap
from ._errors import (
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
from ._include import get_include
from ._iommu import IommuMemory
from ._iotlb import Iommu, Iotlb, IotlbEntry, Permissions
from ._map import GuestMemoryMmap
from ._protocols import DiscardListener, GuestAddressSpace, GuestMemory, RegionListener
from ._region import GuestRegionMmap
from ._slice import GuestSlice
from ._types import FileOffset, GuestAddress, MemoryOrder, ReadableBuffer, WritableBuffer
from ._vector import AccessVector

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
