"""virtio-rng: random bytes for the guest (VIRTIO 1.2 section 5.4)."""

import os
import select
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import virtio_devices  # whose names load when they are used
from virtio_devices._device import StateValue
from virtio_devices._errors import SourceError
from virtio_devices._log import LOGGER
from virtio_devices._spec import DeviceId

if TYPE_CHECKING:
    from virtio_queue import DescriptorChain
    from vmm_memory import GuestMemory

__all__ = ("EntropySource", "VirtioRng")

# A request may offer 4 GiB of buffers; the device may use less of them (VIRTIO 1.2 section 5.4.6.1).
MAX_REQUEST = 1 << 14


@final
class EntropySource:
    """Where random bytes come from, without ever waiting for them.

    Args:
        path: file, FIFO or character device to read, or None for getrandom(2).

    Raises:
        SourceError: it cannot be opened; names the path.
    """

    def __init__(self, path: str | os.PathLike[str] | None = "/dev/urandom") -> None:
        self.path = None if path is None else os.fspath(path)
        self._fd = -1
        self._pollable = False
        self.exhausted = False
        if self.path is None:
            return
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise SourceError(
                self.path, f"cannot be opened as entropy source: {error.strerror}", error.errno
            ) from error
        mode = os.fstat(self._fd).st_mode
        if stat.S_ISDIR(mode):
            self.close()
            raise SourceError(self.path, "is a directory, not an entropy source")
        self._pollable = not stat.S_ISREG(mode)

    @property
    def wait_fd(self) -> int | None:
        """Becomes readable when bytes arrive; None when there is nothing to wait for."""
        return self._fd if self._pollable and not self.exhausted else None

    def read(self, size: int) -> bytes:
        """At most `size` (1 or more) random bytes; b"" for none now, or with `exhausted` none ever again."""
        if self.path is None:
            return os.getrandom(size, os.GRND_NONBLOCK)
        if self.exhausted or not self._readable():
            return b""
        try:
            data = os.read(self._fd, size)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._give_up(f"failed: {error.strerror}")
            return b""
        if not data:
            self._give_up("is at its end")
        return data

    def _readable(self) -> bool:
        # O_NONBLOCK alone would do for well-behaved drivers; some ignore it, so ask first.
        if not self._pollable:
            return True
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return bool(poller.poll(0))

    def _give_up(self, reason: str) -> None:
        self.exhausted = True
        LOGGER.error("entropy source %s %s; requests of the guest wait from now on", self.path, reason)

    def close(self) -> None:
        """Close the source; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@final
class VirtioRng:
    """An entropy device. Has the shape of `VirtioDevice`.

    A source that has nothing to give makes the guest's requests wait in their ring; nothing else waits.

    Args:
        id: name of the device.
        source: owned from now on (closed with the device); None: /dev/urandom.
        queue_size: a power of two from 1 to 32768.

    Raises:
        SourceError: /dev/urandom cannot be opened.
        ValueError: queue_size is out of range.
    """

    features = 0

    def __init__(self, id: str, source: EntropySource | None = None, *, queue_size: int = 64) -> None:  # noqa: A002
        if not 0 < queue_size <= 32768 or queue_size & (queue_size - 1):
            raise ValueError(f"queue_size={queue_size}: must be a power of two from 1 to 32768")
        self.id = id
        self.device_id = int(DeviceId.ENTROPY)
        self.queue_sizes = (queue_size,)
        self._source = source if source is not None else EntropySource()
        self._pool = b""
        self._context: virtio_devices.DeviceContext | None = None
        self._server: virtio_devices.QueueServer | None = None

    def read_config(self, offset: int, size: int) -> bytes:  # noqa: ARG002 - there is no configuration space
        """Nothing (VIRTIO 1.2 section 5.4.4)."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """Nothing to write."""

    def activate(self, context: "virtio_devices.DeviceContext") -> None:
        """Serve the request queue."""
        self._context = context
        self._server = context.serve_chains(0, self._fill, gate=self._have_bytes)

    def reset(self) -> None:
        """Drop the bytes at hand."""
        self._context = self._server = None
        self._pool = b""

    def describe(self) -> Mapping[str, StateValue]:
        """No properties."""
        return {}

    def state(self) -> Mapping[str, StateValue]:
        """Nothing: random bytes must not be restored."""
        return {}

    def restore(self, state: Mapping[str, StateValue]) -> None:
        """Nothing to take over."""

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _have_bytes(self) -> bool:
        """The gate: asked before each request is taken from the ring."""
        if not self._pool:
            self._pool = self._source.read(MAX_REQUEST)
            if not self._pool:
                self._wait_for_source()
        return bool(self._pool)

    def _wait_for_source(self) -> None:
        fd = self._source.wait_fd
        if fd is not None and self._context is not None:
            self._context.watch(fd, self._source_ready)

    def _source_ready(self) -> None:
        """The source has bytes: no need to watch it any more until the next time it has none."""
        context, server, fd = self._context, self._server, self._source.wait_fd
        if context is not None and server is not None and fd is not None:
            context.unwatch(fd)
            server.resume()

    def _fill(self, memory: "GuestMemory", chain: "DescriptorChain") -> int:
        done = 0
        for addr, length, writable in chain.segments:
            if not writable or done == len(self._pool):
                continue
            part = self._pool[done : done + length]
            memory.write(addr, part)
            done += len(part)
        self._pool = self._pool[done:]
        return done
