"""The numbers that a start names without the enums are those of the enums."""

import kvm_ioctls as kvm
from vm_hypervisor import _kvm_numbers as numbers


def test_capabilities():
    """Each by its name."""
    assert {name: kvm.Cap[name] for name in numbers.CAPABILITIES} == numbers.CAPABILITIES


def test_exits_and_memory_flags():
    """Each by its name, behind the kind's."""
    kinds = {"EXIT": kvm.ExitReason, "MEM": kvm.MemFlags}
    names = [name for name in vars(numbers) if name.partition("_")[0] in kinds]
    assert len(names) == 6
    for name in names:
        kind, _, member = name.partition("_")
        assert getattr(numbers, name) == kinds[kind][member]
