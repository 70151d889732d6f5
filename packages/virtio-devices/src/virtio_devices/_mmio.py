"""The virtio-mmio transport, register layout version 2 (VIRTIO 1.2 section 4.2).

Every register write is hostile input. A write that the specification does not allow in the present state is
ignored and logged (rate-limited); a read of something that is not there gives 0. Nothing raises towards the
bus.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, final

import attrs
from vm_device import EventManager, Interrupt, Value
from vm_device.platform import AddressRange, AddressSpace, DeviceNode, InterruptSpec
from vmm_memory import GuestAddressSpace

import virtio_devices  # whose names load when they are used
from virtio_devices._device import VirtioDevice
from virtio_devices._errors import SavedStateError
from virtio_devices._host import DeviceHost
from virtio_devices._mmio_interrupts import MmioInterrupts
from virtio_devices._rings import RingOptions
from virtio_devices._spec import Feature, MmioRegister, Status

if TYPE_CHECKING:
    from virtio_devices._host_state import QueueRegisters

__all__ = ("NotifyRange", "VirtioMmio")

MMIO_SIZE = 0x1000
_MAGIC = 0x7472_6976  # "virt"
_VERSION = 2
_U32 = (1 << 32) - 1
# VIRTIO 1.2 section 4.2.2: length and base of a shared memory region that does not exist are all ones.
_NO_SHM = _U32
_RINGS = RingOptions()
_ADDRESS_FIELDS = {
    MmioRegister.QUEUE_DESC_LOW: ("desc_table", 0),
    MmioRegister.QUEUE_DESC_HIGH: ("desc_table", 32),
    MmioRegister.QUEUE_DRIVER_LOW: ("avail_ring", 0),
    MmioRegister.QUEUE_DRIVER_HIGH: ("avail_ring", 32),
    MmioRegister.QUEUE_DEVICE_LOW: ("used_ring", 0),
    MmioRegister.QUEUE_DEVICE_HIGH: ("used_ring", 32),
}


@attrs.frozen(eq=False, repr=False)
class NotifyRange(Value):
    """One ioeventfd to register: a guest write of `datamatch` to `address` signals `fd`.

    Attributes:
        address: guest physical address of QueueNotify.
        size: width of the write in bytes, 4.
        datamatch: the queue index.
        fd: eventfd of that queue; owned by the transport, valid until its `close`.
    """

    address: int
    size: int
    datamatch: int
    fd: int


@final
class VirtioMmio:
    """A virtio-mmio device: a `vm_device.BusDevice` of 4096 bytes.

    Args:
        device: any object of the shape of `VirtioDevice`; owned from now on (closed with the transport).
        base: guest physical address, page aligned, 0 .. 2^64 - 4096.
        interrupt: the line, edge triggered.
        memory: guest memory.
        spec: the same line for the platform description; None leaves it out.
        loop: event loop to serve the queues on; None starts a thread of its own at the first activation.
        vendor_id: value of VendorID, 0 .. 2^32-1.
        uid: ACPI _UID, unique among the virtio-mmio devices of a machine.
        rings: what the driver may negotiate about the rings.

    Raises:
        ValueError: base is misaligned or out of range, or a queue size is impossible.
    """

    def __init__(
        self,
        device: VirtioDevice,
        *,
        base: int,
        interrupt: Interrupt,
        memory: GuestAddressSpace,
        spec: InterruptSpec | None = None,
        loop: EventManager | None = None,
        vendor_id: int = 0,
        uid: int = 0,
        rings: RingOptions = _RINGS,
    ) -> None:
        if base % MMIO_SIZE or not 0 <= base <= (1 << 64) - MMIO_SIZE:
            raise ValueError(f"base={base:#x}: must be a multiple of {MMIO_SIZE:#x} below 2^64")
        self.range = AddressRange(AddressSpace.MMIO, base, MMIO_SIZE)
        self._interrupts = MmioInterrupts(interrupt)
        self._host = DeviceHost(device, memory=memory, interrupts=self._interrupts, loop=loop, rings=rings)
        self._lock = threading.RLock()  # several vCPUs may access registers at once
        self._spec = spec
        self._uid = uid
        self._device_page = self._driver_page = self._queue = self._shm = 0
        self._fixed = {
            MmioRegister.MAGIC_VALUE: _MAGIC,
            MmioRegister.VERSION: _VERSION,
            MmioRegister.DEVICE_ID: device.device_id,
            MmioRegister.VENDOR_ID: vendor_id,
            MmioRegister.SHM_LEN_LOW: _NO_SHM,
            MmioRegister.SHM_LEN_HIGH: _NO_SHM,
            MmioRegister.SHM_BASE_LOW: _NO_SHM,
            MmioRegister.SHM_BASE_HIGH: _NO_SHM,
        }
        self._readers: dict[int, Callable[[], int]] = {
            MmioRegister.DEVICE_FEATURES: self._read_features,
            MmioRegister.QUEUE_NUM_MAX: lambda: self._of_queue(lambda i: device.queue_sizes[i]),
            MmioRegister.QUEUE_READY: lambda: self._of_queue(lambda i: int(self._host.queues[i].ready)),
            MmioRegister.QUEUE_RESET: lambda: 0,  # a queue reset is over when the write returns
            MmioRegister.INTERRUPT_STATUS: lambda: self._interrupts.status,
            MmioRegister.STATUS: lambda: int(self._host.status),
            MmioRegister.CONFIG_GENERATION: lambda: self._host.config_generation,
        }
        self._writers: dict[int, Callable[[int], None]] = {
            MmioRegister.DEVICE_FEATURES_SEL: self._select_device_page,
            MmioRegister.DRIVER_FEATURES: self._write_features,
            MmioRegister.DRIVER_FEATURES_SEL: self._select_driver_page,
            MmioRegister.QUEUE_SEL: self._select_queue,
            MmioRegister.QUEUE_NUM: self._write_queue_num,
            MmioRegister.QUEUE_READY: self._write_queue_ready,
            MmioRegister.INTERRUPT_ACK: self._interrupts.acknowledge,
            MmioRegister.STATUS: self._write_status,
            MmioRegister.SHM_SEL: self._select_shm,
            MmioRegister.QUEUE_RESET: self._write_queue_reset,
        }

    # For the machine that the device is part of

    @property
    def id(self) -> str:
        """The device's id."""
        return self._host.device.id

    @property
    def device(self) -> VirtioDevice:
        """The device, which stays this transport's own: for its counters, not to be closed."""
        return self._host.device

    def queue_stats(self) -> "tuple[virtio_devices.QueueStats, ...]":
        """What each of the device's queues did so far; those in work may be a moment ahead."""
        return self._host.queue_stats()

    @property
    def notify_ranges(self) -> tuple[NotifyRange, ...]:
        """The ioeventfds to register, one per queue; without them QueueNotify goes through `write`."""
        address = self.range.base + MmioRegister.QUEUE_NOTIFY
        return tuple(NotifyRange(address, 4, index, kick.fd) for index, kick in enumerate(self._host.kicks))

    def describe(self) -> DeviceNode:
        """The device as ACPI (LNRO0005) and device tree (virtio,mmio) announce it."""
        properties = {"virtio-device-id": self._host.device.device_id, **self._host.device.describe()}
        return DeviceNode(
            id=self.id,
            name="virtio_mmio",
            ranges=(self.range,),
            interrupts=() if self._spec is None else (self._spec,),
            hid="LNRO0005",
            compatible=("virtio,mmio",),
            uid=self._uid,
            properties=properties,
        )

    # BusDevice

    def read(self, offset: int, size: int) -> int:
        """Value of a register or of 1, 2, 4 or 8 bytes of configuration space, little-endian.

        Args:
            offset: 0 .. 0xFFF.
            size: access width in bytes; registers below 0x100 need 4.

        Returns:
            The value; 0 for what does not exist or was accessed in a way that section 4.2.2.2 forbids.
        """
        if self._host.closed:
            return 0
        if offset >= MmioRegister.CONFIG:
            return int.from_bytes(self._host.read_config(offset - MmioRegister.CONFIG, size), "little")
        if size != 4:
            self._host.log.warning("register %#x read with %d bytes, must be 4", offset, size)
            return 0
        fixed = self._fixed.get(offset)  # type: ignore[call-overload]
        if fixed is not None:
            return int(fixed)
        reader = self._readers.get(offset)
        if reader is None:
            return 0
        with self._lock:
            return reader()

    def write(self, offset: int, size: int, value: int) -> None:
        """Store into a register or into 1, 2, 4 or 8 bytes of configuration space; never raises.

        Args:
            offset: 0 .. 0xFFF.
            size: access width in bytes; registers below 0x100 need 4.
            value: unsigned, little-endian; bits beyond `size` are dropped.
        """
        value &= (1 << (8 * size)) - 1
        if offset == MmioRegister.QUEUE_NOTIFY and size == 4:
            self._host.kick(value)  # no lock: an eventfd write, as the ioeventfd would do
            return
        with self._lock:
            if self._host.closed:
                return
            if offset >= MmioRegister.CONFIG:
                self._host.write_config(offset - MmioRegister.CONFIG, value.to_bytes(size, "little"))
            elif size == 4:
                self._write_register(offset, value)
            else:
                self._host.log.warning("register %#x written with %d bytes, must be 4", offset, size)

    def _write_register(self, offset: int, value: int) -> None:
        field = _ADDRESS_FIELDS.get(offset)  # type: ignore[call-overload]
        if field is not None:
            self._write_address(field[0], field[1], value)
            return
        writer = self._writers.get(offset)
        if writer is None:
            self._host.log.warning("write %#x to register %#x ignored", value, offset)
        else:
            writer(value)

    # Registers

    def _read_features(self) -> int:
        return (self._host.offered >> (32 * self._device_page)) & _U32 if self._device_page < 2 else 0

    def _select_device_page(self, value: int) -> None:
        self._device_page = value

    def _select_driver_page(self, value: int) -> None:
        self._driver_page = value

    def _select_queue(self, value: int) -> None:
        self._queue = value

    def _select_shm(self, value: int) -> None:
        self._shm = value

    def _write_features(self, value: int) -> None:
        self._host.set_driver_features(self._driver_page, value)

    def _write_status(self, value: int) -> None:
        self._host.write_status(value)
        if value == 0:
            self._device_page = self._driver_page = self._queue = self._shm = 0
            self._interrupts.replace(0)

    def _of_queue(self, get: Callable[[int], int]) -> int:
        return get(self._queue) if self._queue < len(self._host.queues) else 0

    def _registers(self) -> "QueueRegisters | None":
        """The selected queue's registers if they may be written now."""
        host = self._host
        if self._queue >= len(host.queues) or not host.may_set_up_queues() or host.queues[self._queue].ready:
            host.log.warning("queue %d cannot be set up in status=%#x", self._queue, host.status)
            return None
        return host.registers[self._queue]

    def _write_queue_num(self, value: int) -> None:
        registers = self._registers()
        if registers is None:
            return
        limit = self._host.device.queue_sizes[self._queue]
        any_size = self._host.driver_features & Feature.RING_PACKED  # VIRTIO 1.2 section 2.8
        if not 0 < value <= limit or (value & (value - 1) and not any_size):
            rule = "from 1" if any_size else "a power of two up"
            self._host.log.warning("QueueNum=%d ignored: must be %s to %d", value, rule, limit)
            return
        registers.size = value

    def _write_address(self, field: str, shift: int, value: int) -> None:
        registers = self._registers()
        if registers is not None:
            kept = getattr(registers, field) & ~(_U32 << shift)
            setattr(registers, field, kept | value << shift)

    def _write_queue_ready(self, value: int) -> None:
        if self._queue < len(self._host.queues) and value == 0:
            self._host.stop_queue(self._queue)
        elif value == 1 and self._registers() is not None:
            self._host.set_queue_ready(self._queue)

    def _write_queue_reset(self, value: int) -> None:
        negotiated = (
            self._host.driver_features & Feature.RING_RESET and self._host.status & Status.FEATURES_OK
        )
        if value == 1 and negotiated and self._queue < len(self._host.queues):
            self._host.stop_queue(self._queue)

    # Lifecycle

    def pause(self) -> None:
        """Stop serving the queues; what the driver sends waits. Returns when no request is in work."""
        with self._lock:
            self._host.pause()

    def resume(self) -> None:
        """Serve again, beginning with what arrived during the pause."""
        with self._lock:
            self._host.resume()

    def state(self) -> "virtio_devices.MmioState":
        """Everything needed to go on in another process.

        Raises:
            TransportStateError: the device is running; call `pause` first.
        """
        with self._lock:
            selectors = (self._device_page, self._driver_page, self._queue, self._shm)
            return virtio_devices.MmioState(
                host=self._host.state(), selectors=selectors, interrupt_status=int(self._interrupts.status)
            )

    def restore(self, state: "virtio_devices.MmioState") -> None:
        """Take over a saved state; the device is paused afterwards, call `resume`.

        Args:
            state: from a device of the same type, features and queues.

        Raises:
            SavedStateError: it does not fit; nothing changed.
            TransportStateError: the driver has already talked to this device.
        """
        if state.version != 1:
            raise SavedStateError("version", state.version, "1")
        with self._lock:
            self._host.restore(state.host)
            self._device_page, self._driver_page, self._queue, self._shm = state.selectors
            self._interrupts.replace(state.interrupt_status)

    def close(self) -> None:
        """Reset and close the device and its kick fds (unregister the ioeventfds before); idempotent."""
        with self._lock:
            self._host.close()

    def __enter__(self) -> "VirtioMmio":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
