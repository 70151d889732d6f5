"""What every transport does for a device: status, features, queue set-up, activation, reset, saved state.

A transport decodes registers and delivers interrupts; everything the VIRTIO specification says independently
of the transport (sections 2 and 3) is here. Register accesses arrive on several vCPU threads and are
serialised by the transport; `fail` may come from the device thread at any time and takes none of the
transport's locks.
"""

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from vm_device import ClosedError, EventFd, EventManager
from vmm_memory import GuestAddressSpace

import virtio_devices  # whose names load when they are used
from virtio_devices._device import VirtioDevice
from virtio_devices._errors import TransportStateError
from virtio_devices._log import LOGGER, GuestLog
from virtio_devices._rings import RingOptions
from virtio_devices._spec import Feature, Status

# What only an active device needs loads when it is activated: a machine starts without it.
if TYPE_CHECKING:
    from virtio_queue import VirtQueue

    from virtio_devices._host_queues import HostQueues
    from virtio_devices._host_state import QueueRegisters

_U32 = (1 << 32) - 1
_U16 = (1 << 16) - 1
_MAX_QUEUE_SIZE: Final = 1 << 15  # VIRTIO 1.2 sections 2.7 and 2.8
# The driver sets these one after the other (VIRTIO 1.2 section 3.1.1); each needs all the ones before it.
_STEPS = (Status.ACKNOWLEDGE, Status.DRIVER, Status.FEATURES_OK, Status.DRIVER_OK)


@final
class DeviceHost:
    """Runs one device for a transport.

    Args:
        device: the device type.
        memory: guest memory.
        interrupts: how to interrupt the driver.
        loop: event loop to work on; None starts one of its own, with its own thread, at the first activation.
        rings: what the driver may negotiate about the rings.

    Raises:
        ValueError: a queue size is impossible.
    """

    def __init__(
        self,
        device: VirtioDevice,
        *,
        memory: GuestAddressSpace,
        interrupts: "virtio_devices.Interrupts",
        loop: EventManager | None,
        rings: RingOptions,
    ) -> None:
        if not all(0 < size <= _MAX_QUEUE_SIZE for size in device.queue_sizes):
            raise ValueError(f"queue_sizes={device.queue_sizes}: each must be from 1 to {_MAX_QUEUE_SIZE}")
        self.device = device
        self.log = GuestLog(device.id)
        self.kicks = tuple(EventFd() for _ in device.queue_sizes)
        self.offered = device.features | Feature.VERSION_1 | rings.features
        self.driver_features = 0
        self._queues: HostQueues | None = None
        self._memory = memory
        self._interrupts = interrupts
        self._loop = loop
        self._own_loop = loop is None
        self._status = 0
        self._needs_reset = False
        self._fail_lock = threading.Lock()
        self._config_lock = threading.RLock()
        self._generation = 0
        self._context: virtio_devices.DeviceContext | None = None
        self._paused = False
        self._closed = False

    # Status and features

    @property
    def status(self) -> int:
        """The device status field as the driver reads it."""
        return self._status | (Status.NEEDS_RESET if self._needs_reset else 0)

    @property
    def closed(self) -> bool:
        """Whether `close` was called: the device answers nothing any more."""
        return self._closed

    def set_driver_features(self, page: int, value: int) -> None:
        """Accept 32 feature bits; only between DRIVER and FEATURES_OK (VIRTIO 1.2 section 3.1.1)."""
        if page > 1 or self._status & (Status.DRIVER | Status.FEATURES_OK | Status.FAILED) != Status.DRIVER:
            self.log.warning(
                "driver features page=%d value=%#x ignored in status=%#x", page, value, self.status
            )
            return
        kept = self.driver_features & ~(_U32 << (32 * page))
        self.driver_features = kept | (value & _U32) << (32 * page)

    def write_status(self, value: int) -> None:
        """Store into the status field: 0 resets, bits are added in their order, none is ever cleared."""
        if value == 0:
            self.reset()
            return
        value &= ~int(
            Status.NEEDS_RESET
        )  # drivers write back what they read; ~ of an IntFlag drops high bits
        if self._status & Status.FAILED or value & ~0xFF or self._status & ~value:
            self.log.warning("status write %#x ignored in status=%#x", value, self.status)
            return
        for step in _STEPS:
            if value & step and not self._status & step and not self._advance(step):
                break
        self._status |= value & Status.FAILED

    def _advance(self, step: Status) -> bool:
        before = _STEPS[: _STEPS.index(step)]
        if any(not self._status & earlier for earlier in before):
            self.log.warning("status bit %#x refused: status=%#x lacks an earlier step", step, self.status)
            return False
        if step is Status.FEATURES_OK and not self._features_ok():
            return False
        self._status |= step
        if step is Status.DRIVER_OK:
            self._activate()
        return True

    def _features_ok(self) -> bool:
        # VIRTIO 1.2 section 2.2.2: only offered bits; section 6.1: a device may insist on VERSION_1, ours is
        # not transitional.
        unknown = self.driver_features & ~self.offered
        if unknown or not self.driver_features & Feature.VERSION_1:
            self.log.warning(
                "features %#x refused: offered %#x, and VERSION_1 (bit 32) is required",
                self.driver_features,
                self.offered,
            )
            return False
        return True

    # Queues

    def may_set_up_queues(self) -> bool:
        """Between FEATURES_OK and DRIVER_OK, and later for a queue that was reset."""
        if not self._status & Status.FEATURES_OK or self._status & Status.FAILED:
            return False
        return not self._status & Status.DRIVER_OK or bool(self.driver_features & Feature.RING_RESET)

    def _made(self) -> "HostQueues":
        """The queues, made at the first look; not for `queue_stats`, which any thread may call."""
        if self._queues is None:
            from virtio_devices._host_queues import HostQueues  # noqa: PLC0415

            self._queues = HostQueues(self.device.queue_sizes)
        return self._queues

    @property
    def queues(self) -> "list[VirtQueue]":
        """The rings."""
        return self._made().rings

    @property
    def registers(self) -> "list[QueueRegisters]":
        """What the driver wrote about each queue."""
        return self._made().registers

    def set_queue_ready(self, index: int) -> None:
        """Check what the driver wrote about the queue and, if it is sound, let it be used."""
        if self.queues[index].ready:
            return
        wrong = self._made().set_up(index, self.driver_features, self._memory.memory())
        if wrong is not None:
            self.fail(f"queue {index}: {wrong}")
        elif self._context is not None:
            self._context.start_queue(index)

    def stop_queue(self, index: int) -> None:
        """Stop using a queue and forget its ring (QueueReady = 0, or a queue reset); synchronous."""
        if self._context is not None:
            self._context.stop_queue(index)
        self._made().forget(index)

    def kick(self, value: int) -> None:
        """The driver's notification, when it did not come through an ioeventfd; `value` as written."""
        # VIRTIO 1.2 section 4.2.2: with NOTIFICATION_DATA, the upper half says how far the driver has come.
        # So does the ring, and it cannot be out of date.
        index = value & _U16 if self.driver_features & Feature.NOTIFICATION_DATA else value
        if 0 <= index < len(self.kicks):
            with suppress(ClosedError):  # a vCPU may still run while the machine is taken down
                self.kicks[index].write()
        else:
            self.log.warning("notification for queue %d of %d ignored", index, len(self.kicks))

    def queue_stats(self) -> "tuple[virtio_devices.QueueStats, ...]":
        """What each queue did so far; those in work may be a moment ahead. Any thread."""
        if self._queues is not None:
            return self._queues.stats()
        return (virtio_devices.QueueStats(0, 0, 0, 0, 0, 0, 0),) * len(self.device.queue_sizes)

    # Configuration space

    @property
    def config_generation(self) -> int:
        """Counts the changes of the configuration space, modulo 2^32."""
        return self._generation

    def read_config(self, offset: int, size: int) -> bytes:
        """Bytes of the configuration space, zeros beyond its end and after a failing device method."""
        with self._config_lock:
            try:
                data = self.device.read_config(offset, size)
            except Exception as error:  # noqa: BLE001 - a device's bug must not take the vCPU thread down
                self._device_failed("read_config", error)
                data = b""
        return data[:size].ljust(size, b"\0")

    def write_config(self, offset: int, data: bytes) -> None:
        """Store into the configuration space, once the driver is there (VIRTIO 1.2 section 3.1.1 step 4)."""
        if self._status & (Status.DRIVER | Status.FAILED) != Status.DRIVER:
            self.log.warning("config write offset=%#x ignored in status=%#x", offset, self.status)
            return
        with self._config_lock:
            try:
                self.device.write_config(offset, data)
            except Exception as error:  # noqa: BLE001 - as above
                self._device_failed("write_config", error)

    def begin_config_update(self) -> None:
        """Keep the driver out of the configuration space."""
        self._config_lock.acquire()

    def end_config_update(self) -> None:
        """A new generation, visible together with the new values; then tell the driver."""
        self._generation = (self._generation + 1) & _U32
        self._config_lock.release()
        self._interrupts.config_interrupt()

    # Activation, failure, reset

    def _ensure_loop(self) -> EventManager:
        if self._loop is None:
            self._loop = EventManager(name=f"virtio-{self.device.id}")
            self._loop.start()
        return self._loop

    def _build_context(self) -> "virtio_devices.DeviceContext":
        return virtio_devices.DeviceContext(
            self.device.id,
            memory=self._memory,
            features=self.driver_features,
            queues=self.queues,
            kicks=self.kicks,
            tallies=self._made().tallies,
            interrupts=self._interrupts,
            config=self,
            loop=self._ensure_loop(),
            fail=self.fail,
        )

    def _activate(self) -> None:
        context = self._build_context()
        try:
            self.device.activate(context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver has to be told that the device is unusable
            context.close()
            self._device_failed("activate", error)
            return
        self._context = context
        if not self._paused:
            context.start()

    def _device_failed(self, what: str, error: Exception) -> None:
        LOGGER.error("%s: %s failed", self.device.id, what, exc_info=error)
        self.fail(f"{what} failed: {type(error).__name__}: {error}")

    def fail(self, reason: str) -> None:
        """Set DEVICE_NEEDS_RESET and, if the driver is up, interrupt it; once until the reset. Any thread."""
        with self._fail_lock:
            if self._needs_reset:
                return
            # First the reason: whoever sees the status finds it in the log.
            self.log.warning("device needs reset: %s", reason)
            self._needs_reset = True
        if self._status & Status.DRIVER_OK:  # VIRTIO 1.2 section 2.1.2
            self._interrupts.config_interrupt()

    def reset(self) -> None:
        """Back to the state after power-on; returns when no handler runs (VIRTIO 1.2 section 2.4)."""
        context, self._context = self._context, None
        if context is not None:
            context.close()
        try:
            self.device.reset()
        except Exception as error:  # noqa: BLE001 - the driver waits for status 0 and must get it
            LOGGER.error("%s: reset failed", self.device.id, exc_info=error)
        if self._queues is not None:
            self._queues.forget_all()
        for kick in self.kicks:
            kick.read()
        self.driver_features = 0
        self._status = 0
        self._needs_reset = False

    # Lifecycle

    def pause(self) -> None:
        """Stop serving the queues; requests wait in the rings. Returns when no handler runs."""
        self._paused = True
        if self._context is not None:
            self._context.stop()

    def resume(self) -> None:
        """Serve again, beginning with what arrived meanwhile."""
        self._paused = False
        if self._context is not None:
            self._context.start()

    def state(self) -> "virtio_devices.HostState":
        """Everything needed to go on elsewhere.

        Raises:
            TransportStateError: the device runs; pause it first.
        """
        if self._context is not None and not self._paused:
            raise TransportStateError(self.device.id, "running", "save its state; call pause() first")
        return virtio_devices.HostState(
            device_id=self.device.device_id,
            status=int(self._status),
            needs_reset=self._needs_reset,
            driver_features=self.driver_features,
            config_generation=self._generation,
            registers=tuple((r.size, r.desc_table, r.avail_ring, r.used_ring) for r in self.registers),
            queues=tuple(queue.state() for queue in self.queues),
            device=dict(self.device.state()),
        )

    def restore(self, state: "virtio_devices.HostState") -> None:
        """Take over a saved state; the device stays paused until `resume`.

        Raises:
            SavedStateError: the state belongs to another device or is of another version; nothing changed.
            TransportStateError: the driver has already talked to this device.
        """
        if self.status:
            raise TransportStateError(
                self.device.id, f"in status {self.status:#x}", "restore; reset it first"
            )
        from virtio_devices._host_state import check_host_state  # noqa: PLC0415

        check_host_state(
            state, device_id=self.device.device_id, sizes=self.device.queue_sizes, offered=self.offered
        )
        queues = self._made()
        rings = queues.saved_rings(state.queues)
        self._paused = True
        self.device.restore(state.device)
        queues.take_over(rings, state.registers)
        self.driver_features = state.driver_features
        self._generation = state.config_generation
        self._status = state.status
        self._needs_reset = state.needs_reset
        if self._status & Status.DRIVER_OK:
            self._activate()

    def close(self) -> None:
        """Reset the device, release its resources and the kick fds; idempotent."""
        if self._closed:
            return
        self._closed = True
        self.reset()
        if self._own_loop and self._loop is not None:
            self._loop.close()
        for kick in self.kicks:
            kick.close()
        self.device.close()
