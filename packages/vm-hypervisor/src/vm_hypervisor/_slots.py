"""Memory slots kept in step with the region map."""

from typing import Protocol

from vmm_memory import GuestRegionMmap

from vm_hypervisor._errors import SlotError


class _SlotTarget(Protocol):
    """The two slot calls of `Vm`."""

    def set_memory_slot(
        self,
        slot: int,
        base: int,
        size: int,
        host_address: int,
        *,
        read_only: bool = False,
        log_dirty: bool = False,
    ) -> None: ...

    def remove_memory_slot(self, slot: int) -> None: ...


class MemorySlots:
    """A listener of a region map that mirrors it into a VM's memory slots.

    Register it with `GuestMemoryAtomic` before the first region, or feed it the regions of a
    finished map with `region_added`. It keeps each region it mirrors alive. A region's own slot
    id is unique in the process and grows for ever; hypervisors count a VM's slots from 0 to a
    small maximum, so the smallest free number is taken here and given back on removal.
    """

    def __init__(self, vm: _SlotTarget) -> None:
        """Mirror into `vm`, any object with the slot calls of `Vm`."""
        self._vm = vm
        self._regions: dict[int, GuestRegionMmap] = {}

    @property
    def regions(self) -> tuple[GuestRegionMmap, ...]:
        """The mirrored regions in slot order."""
        return tuple(self._regions[slot] for slot in sorted(self._regions))

    def slot_of(self, region: GuestRegionMmap) -> int:
        """Return the hypervisor's slot number of a mirrored region.

        Raises:
            SlotError: the region was never added.
        """
        for slot, mirrored in self._regions.items():
            if mirrored is region:
                return slot
        raise SlotError(region.slot, region.base, region.size, "this region is not mirrored here")

    def region_added(self, region: GuestRegionMmap) -> None:
        """Give the guest a region.

        Raises:
            SlotError: the hypervisor refused it; the slots are as before.
        """
        slot = next(n for n in range(len(self._regions) + 1) if n not in self._regions)
        self._vm.set_memory_slot(
            slot,
            region.base,
            region.size,
            region.host_address,
            read_only=region.read_only,
            log_dirty=region.bitmap is not None,
        )
        self._regions[slot] = region

    def region_removed(self, region: GuestRegionMmap) -> None:
        """Take a region from the guest.

        Raises:
            SlotError: it was never added.
        """
        slot = self.slot_of(region)
        self._vm.remove_memory_slot(slot)
        del self._regions[slot]
