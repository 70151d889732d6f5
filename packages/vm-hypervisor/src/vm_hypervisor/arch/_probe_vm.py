"""What the tiny guests of `probe` run in, on every architecture: a VM with 64 KiB of memory."""

from collections.abc import Mapping
from contextlib import ExitStack

import kvm_ioctls as kvm
from vmm_memory import GuestMemoryMmap, GuestRegionMmap

_SIZE = 1 << 16


def vm_with_memory(stack: ExitStack, system: kvm.Kvm, base: int, content: Mapping[int, bytes]) -> kvm.VmFd:
    """Return a VM, which `stack` closes, with memory from `base` and `content` at its addresses."""
    region = GuestRegionMmap.anonymous(base, _SIZE)
    memory = GuestMemoryMmap([region])
    for address, data in content.items():
        memory.write(address, data)
    stack.callback(_keep, region)
    vm = stack.enter_context(system.create_vm())
    vm.set_user_memory_region(
        0, guest_phys_addr=base, memory_size=region.size, userspace_addr=region.host_address
    )
    return vm


def _keep(_region: GuestRegionMmap) -> None:
    """Do nothing, late: the region has to outlive the VM, which the stack closes before it comes here."""
