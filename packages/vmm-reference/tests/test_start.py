"""What `vmm run` loads on its way to the first KVM_RUN: CPU time of every start."""

import importlib.util
import subprocess
import sys

import pytest

# Of machines that have them, of commands other than `run`, or of guests that have got that far.
NOT_NEEDED = frozenset(
    {
        *("cattrs", "rich", "click", "hashlib", "ctypes", "statistics", "importlib.metadata"),
        *("zstandard", "lz4", "bz2", "lzma", "zlib"),
        *("dataclasses", "socket", "asyncio", "multiprocessing", "xml", "email", "http", "unittest"),
        *("cffi", "datetime", "difflib", "shutil", "subprocess", "tempfile", "tomllib", "uuid"),
        *("acpi_tables._gtdt", "acpi_tables._madt_gic", "acpi_tables._pptt", "acpi_tables._reader"),
        *("acpi_tables._spcr", "acpi_tables._vmgenid", "acpi_tables.aml", "acpi_tables.arch.aarch64"),
        *("kvm_ioctls._aarch64._state", "kvm_ioctls._exits", "kvm_ioctls._exits_arch", "kvm_ioctls._rings"),
        *("kvm_ioctls._caps", "kvm_ioctls._exit_reason", "kvm_ioctls._memory_flags", "kvm_ioctls._mp_state"),
        *("kvm_ioctls._routing", "kvm_ioctls._run_stats", "kvm_ioctls._stats", "kvm_ioctls._trace"),
        *("kvm_ioctls._x86_64._state_more", "kvm_ioctls.testing"),
        *("linux_loader._bzimage", "linux_loader._decoders", "linux_loader._flat"),
        *("linux_loader._load_image", "linux_loader._vmlinux", "linux_loader.fdt", "linux_loader.uefi"),
        *("vm_device._bus_counts", "vm_device._calendar", "vm_device._debug_ports", "vm_device._ioapic"),
        *("vm_device._pl011", "vm_device._pl031", "vm_device._pl061", "vm_device._pm_timer"),
        *("vm_device._serial_state", "vm_device._states", "vm_device._vmgenid", "vm_device._widths"),
        *("vm_hypervisor._exits", "vm_hypervisor._kvm_exits", "vm_hypervisor._split"),
        *("vm_hypervisor.cpuid._bits", "vm_hypervisor.cpuid._diff", "vm_hypervisor.cpuid._template"),
        *("vm_hypervisor.kvm_arm64", "vm_hypervisor.trace"),
        *("virtio_devices._blk", "virtio_devices._context", "virtio_devices._ffi"),
        *("virtio_devices._host_queues", "virtio_devices._host_state", "virtio_devices._mmio_state"),
        *("virtio_devices._net", "virtio_devices._pcap", "virtio_devices._server", "virtio_devices._tally"),
        *("virtio_devices._image", "virtio_devices._tap", "virtio_queue"),
        *("vmm_memory._include", "vmm_memory._iommu", "vmm_memory._iotlb", "vmm_memory._vector"),
        *("vmm_reference._config_disk", "vmm_reference._config_events", "vmm_reference._config_net"),
        *("vmm_reference._cpuid", "vmm_reference._doctor", "vmm_reference._emulated"),
        *("vmm_reference._open_net", "vmm_reference._serial_socket", "vmm_testhost"),
    }
)
# What attrs generates is compiled at each start; what compares and prints is more than half of it. 51 of 62
# classes have that from `vm_device.Value` or `kvm_ioctls._wire.Wire`. A module is 0.1 ms before its first
# line runs; 162 are ours.
MOST_BUILT = 62
MOST_GENERATED = 11
MOST_MODULES = 163

OURS = frozenset(
    {
        *("acpi_tables", "kvm_ioctls", "linux_loader", "virtio_devices", "virtio_queue", "vm_device"),
        *("vm_hypervisor", "vmm_memory", "vmm_reference", "vmm_testhost"),
    }
)

# What these load of their own accord is not the same in all Pythons.
_LIBRARIES = """
import sys
import argparse, attrs, json, logging, pathlib, selectors, threading, tty

print(*sys.modules)
"""

# What `vmm run` imports; the architecture's module comes with the first look at the kernel.
_LOAD = """
import sys
from vmm_reference import __main__, _arch, _cli, _files, _host, _logging, _session
from vmm_reference._arch import x86_64

print(*sys.modules)
"""

# What has been loaded when the first byte of the guest's output arrives.
_RUN = """
import sys
from vmm_reference import _cli, _files, _host, _logging, _session

arguments = _cli._parser().parse_args(["run", "--kernel", sys.argv[1], "--memory", "size=64M"])
_logging.set_up(arguments.verbose)
config = _cli.config_from(arguments)
_files.check_inputs(config)
loaded = {}

def note(data):
    if not loaded:
        loaded.update((name, dict(vars(module))) for name, module in list(sys.modules.items()))

with _session.Vmm(config, serial_out=note) as vmm:
    vmm.boot()
    vmm.wait()
print(*loaded)
values = [value for names in loaded.values() for value in names.values() if isinstance(value, type)]
ours = {value for value in values if "__attrs_attrs__" in vars(value) and value.__module__[:4] != "attr"}
print(len(ours), sum("__eq__" in vars(value) or "__repr__" in vars(value) for value in ours))
"""

_FACE = """
import importlib, sys, vmm_reference

assert "vmm_reference._machine" not in sys.modules
assert set(vmm_reference.__all__) <= set(dir(vmm_reference))
for package in ("vmm_reference", "kvm_ioctls", "virtio_devices", "vm_hypervisor.cpuid"):
    try:
        getattr(importlib.import_module(package), "Machin")
    except AttributeError as error:
        assert "has no attribute 'Machin'" in str(error)
    else:
        raise AssertionError(package)
assert vmm_reference.Machine.__module__ == "vmm_reference._machine"
assert "Machine" in vars(vmm_reference)
"""


def _not_needed(loaded):
    return sorted((loaded & NOT_NEEDED) - set(_python(_LIBRARIES).split()))


def _python(code, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.kvm
def test_a_machine_without_extras_loads_no_code_for_them(kernel):
    """Neither disks nor cards nor sockets nor typed exits, when nobody asked for them."""
    modules, classes = _python(_RUN, str(kernel("poweroff"))).splitlines()
    built, generated = map(int, classes.split())
    loaded = set(modules.split())
    assert {"vmm_reference._machine", "virtio_devices._rng", "linux_loader._elf"} <= loaded
    assert not _not_needed(loaded)
    assert generated <= MOST_GENERATED
    assert 40 < built <= MOST_BUILT
    assert 100 < sum(name.partition(".")[0] in OURS for name in loaded) <= MOST_MODULES


def test_the_command_loads_no_code_that_few_machines_need():
    """The same of the modules alone, wherever this runs."""
    loaded = set(_python(_LOAD).split())
    assert {"vmm_reference._machine", "vm_device.platform", "acpi_tables._build"} <= loaded
    assert not _not_needed(loaded)


def test_what_may_not_load_exists():
    """A module that was renamed would pass unseen."""
    ours = [name for name in NOT_NEEDED if "." in name or name in {"virtio_queue", "vmm_testhost"}]
    assert not [name for name in ours if importlib.util.find_spec(name) is None]


def test_names_load_when_first_used():
    """A late name is there for `dir` and by attribute; a typing mistake is an error."""
    _python(_FACE)
