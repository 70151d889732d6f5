"""`vmm cpuid`: what guests see of this processor, and in what two hosts differ."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from vm_hypervisor import CpuidError, HypervisorUnavailableError, KvmHypervisor
from vm_hypervisor.cpuid import BUILT_IN, CpuTable, Template, Topology, diff, features, normalise

from vmm_reference._arch import HOST
from vmm_reference._errors import ConfigError, HostError

_DIFFER = 1  # exit status, as of diff(1)


def main(arguments: argparse.Namespace) -> int:
    """Do what was asked; return the exit status.

    Raises:
        ConfigError: a file, template or topology is none.
        HostError: there is no usable KVM.
    """
    status = 0
    try:
        match arguments.what:
            case "dump":
                text = _dump(arguments)
            case "show":
                text = _lines(_shown(_read(arguments.file)))
            case "diff":
                text = _lines(map(str, diff(_read(arguments.first), _read(arguments.second))))
                status = _DIFFER if text else 0
            case _:
                text = _lines(f"{name}: {Template.load(name).description}" for name in BUILT_IN)
    except CpuidError as error:
        raise ConfigError(f"cpuid {arguments.what}", str(error)) from None
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # a pager that was left; Python flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _read(name: str) -> CpuTable:
    if name == "host":
        if HOST != "x86_64":
            raise HostError(f"cpuid: this machine is {HOST}, only x86-64 processors have CPUID; give a dump")
        try:
            with KvmHypervisor() as hypervisor:
                return CpuTable(hypervisor.supported_cpuid().leaves, hypervisor.feature_msrs())
        except HypervisorUnavailableError as error:
            raise HostError(str(error)) from None
    try:
        return CpuTable.from_text(Path(name).read_text("utf-8", "replace"), name)
    except OSError as error:
        raise ConfigError(
            "cpuid", f"{name}: {error.strerror}; give a dump, or host for this machine"
        ) from None


def _dump(arguments: argparse.Namespace) -> str:
    table = _read(arguments.file)
    if arguments.template:
        table = Template.load(arguments.template).apply(table)
    if arguments.leaves_only:
        table = CpuTable(table.leaves)
    if not arguments.topology:
        return table.to_text()
    topology = Topology.parse(arguments.topology)
    return "".join(normalise(table, topology, index).to_text(index) for index in range(topology.cpus))


def _shown(table: CpuTable) -> Iterator[str]:
    yield f"{table.vendor or 'no vendor'}, signature {table.value(1, 'eax'):#x}, {len(table.leaves)} leaves"
    for where, names in features(table).items():
        yield f"{where}: {' '.join(names)}"
    for index, value in sorted(table.msrs.items()):
        yield f"msr {index:#x}: {value:#x}"
