"""What an active device sees of the world: memory, queues, two interrupts, and a thread to work on."""

import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, final

import attrs
from virtio_queue import ChainBatch, Queue, QueueState, VirtQueue
from vm_device import EventFd, EventManager
from vmm_memory import GuestAddressSpace

from virtio_devices._errors import TransportStateError
from virtio_devices._server import (
    MAX_CHAINS,
    BatchHandler,
    BatchWork,
    ChainHandler,
    ChainWork,
    Gate,
    QueueServer,
    QueueWork,
)
from virtio_devices._tally import QueueTally


class Interrupts(Protocol):
    """How a transport interrupts the driver; the device knows no more than this."""

    def queue_interrupt(self, index: int) -> None:
        """Say that queue `index` has new used buffers."""
        ...

    def config_interrupt(self) -> None:
        """Say that the configuration space or the status changed."""
        ...

    def queue_eventfd(self, index: int) -> int | None:
        """An fd whose write has the whole effect of `queue_interrupt`, or None."""
        ...


class ConfigGuard(Protocol):
    """The transport's side of a configuration change."""

    def begin_config_update(self) -> None:
        """Keep the driver from reading the configuration space."""
        ...

    def end_config_update(self) -> None:
        """Count a new generation, let the driver read again, and interrupt it."""
        ...


@attrs.frozen
class DetachedQueue:
    """A queue on its way to another backend (vhost, a vhost-user process).

    Attributes:
        index: which queue.
        state: addresses, indices and negotiated flags.
        kick_fd: eventfd that the driver's notifications arrive on; owned by the transport, lent out.
        interrupt_fd: eventfd that interrupts the driver when written, or None when `queue_interrupt` must be
            called.
    """

    index: int
    state: QueueState
    kick_fd: int
    interrupt_fd: int | None


@final
class DeviceContext:
    """The world of one activation; it ends with the next reset. Built by a transport, not by devices.

    Attributes:
        memory: guest memory; call `memory.memory()` for a snapshot.
        features: the negotiated feature bits.
        ready_queues: indices of the queues the driver has set up.
    """

    def __init__(
        self,
        device: str,
        *,
        memory: GuestAddressSpace,
        features: int,
        queues: list[VirtQueue],
        kicks: tuple[EventFd, ...],
        tallies: list[QueueTally],
        interrupts: Interrupts,
        config: ConfigGuard,
        loop: EventManager,
        fail: Callable[[str], None],
    ) -> None:
        self.memory = memory
        self.features = features
        self._device = device
        self._queues = queues
        self._kicks = kicks
        self._tallies = tallies
        self._interrupts = interrupts
        self._config = config
        self._loop = loop
        self._fail = fail
        self._servers: dict[int, QueueServer] = {}
        self._watched: set[int] = set()
        self._running = False

    @property
    def ready_queues(self) -> tuple[int, ...]:
        """Indices of the queues that the driver has set up."""
        return tuple(i for i, queue in enumerate(self._queues) if queue.ready)

    def queue_interrupt(self, index: int) -> None:
        """Tell the driver that queue `index` (0 .. number of queues - 1) has used buffers."""
        self._interrupts.queue_interrupt(index)

    def config_interrupt(self) -> None:
        """Tell the driver to look at the configuration space; see `config_update` for changing it."""
        self._interrupts.config_interrupt()

    @contextmanager
    def config_update(self) -> Iterator[None]:
        """Change the configuration space inside: the driver sees all of it or nothing, and is told."""
        self._config.begin_config_update()
        try:
            yield
        finally:
            self._config.end_config_update()

    def fail(self, reason: str) -> None:
        """Set DEVICE_NEEDS_RESET (VIRTIO 1.2 section 2.1.2), once, with one log line.

        Args:
            reason: for the log.
        """
        self._fail(reason)

    def serve_chains(self, index: int, handler: ChainHandler, *, gate: Gate | None = None) -> QueueServer:
        """Answer queue `index` one chain at a time.

        Args:
            index: the queue.
            handler: gets (memory, chain) on the device thread, returns the bytes it wrote into the chain.
            gate: asked before each pop; False leaves the requests in the ring until `resume()` of the server.

        Returns:
            The server; the device may call its `resume()`.

        Raises:
            TransportStateError: the queue does not exist or has a server already.
        """
        return self._serve(index, ChainWork(handler, gate))

    def serve_batches(
        self, index: int, handler: BatchHandler, *, max_chains: int = MAX_CHAINS, gate: Gate | None = None
    ) -> QueueServer:
        """Answer queue `index` a batch at a time.

        Args:
            index: the queue.
            handler: gets (memory, batch) on the device thread and sets `written` of each chain; returns False
                when the batch holds a broken chain (`error` set), for which the driver will have to reset the
                device.
            max_chains: chains per batch, 1 or more.
            gate: asked before each batch; False leaves the requests in the ring until `resume()` of the
                server.

        Returns:
            The server.

        Raises:
            TransportStateError: the queue does not exist or has a server already.
        """
        self._free_queue(index)
        batch = ChainBatch(max_chains, max(1024, self._queues[index].max_size))
        return self._serve(index, BatchWork(handler, batch, gate))

    def serve_rounds(self, index: int, work: QueueWork) -> QueueServer:
        """Answer queue `index` by rounds of the device's own, which may give chains back to the ring.

        Args:
            index: the queue.
            work: called on the device thread; says how far it came.

        Returns:
            The server; the device may call its `resume()` and `serve_now()`.

        Raises:
            TransportStateError: the queue does not exist or has a server already.
        """
        return self._serve(index, work)

    def watch(self, fd: int, callback: Callable[[], None], *, events: int = selectors.EVENT_READ) -> None:
        """Call back on the device thread whenever `fd` is ready, until the reset or `unwatch`.

        Args:
            fd: watched once at most; a second call changes nothing.
            callback: must consume what made it ready, or unwatch it.
            events: selectors.EVENT_READ or EVENT_WRITE.
        """
        if fd not in self._watched:
            self._watched.add(fd)
            self._loop.add(fd, lambda _events: callback(), events)

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`; nothing happens if it is not watched."""
        if fd in self._watched:
            self._watched.discard(fd)
            with suppress(KeyError):  # the loop dropped it, or a reset and the callback both unwatch it
                self._loop.remove(fd)

    def detach_queue(self, index: int) -> DetachedQueue:
        """Stop serving a queue here and hand it out for another backend to serve.

        Args:
            index: a ready queue.

        Returns:
            Its state and its fds; the fds stay owned by the transport and are valid until the next reset.

        Raises:
            TransportStateError: the queue is not ready or does not exist.
        """
        if index not in self.ready_queues:
            raise TransportStateError(self._device, f"without a ready queue {index}", "detach it")
        self.stop_queue(index)
        state = self._queues[index].state()
        return DetachedQueue(index, state, self._kicks[index].fd, self._interrupts.queue_eventfd(index))

    def attach_queue(self, index: int, state: QueueState) -> None:
        """Take a detached queue back at the indices the other backend reached, and serve it again.

        Args:
            index: the queue.
            state: as returned by `detach_queue`, with advanced indices.

        Raises:
            TransportStateError: the queue has no server here.
        """
        if index not in self._servers:
            raise TransportStateError(self._device, f"without a server for queue {index}", "attach it")
        server = self._servers[index]
        server.stop()
        self._tallies[index].retire(server.queue)
        server.queue = Queue.from_state(state)
        self._queues[index] = server.queue  # the transport's own list, so that both see the same queue
        self.start_queue(index)

    def start(self) -> None:
        """Serve every ready queue that has a server (transport only)."""
        self._running = True
        for index in self._servers:
            self.start_queue(index)

    def stop(self) -> None:
        """Stop all servers; returns when no handler runs (transport only)."""
        self._running = False
        for server in self._servers.values():
            server.stop()

    def close(self) -> None:
        """End this activation (transport only)."""
        self.stop()
        for fd in tuple(self._watched):
            self.unwatch(fd)

    def start_queue(self, index: int) -> None:
        """Serve one queue if it is ready and has a server (transport only)."""
        server = self._servers.get(index)
        if server is not None and self._running and self._queues[index].ready:
            server.start(self._loop)

    def stop_queue(self, index: int) -> None:
        """Stop serving one queue (transport only)."""
        if index in self._servers:
            self._servers[index].stop()

    def _free_queue(self, index: int) -> None:
        if not 0 <= index < len(self._queues) or index in self._servers:
            state = f"a device of {len(self._queues)} queues with servers for {sorted(self._servers)}"
            raise TransportStateError(self._device, state, f"serve queue {index}")

    def _serve(self, index: int, work: QueueWork) -> QueueServer:
        self._free_queue(index)
        server = QueueServer(
            index,
            self._queues[index],
            self._kicks[index],
            self.memory,
            work,
            tally=self._tallies[index],
            interrupt=self._interrupts.queue_interrupt,
            fail=self._fail,
        )
        self._servers[index] = server
        return server
