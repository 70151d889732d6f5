"""Every exception of this package.

    VirtioDeviceError
    ├── RequestError                      the guest's driver broke a rule: the device asks for a reset
    ├── TransportStateError (RuntimeError) a call that the transport's present state does not allow
    ├── SavedStateError (ValueError)      a saved state that does not fit this device
    ├── ImageError (OSError)              a disk image that cannot be used
    │   └── ImageLockedError              somebody else holds the image
    ├── SourceError (OSError)             an entropy source that cannot be used
    ├── TapError (OSError)                a tap that cannot be used
    ├── CaptureError (OSError)            a capture file that cannot be written
    ├── CoreError                         the C core refused a structure (version or limits)
    └── DriverTimeoutError (TimeoutError) testing only: the device did not answer in time

`RequestError` blames the guest, as `virtio_queue.DriverError` does for the rings; everything else blames the
caller or the host. Neither leaves the device thread: the transport turns both into DEVICE_NEEDS_RESET and one
log line.
"""


class VirtioDeviceError(Exception):
    """Root of all exceptions of virtio_devices."""


class RequestError(VirtioDeviceError):
    """The driver sent a request that cannot even be answered with an error status.

    Attributes:
        device: id of the device.
        head: descriptor index that names the chain.
        reason: the rule that was broken.
    """

    def __init__(self, device: str, head: int, reason: str) -> None:
        super().__init__(f"{device}: request head={head}: {reason}")
        self.device = device
        self.head = head
        self.reason = reason


class TransportStateError(VirtioDeviceError, RuntimeError):
    """The call is not legal in the present state; nothing changed.

    Attributes:
        device: id of the device.
        state: what state it is in.
        wanted: what was asked for.
    """

    def __init__(self, device: str, state: str, wanted: str) -> None:
        super().__init__(f"{device} is {state}; cannot {wanted}")
        self.device = device
        self.state = state
        self.wanted = wanted


class SavedStateError(VirtioDeviceError, ValueError):
    """A saved state cannot be restored into this device; nothing changed.

    Attributes:
        field: the field that does not fit.
        value: what the state holds.
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(f"saved state: {field}={value!r}, expected {limit}")
        self.field = field
        self.value = value


class ImageError(VirtioDeviceError, OSError):
    """A disk image cannot be opened or used.

    Attributes:
        path: the image.
        errno: host error number, or None when the image itself is unfit.
    """

    def __init__(self, path: str, reason: str, errno: int | None = None) -> None:
        super().__init__(errno, f"{path}: {reason}")
        self.path = path

    def __str__(self) -> str:
        return str(self.strerror)


class ImageLockedError(ImageError):
    """Another open file holds a conflicting lock on the image."""


class SourceError(VirtioDeviceError, OSError):
    """An entropy source cannot be opened.

    Attributes:
        path: the source.
        errno: host error number.
    """

    def __init__(self, path: str, reason: str, errno: int | None = None) -> None:
        super().__init__(errno, f"{path}: {reason}")
        self.path = path

    def __str__(self) -> str:
        return str(self.strerror)


class TapError(VirtioDeviceError, OSError):
    """A tap cannot be opened or set up; the message has the cure.

    Attributes:
        name: the interface, or the descriptor that was passed.
        errno: host error number, or None when the descriptor itself is unfit.
    """

    def __init__(self, name: str, reason: str, errno: int | None = None) -> None:
        super().__init__(errno, f"tap {name}: {reason}")
        self.name = name

    def __str__(self) -> str:
        return str(self.strerror)


class CaptureError(VirtioDeviceError, OSError):
    """A capture file cannot be opened.

    Attributes:
        path: the file.
        errno: host error number, or None when the file itself is unfit.
    """

    def __init__(self, path: str, reason: str, errno: int | None = None) -> None:
        super().__init__(errno, f"{path}: {reason}")
        self.path = path

    def __str__(self) -> str:
        return str(self.strerror)


class CoreError(VirtioDeviceError):
    """The C core refused a structure that Python handed over.

    Attributes:
        code: negative errno it returned.
    """

    def __init__(self, what: str, code: int) -> None:
        super().__init__(
            f"{what}: core returned {code}; -71: vmm-memory or virtio-queue has another ABI, upgrade them"
        )
        self.code = code


class DriverTimeoutError(VirtioDeviceError, TimeoutError):
    """The device under test did not do something in time.

    Attributes:
        what: what was awaited.
        seconds: for how long.
    """

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"no {what} within {seconds} s")
        self.what = what
        self.seconds = seconds
