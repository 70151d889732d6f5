"""What a guest's processors say of themselves: read, cut down, made consistent, compared.

Pure functions over a frozen table: `CpuTable` (from KVM or a dump), `Template.apply` (the same on every host
of a fleet), `normalise` (topology, APIC ids, XSAVE sizes, hypervisor leaves of one processor), `diff`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from vm_hypervisor.cpuid._normalise import normalise
from vm_hypervisor.cpuid._table import CpuidLeaf, CpuTable
from vm_hypervisor.cpuid._topology import Topology

if TYPE_CHECKING:
    from vm_hypervisor.cpuid._bits import features
    from vm_hypervisor.cpuid._diff import Difference, diff
    from vm_hypervisor.cpuid._template import BUILT_IN, MsrRule, RegisterRule, Template

__all__ = (
    "BUILT_IN",
    "CpuTable",
    "CpuidLeaf",
    "Difference",
    "MsrRule",
    "RegisterRule",
    "Template",
    "Topology",
    "diff",
    "features",
    "normalise",
)

# A machine without a template starts without these.
_LATER = {
    "BUILT_IN": "_template",
    "Difference": "_diff",
    "MsrRule": "_template",
    "RegisterRule": "_template",
    "Template": "_template",
    "diff": "_diff",
    "features": "_bits",
}

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load a module when a name of it is first used (PEP 562)."""
        if name in _LATER:
            module = import_module(f"vm_hypervisor.cpuid.{_LATER[name]}")
            value = globals()[name] = getattr(module, name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})
