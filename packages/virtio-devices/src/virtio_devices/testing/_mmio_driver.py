"""A virtio-mmio driver that speaks to any bus device through its registers (VIRTIO 1.2 section 3.1.1)."""

import time
from collections.abc import Sequence
from typing import final

from virtio_queue.testing import Completion, Driver, RingLayout
from vm_device import BusDevice
from vmm_memory import GuestMemory

from virtio_devices._errors import DriverTimeoutError, VirtioDeviceError
from virtio_devices._spec import Feature, InterruptBit, MmioRegister, Status
from virtio_devices.testing._line import LineProbe

_U32 = (1 << 32) - 1


class DeviceRefusedError(VirtioDeviceError):
    """The device did not accept a step of the initialisation, or is no virtio-mmio device at all.

    Attributes:
        step: what was tried.
        value: what the device answered.
    """

    def __init__(self, step: str, value: int, expected: str) -> None:
        super().__init__(f"{step}: device answered {value:#x}, expected {expected}")
        self.step = step
        self.value = value


@final
class MmioDriver:
    """A driver of one virtio-mmio device.

    Args:
        device: the device's registers; offset 0 is MagicValue.
        memory: the guest's memory.
        line: the interrupt line that the device was given.
        area: (address, bytes) of guest memory that belongs to this driver: rings and buffers.
        timeout: seconds to wait for the device before giving up.
        packed: True: negotiate packed rings, whatever else is wanted; False: split ones; None: as wanted.

    Attributes:
        features: what was negotiated.
        queues: the driver side of each queue, after `initialise` or `set_up_queue`.
    """

    def __init__(
        self,
        device: BusDevice,
        memory: GuestMemory,
        line: LineProbe,
        *,
        area: tuple[int, int],
        timeout: float = 60.0,
        packed: bool | None = None,
    ) -> None:
        self.memory = memory
        self.line = line
        self.timeout = timeout
        self.features = 0
        self.queues: dict[int, Driver] = {}
        self._device = device
        self._area = area
        self._packed = packed

    # Registers

    def read(self, register: int) -> int:
        """Read a 32-bit register."""
        return self._device.read(register, 4)

    def write(self, register: int, value: int) -> None:
        """Write a 32-bit register."""
        self._device.write(register, 4, value)

    def read_config(self, offset: int, size: int) -> int:
        """Read a config field of 1, 2 or 4 bytes, or one of 8 as two consistent halves."""
        if size < 8:
            return self._device.read(MmioRegister.CONFIG + offset, size)
        while True:  # VIRTIO 1.2 section 2.5.1: again until the generation did not change meanwhile
            generation = self.read(MmioRegister.CONFIG_GENERATION)
            low = self._device.read(MmioRegister.CONFIG + offset, 4)
            high = self._device.read(MmioRegister.CONFIG + offset + 4, 4)
            if self.read(MmioRegister.CONFIG_GENERATION) == generation:
                return high << 32 | low

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write a field of 1, 2 or 4 bytes of the configuration space."""
        self._device.write(MmioRegister.CONFIG + offset, size, value)

    @property
    def status(self) -> Status:
        """The device status field."""
        return Status(self.read(MmioRegister.STATUS))

    @property
    def needs_reset(self) -> bool:
        """Whether the device gave up on what the driver did."""
        return bool(self.status & Status.NEEDS_RESET)

    def add_status(self, bit: Status) -> None:
        """Set a status bit on top of those that are set."""
        self.write(MmioRegister.STATUS, self.status | bit)

    def offered_features(self) -> int:
        """All 64 feature bits of the device."""
        value = 0
        for page in (0, 1):
            self.write(MmioRegister.DEVICE_FEATURES_SEL, page)
            value |= self.read(MmioRegister.DEVICE_FEATURES) << (32 * page)
        return value

    def _accept_features(self, features: int) -> None:
        for page in (0, 1):
            self.write(MmioRegister.DRIVER_FEATURES_SEL, page)
            self.write(MmioRegister.DRIVER_FEATURES, features >> (32 * page) & _U32)
        self.features = features

    # Initialisation, VIRTIO 1.2 section 3.1.1

    def probe(self) -> int:
        """Check that this is a virtio-mmio device of version 2.

        Returns:
            Its device type; 0 is a placeholder without a device.

        Raises:
            DeviceRefusedError: it is something else.
        """
        for register, expected in ((MmioRegister.MAGIC_VALUE, 0x7472_6976), (MmioRegister.VERSION, 2)):
            value = self.read(register)
            if value != expected:
                raise DeviceRefusedError(register.name, value, f"{expected:#x}")
        return self.read(MmioRegister.DEVICE_ID)

    def reset(self) -> None:
        """Reset the device and forget the queues.

        Raises:
            DeviceRefusedError: the status is not 0 afterwards.
        """
        self.write(MmioRegister.STATUS, 0)
        if self.status:
            raise DeviceRefusedError("reset", self.status, "status 0")
        self.queues.clear()
        self.features = 0

    def negotiate(self, wanted: int | None = None) -> int:
        """Reset, acknowledge, and agree on features.

        Args:
            wanted: bits the driver would like, None for all that are offered but RING_RESET; VERSION_1 is
                always added.

        Returns:
            What was agreed on.

        Raises:
            DeviceRefusedError: the device did not keep FEATURES_OK.
        """
        self.reset()
        self.add_status(Status.ACKNOWLEDGE)
        self.add_status(Status.DRIVER)
        offered = self.offered_features()
        agreed = offered & (~int(Feature.RING_RESET) if wanted is None else wanted | Feature.VERSION_1)
        if self._packed is not None:
            agreed = agreed & ~Feature.RING_PACKED | (Feature.RING_PACKED if self._packed else 0)
        self._accept_features(int(agreed))
        self.add_status(Status.FEATURES_OK)
        if not self.status & Status.FEATURES_OK:
            raise DeviceRefusedError("FEATURES_OK", self.status, f"bit 8 for features {self.features:#x}")
        return self.features

    def set_up_queue(
        self, index: int, *, size: int | None = None, area: tuple[int, int] | None = None
    ) -> Driver:
        """Give the device one queue.

        Args:
            index: which one.
            size: entries, None for the most the device takes.
            area: (address, bytes) for its rings and buffers, None for all of the driver's area.

        Returns:
            The driver side of the queue.

        Raises:
            DeviceRefusedError: there is no such queue, or it does not become ready.
        """
        self.write(MmioRegister.QUEUE_SEL, index)
        most = self.read(MmioRegister.QUEUE_NUM_MAX)
        if most == 0:
            raise DeviceRefusedError(f"QueueNumMax of queue {index}", most, "more than 0")
        if self.read(MmioRegister.QUEUE_READY):
            raise DeviceRefusedError(f"QueueReady of queue {index}", 1, "0 before it is set up")
        base, length = area or self._area
        packed = bool(self.features & Feature.RING_PACKED)
        layout = RingLayout.at(base, size or most, packed=packed)
        driver = Driver(
            self.memory,
            layout,
            event_idx=bool(self.features & Feature.EVENT_IDX),
            indirect=bool(self.features & Feature.INDIRECT_DESC),
            arena=(layout.end, base + length - layout.end),
        )
        self.write(MmioRegister.QUEUE_NUM, layout.size)
        self._write_address(MmioRegister.QUEUE_DESC_LOW, layout.desc_table)
        self._write_address(MmioRegister.QUEUE_DRIVER_LOW, layout.avail_ring)
        self._write_address(MmioRegister.QUEUE_DEVICE_LOW, layout.used_ring)
        self.write(MmioRegister.QUEUE_READY, 1)
        if not self.read(MmioRegister.QUEUE_READY):
            raise DeviceRefusedError(f"QueueReady of queue {index}", 0, "1")
        self.queues[index] = driver
        return driver

    def _write_address(self, low: MmioRegister, address: int) -> None:
        self.write(low, address & _U32)
        self.write(low + 4, address >> 32)

    def initialise(
        self, *, features: int | None = None, queues: Sequence[int] = (0,), size: int | None = None
    ) -> int:
        """The whole sequence up to DRIVER_OK.

        Args:
            features: as for `negotiate`.
            queues: indices of the queues to set up; they share the driver's area evenly.
            size: entries of each, None for the most the device takes.

        Returns:
            The negotiated features.

        Raises:
            DeviceRefusedError: the device did not accept a step.
        """
        if not self.probe():
            raise DeviceRefusedError("DeviceID", 0, "a device")
        agreed = self.negotiate(features)
        base, length = self._area
        share = length // max(len(queues), 1) & ~0xFFF
        for place, index in enumerate(queues):
            self.set_up_queue(index, size=size, area=(base + place * share, share))
        self.add_status(Status.DRIVER_OK)
        return agreed

    # Requests

    def kick(self, index: int = 0, *, always: bool = False) -> bool:
        """Notify the device of what was published, if it wants to be.

        Returns:
            Whether QueueNotify was written.
        """
        needed = self.queues[index].kick_needed()
        if needed or always:
            ahead = 0
            if self.features & Feature.NOTIFICATION_DATA:  # VIRTIO 1.2 section 4.2.3.3
                ahead = self.queues[index].next_avail << 16
            self.write(MmioRegister.QUEUE_NOTIFY, ahead | index)
        return needed or always

    def acknowledge(self) -> InterruptBit:
        """What an interrupt handler does first: read InterruptStatus and acknowledge what it holds."""
        bits = self.read(MmioRegister.INTERRUPT_STATUS)
        self.write(MmioRegister.INTERRUPT_ACK, bits)
        return InterruptBit(bits)

    def wait(self, index: int = 0, count: int = 1) -> list[Completion]:
        """Take back at least `count` used chains of a queue, sleeping on the interrupt as a driver does.

        Raises:
            DriverTimeoutError: the device did not use them, or did not interrupt, in time.
        """
        driver, done = self.queues[index], list[Completion]()
        end = time.monotonic() + self.timeout
        while True:
            done += driver.completed()
            if len(done) >= count:
                return done
            if driver.enable_interrupts():
                continue
            if not self.line.wait(max(0.0, end - time.monotonic())):
                raise DriverTimeoutError(
                    f"completion {len(done) + 1} of {count} on queue {index}", self.timeout
                )
            self.acknowledge()

    def wait_for_reset_request(self) -> None:
        """Wait until the device sets DEVICE_NEEDS_RESET and interrupts for it.

        Raises:
            DriverTimeoutError: it did not in time.
        """
        end = time.monotonic() + self.timeout
        while not self.needs_reset:
            if not self.line.wait(max(0.0, end - time.monotonic())):
                raise DriverTimeoutError("DEVICE_NEEDS_RESET", self.timeout)

    def request(
        self,
        readable: Sequence[bytes] = (),
        writable: Sequence[int] = (),
        *,
        queue: int = 0,
        indirect: bool = False,
    ) -> Completion:
        """One request from start to end: make it available, kick, wait, take it back.

        Raises:
            DriverTimeoutError: the device did not answer in time.
        """
        head = self.queues[queue].request(readable, writable, indirect=indirect)
        self.kick(queue)
        done = self.wait(queue)
        return next(completion for completion in done if completion.head == head)
