"""Who implements the Protocols."""

from vmm_memory import DiscardListener, GuestAddressSpace, GuestMemory, GuestMemoryAtomic, GuestMemoryMmap
from vmm_memory.testing import ByteArrayMemory


def test_implementations():
    """Map and twin are memory and address space, the holder is an address space only."""
    for memory in (GuestMemoryMmap(), ByteArrayMemory([])):
        assert isinstance(memory, GuestMemory)
        assert isinstance(memory, GuestAddressSpace)
        assert memory.memory() is memory
    assert isinstance(GuestMemoryAtomic(), GuestAddressSpace)
    assert not isinstance(GuestMemoryAtomic(), GuestMemory)


def test_a_plain_listener_is_not_asked_about_discards():
    """DiscardListener is told apart by its third method."""

    class Plain:
        def region_added(self, region):
            """Nothing to do."""

        def region_removed(self, region):
            """Nothing to do."""

    assert not isinstance(Plain(), DiscardListener)
