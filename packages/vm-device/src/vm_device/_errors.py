"""Every exception of this package.

    VmDeviceError
    ├── PlatformError (ValueError)         a part of the machine description is impossible
    ├── BusError (ValueError)
    │   ├── RangeOverlapError              the range touches one that is already claimed
    │   ├── RangeNotFoundError             no device is registered at exactly this range
    │   └── AccessSizeError                an access that is not 1, 2, 4 or 8 bytes wide
    ├── AllocationError (ValueError)
    │   ├── ExhaustedError                 no hole fits the request
    │   └── NotAllocatedError              freed twice, or never handed out
    ├── SavedStateError (ValueError)       a saved state this version cannot restore
    ├── LifecycleError (RuntimeError)      the call is illegal in the present state
    ├── DeviceTreeError (LookupError)      duplicate or unknown device id, or a parent that still has children
    └── ClosedError (RuntimeError)         use of an event fd or event manager after close()

All of them blame the caller. The guest cannot raise any: a register write that makes no
sense is ignored, as on hardware.
"""


class VmDeviceError(Exception):
    """Root of all exceptions of vm_device."""


class PlatformError(VmDeviceError, ValueError):
    """A field of the platform description is out of range or contradicts another.

    Attributes:
        field: dotted name of the offending field.
        value: what was given.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        shown = hex(value) if isinstance(value, int) and not isinstance(value, bool) else repr(value)
        super().__init__(f"{field}={shown}: {reason}")
        self.field = field
        self.value = value


class BusError(VmDeviceError, ValueError):
    """A registration or an access that no bus can serve."""


class RangeOverlapError(BusError):
    """The range overlaps another one.

    Attributes:
        range: the range that was refused.
        other: the range that is already there.
    """

    def __init__(self, refused: object, other: object) -> None:
        super().__init__(f"{refused} overlaps {other}; unregister that one first or move the device")
        self.range = refused
        self.other = other


class RangeNotFoundError(BusError):
    """Nothing is registered at exactly this range.

    Attributes:
        range: the range that was looked for.
    """

    def __init__(self, missing: object) -> None:
        super().__init__(f"{missing} is not registered (base and size must match a registration exactly)")
        self.range = missing


class AccessSizeError(BusError):
    """An access width other than 1, 2, 4 or 8 bytes.

    Attributes:
        address: where the access went.
        size: its width in bytes.
    """

    def __init__(self, address: int, size: int) -> None:
        super().__init__(
            f"access of size={size} at {address:#x}: a bus access is 1, 2, 4 or 8 bytes at an address >= 0"
        )
        self.address = address
        self.size = size


class AllocationError(VmDeviceError, ValueError):
    """An allocator refused the request; its content is unchanged."""


class ExhaustedError(AllocationError):
    """No free hole satisfies the request.

    Attributes:
        size: bytes (or ids) asked for.
        largest: size of the largest free hole.
    """

    def __init__(self, message: str, *, size: int, largest: int) -> None:
        super().__init__(message)
        self.size = size
        self.largest = largest


class NotAllocatedError(AllocationError):
    """The thing to free is not allocated (freed twice, never handed out, or only part of an allocation)."""


class SavedStateError(VmDeviceError, ValueError):
    """A saved state cannot be restored.

    Attributes:
        field: the field that is wrong.
        value: what it holds.
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(f"saved state: {field}={value!r}, expected {limit}")
        self.field = field
        self.value = value


class LifecycleError(VmDeviceError, RuntimeError):
    """The call is not legal in the present lifecycle state; nothing changed.

    Attributes:
        state: name of the present state.
        wanted: what was asked for.
    """

    def __init__(self, what: str, state: str, wanted: str) -> None:
        super().__init__(f"{what} is {state}; cannot go to {wanted}")
        self.state = state
        self.wanted = wanted


class DeviceTreeError(VmDeviceError, LookupError):
    """A device id is unknown, already taken, or still has children.

    Attributes:
        id: the device id.
    """

    def __init__(self, id: str, reason: str) -> None:  # noqa: A002 - the public field is called id
        super().__init__(f"device id={id!r}: {reason}")
        self.id = id


class ClosedError(VmDeviceError, RuntimeError):
    """The object was used after close()."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is closed; create a new one")
