"""From what a hypervisor can show to what one processor of a machine shall see.

Source: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E; Documentation/arch/x86/topology.rst and
Documentation/virt/kvm/x86/cpuid.rst of the kernel.
"""

from collections.abc import Iterator
from typing import Final

import attrs

from vm_hypervisor.cpuid._table import CpuidLeaf, CpuTable, Register
from vm_hypervisor.cpuid._topology import Topology

__all__ = ("normalise",)

_HYPERVISOR: Final = 1 << 31  # 1.ECX
_HTT: Final = 1 << 28  # 1.EDX
_XSAVE: Final = 1 << 26  # 1.ECX
_XSAVES: Final = 1 << 3  # 0xD.1 EAX
_CMP_LEGACY, _TOPOEXT = 1 << 1, 1 << 22  # 0x80000001.ECX
_AMD: Final = frozenset({"AuthenticAMD", "HygonGenuine"})
_ZEN: Final = 0x17
_SMT, _CORE, _DIE = 1, 2, 5  # level types of leaves 0xB and 0x1F
_LEGACY_AREA: Final = 576  # bytes of an XSAVE area without extended components
# Components of XCR0 that make no sense without a feature: leaf, index, register and bit of it, mask.
_COMPONENTS: Final[tuple[tuple[int, int, Register, int, int], ...]] = (
    (0x1, 0, "ecx", 28, 0x4),  # AVX
    (0x7, 0, "ebx", 14, 0x18),  # MPX
    (0x7, 0, "ebx", 16, 0xE0),  # AVX512F
    (0x7, 0, "ecx", 3, 0x200),  # PKU
    (0x7, 0, "edx", 24, 0x6_0000),  # AMX
)


def normalise(table: CpuTable, topology: Topology, index: int) -> CpuTable:
    """Return what CPUID should answer on one processor of a machine.

    Topology (leaves 1, 4, 0xB, 0x1F; of AMD 0x80000001, 0x80000008, 0x8000001D and 0x8000001E), APIC ids,
    the XSAVE area (0xD: its components and size as the features ask for), the hypervisor bit (without which a
    guest ignores kvm-clock and calibrates against a PIT for seconds), and how far the leaves reach. Leaf 0x1F
    is added where there are dies, which no other leaf can tell; Linux reads it on AMD too. More than a field
    can count is the most it can.

    Args:
        table: what the hypervisor can do, perhaps cut down by a template.
        topology: of the machine.
        index: which processor.

    Raises:
        CpuidError: there is no such processor.
    """
    apic_id = topology.apic_id(index)
    amd = table.vendor in _AMD
    changed = [
        *_features(table, topology, apic_id, amd=amd),
        *_caches(table, topology),
        *(_amd(table, topology, apic_id) if amd else ()),
    ]
    levels = _levels(table, topology, apic_id)
    # Newer AMD processors have levels in 0x80000026 too; a guest falls back to 0xB.
    functions = {leaf.function for leaf in levels} | {0xD, 0x8000_0026}
    rest = [leaf for leaf in table.leaves if leaf.function not in functions]
    whole = CpuTable(rest, table.msrs).replaced([*changed, *levels, *_xsave(table)])
    return whole.replaced(_extents(whole))


def _features(table: CpuTable, topology: Topology, apic_id: int, *, amd: bool) -> Iterator[CpuidLeaf]:
    leaf = table.leaf(1)
    if leaf is None:
        return
    threads = topology.threads * topology.cores * topology.dies
    # Intel counts the ids that a package may have, AMD the processors that it has.
    count = min(threads if amd else 1 << topology.socket_shift, 255)
    yield attrs.evolve(
        leaf,
        ebx=leaf.ebx & 0xFFFF | count << 16 | (apic_id & 0xFF) << 24,
        ecx=leaf.ecx | _HYPERVISOR,
        edx=leaf.edx | _HTT if threads > 1 else leaf.edx & ~_HTT,
    )


def _caches(table: CpuTable, topology: Topology) -> Iterator[CpuidLeaf]:
    """Caches below level 3 belong to a core, the others to a die; both leaves count APIC ids less 1."""
    for leaf in table.leaves:
        if leaf.function not in (0x4, 0x8000_001D) or not leaf.eax & 0x1F:
            continue
        shift = topology.die_shift if leaf.eax >> 5 & 7 >= 3 else topology.core_shift
        eax = leaf.eax & ~(0xFFF << 14) | min((1 << shift) - 1, 0xFFF) << 14
        if leaf.function == 0x4:
            cores = (1 << topology.socket_shift - topology.core_shift) - 1
            eax = eax & 0x03FF_FFFF | min(cores, 63) << 26
        yield attrs.evolve(leaf, eax=eax)


def _levels(table: CpuTable, topology: Topology, apic_id: int) -> list[CpuidLeaf]:
    """Leaf 0xB knows threads and cores, its last level must span the socket; 0x1F knows dies as well."""
    die, socket = topology.threads * topology.cores, topology.threads * topology.cores * topology.dies
    threads = (topology.core_shift, topology.threads, _SMT)
    simple = (threads, (topology.socket_shift, socket, _CORE))
    whole = (threads, (topology.die_shift, die, _CORE), (topology.socket_shift, socket, _DIE))
    grouped = topology != Topology(cores=topology.cores)
    found: list[tuple[int, tuple[tuple[int, int, int], ...]]] = []
    if grouped or table.leaf(0xB):
        found.append((0xB, simple))
    if topology.dies > 1 or table.leaf(0x1F):
        found.append((0x1F, whole if topology.dies > 1 else simple))
    return [
        # The last sub-leaf says that there are no more.
        CpuidLeaf(function, sub, True, shift, min(count, 0xFFFF), kind << 8 | sub, apic_id)
        for function, levels in found
        for sub, (shift, count, kind) in enumerate((*levels, (0, 0, 0)))
    ]


def _amd(table: CpuTable, topology: Topology, apic_id: int) -> Iterator[CpuidLeaf]:
    threads = topology.threads * topology.cores * topology.dies
    extended = topology.threads > 1 or topology.dies > 1 or table.leaf(0x8000_001E) is not None
    if leaf := table.leaf(0x8000_0001):
        ecx = leaf.ecx | _CMP_LEGACY if threads > 1 else leaf.ecx & ~_CMP_LEGACY
        yield attrs.evolve(leaf, ecx=ecx | (_TOPOEXT if extended else 0))
    if leaf := table.leaf(0x8000_0008):
        ecx = leaf.ecx & ~0xF0FF | min(threads - 1, 255) | min(topology.socket_shift, 15) << 12
        yield attrs.evolve(leaf, ecx=ecx)
    if extended:
        in_socket = apic_id & (1 << topology.socket_shift) - 1
        # A die is a node, but for families before Zen: there Linux divides the threads of a die by the nodes.
        dies = topology.dies if _family(table) >= _ZEN else 1
        node = (apic_id >> topology.socket_shift) * dies
        node += in_socket >> topology.die_shift if dies > 1 else 0
        ebx = min(topology.threads - 1, 255) << 8 | in_socket >> topology.core_shift & 0xFF
        ecx = min(dies - 1, 7) << 8 | node & 0xFF
        yield CpuidLeaf(0x8000_001E, 0, False, apic_id, ebx, ecx, 0)


def _family(table: CpuTable) -> int:
    signature = table.value(1, "eax")
    base = signature >> 8 & 0xF
    return base + (signature >> 20 & 0xFF) if base == 0xF else base


def _xsave(table: CpuTable) -> list[CpuidLeaf]:
    """Leaf 0xD: components that a feature of the table needs, and the size of an area with all of them.

    The kernel itself keeps 0xD.EBX and the compacted size in step with what the guest has enabled.
    """
    leaves = [leaf for leaf in table.leaves if leaf.function == 0xD]
    main = table.leaf(0xD)
    if main is None:
        return leaves
    allowed = main.edx << 32 | main.eax
    for function, sub, register, bit, mask in _COMPONENTS:
        if not table.value(function, register, sub) >> bit & 1:
            allowed &= ~mask
    if not table.value(0x1, "ecx") & _XSAVE:
        allowed = 0
    supervisor = table.value(0xD, "edx", 1) << 32 | table.value(0xD, "ecx", 1)
    if not table.value(0xD, "eax", 1) & _XSAVES:
        supervisor = 0
    kept = [leaf for leaf in leaves if leaf.index < 2 or (allowed | supervisor) >> leaf.index & 1]
    user = [leaf for leaf in kept if leaf.index >= 2 and not leaf.ecx & 1]
    size = max([_LEGACY_AREA, *(leaf.eax + leaf.ebx & 0xFFFF_FFFF for leaf in user)])
    kept[kept.index(main)] = attrs.evolve(
        main, eax=allowed & 0xFFFF_FFFF, ebx=_LEGACY_AREA, ecx=size, edx=allowed >> 32
    )
    return kept


def _extents(table: CpuTable) -> Iterator[CpuidLeaf]:
    """Each range's first leaf names its last; a guest looks no further."""
    for first in (0, 0x4000_0000, 0x8000_0000):
        if leaf := table.leaf(first):
            last = max(other.function for other in table.leaves if other.function >> 16 == first >> 16)
            yield attrs.evolve(leaf, eax=max(leaf.eax, last))
