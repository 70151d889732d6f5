"""KVM's structures from and to the values of this package."""

import kvm_ioctls as kvm
from vm_device.platform import AddressSpace

from vm_hypervisor._protocols import NativeAnswer
from vm_hypervisor.arch._x86_64_state import DescriptorTable, Segment
from vm_hypervisor.cpuid import CpuidLeaf


def neutral_leaf(entry: kvm.CpuidEntry, deadline: int) -> CpuidLeaf:
    """Make KVM's CPUID entry neutral; `deadline` is or-ed into leaf 1's ECX."""
    ecx = entry.ecx | deadline if entry.function == 1 else entry.ecx
    significant = bool(entry.flags & 1)  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX
    return CpuidLeaf(entry.function, entry.index, significant, entry.eax, entry.ebx, ecx, entry.edx)


def cpuid_entry(leaf: CpuidLeaf) -> kvm.CpuidEntry:
    """Make a CPUID leaf KVM's."""
    return kvm.CpuidEntry(
        function=leaf.function,
        index=leaf.index,
        flags=int(leaf.significant),
        eax=leaf.eax,
        ebx=leaf.ebx,
        ecx=leaf.ecx,
        edx=leaf.edx,
    )


def kvm_segment(segment: Segment) -> kvm.Segment:
    """Make a segment register KVM's."""
    names = ("base", "limit", "selector", "type", "present", "dpl", "db", "s", "l", "g")
    return kvm.Segment(**{name: getattr(segment, name) for name in names})


def kvm_table(table: DescriptorTable) -> kvm.DescriptorTable:
    """Make GDTR or IDTR KVM's."""
    return kvm.DescriptorTable(base=table.base, limit=table.limit)


def kvm_native_range(answer: NativeAnswer) -> kvm.NativeRange:
    """Make an answer a range of KVM's native table."""
    where = answer.range
    return kvm.NativeRange(
        "pio" if where.space is AddressSpace.PIO else "mmio",
        where.base,
        where.size,
        read=None if answer.read is None else kvm.Constant(answer.read),
        write=kvm.Drop() if answer.drop_writes else None,
    )
