"""What a guest's processors say of themselves: read, cut down, made consistent, compared.

Pure functions over a frozen table: `CpuTable` (from KVM or a dump), `Template.apply` (the same on every host
of a fleet), `normalise` (topology, APIC ids, XSAVE sizes, hypervisor leaves of one processor), `diff`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vm_hypervisor.cpuid._bits import features
    from vm_hypervisor.cpuid._diff import Difference, diff
    from vm_hypervisor.cpuid._normalise import normalise
    from vm_hypervisor.cpuid._table import CpuidLeaf, CpuTable
    from vm_hypervisor.cpuid._template import BUILT_IN, MsrRule, RegisterRule, Template
    from vm_hypervisor.cpuid._topology import Topology

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

# Where each name is; a module is loaded when a name of it is first used (PEP 562), for few programs need all.
_HOMES = {
    "_bits": ("features",),
    "_diff": ("Difference", "diff"),
    "_normalise": ("normalise",),
    "_table": ("CpuTable", "CpuidLeaf"),
    "_template": ("BUILT_IN", "MsrRule", "RegisterRule", "Template"),
    "_topology": ("Topology",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # for a type checker each name has its type, and a wrong one is an error

    def __getattr__(name: str) -> object:
        """Load the module of a public name."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
