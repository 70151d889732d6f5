"""The virtual machine generation ID (Microsoft, "Virtual Machine Generation ID", August 2012)."""

import uuid
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from vm_device._errors import PlatformError, SavedStateError
from vm_device._saved_state import check_saved
from vm_device.platform import DeviceNode, InterruptSpec

_SIZE: Final = 16


class GuestMemory(Protocol):
    """What is needed of guest memory; `vmm_memory.GuestMemory` has it."""

    def write(self, addr: int, data: bytes, /) -> object:
        """Write all of `data` at a guest address."""
        ...


@attrs.frozen
class VmGenIdState:
    """Saved state of a VmGenId, version 1: the `address` of the identifier, and the `generation` it was."""

    address: int
    generation: uuid.UUID
    version: int = 1


class VmGenId:
    """128 random bits in guest memory that change whenever a machine starts from a copy of its state.

    A guest that sees another value reseeds its random number generator, as Linux does, so that two machines
    restored from one snapshot do not draw the same keys.

    Args:
        memory: the guest's; the 16 bytes must be memory that the guest's map reserves.
        address: guest address of the identifier, a multiple of 8 and not across a page.
        notify: tells the guest to look again: raises the interrupt that `describe` was given.
        generate: makes a new value.

    Raises:
        PlatformError: the address is not where the specification allows it.
    """

    def __init__(
        self,
        memory: GuestMemory,
        address: int,
        notify: Callable[[], object],
        *,
        generate: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        if address < 0 or address % 8 or address % 4096 > 4096 - _SIZE:
            raise PlatformError("address", address, "must be a multiple of 8, with 16 bytes in one page")
        self._memory = memory
        self._address = address
        self._notify = notify
        self._generate = generate
        self._generation = generate()

    @property
    def generation(self) -> uuid.UUID:
        """The identifier."""
        return self._generation

    def install(self) -> None:
        """Write the identifier into guest memory; before the first vCPU runs.

        Raises:
            Exception: what guest memory raises for an address that is not there.
        """
        # The structure of the specification is a GUID: little-endian fields.
        self._memory.write(self._address, self._generation.bytes_le)

    def renew(self) -> None:
        """Take a new identifier, write it and notify the guest; after a restore, before any vCPU runs.

        Raises:
            Exception: what guest memory raises; the identifier is new all the same.
        """
        self._generation = self._generate()
        self.install()
        self._notify()

    def state(self) -> VmGenIdState:
        """Return the saved state."""
        return VmGenIdState(self._address, self._generation)

    @classmethod
    def from_state(
        cls,
        state: VmGenIdState,
        memory: GuestMemory,
        notify: Callable[[], object],
        *,
        generate: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> "VmGenId":
        """Rebuild the device with its old identifier; call `renew` unless this is the same machine going on.

        Raises:
            SavedStateError: unknown version or an impossible address.
        """
        check_saved(state)
        try:
            device = cls(memory, state.address, notify, generate=generate)
        except PlatformError as error:
            raise SavedStateError("address", state.address, "where an identifier may be") from error
        device._generation = state.generation
        return device

    def describe(self, id: str = "vmgenid", gsi: int | None = None) -> DeviceNode:  # noqa: A002 - the node's field
        """Return the platform node: ACPI id VMGENCTR, no range (it is RAM), the address as a property.

        `notify` is to raise the edge `gsi`; without one a guest looks only when it starts, and no device tree
        can have the device.
        """
        return DeviceNode(
            id,
            "vmgenid",
            (),
            () if gsi is None else (InterruptSpec(gsi),),
            hid="VMGENCTR",
            compatible=("microsoft,vmgenid",),
            properties={"address": self._address},
        )
