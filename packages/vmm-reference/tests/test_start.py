"""What `vmm run` loads on its way to the first KVM_RUN: CPU time of every start."""

import subprocess
import sys

import pytest

# Of machines that have them, or of commands other than `run`.
NOT_NEEDED = frozenset(
    {
        *("cattrs", "rich", "click", "hashlib", "ctypes", "statistics", "importlib.metadata"),
        *("zstandard", "lz4"),
        *("dataclasses", "socket", "asyncio", "multiprocessing", "xml", "email", "http", "unittest"),
        *("acpi_tables._reader", "acpi_tables.aml", "kvm_ioctls._exits", "kvm_ioctls.testing"),
        *("kvm_ioctls._trace", "vm_hypervisor.trace", "tempfile"),
        *("virtio_devices._blk", "virtio_devices._ffi"),
        *("virtio_devices._net", "virtio_devices._pcap", "virtio_devices._tap"),
        *("vmm_reference._doctor", "vmm_reference._emulated", "vmm_reference._open_net"),
        *("vmm_reference._serial_socket", "vmm_testhost"),
    }
)

_BUILD = """
import sys
from vmm_reference import _cli, _files, _host, _logging, _session

arguments = _cli._parser().parse_args(["run", "--kernel", sys.argv[1], "--memory", "size=64M"])
_logging.set_up(arguments.verbose)
config = _cli.config_from(arguments)
_files.check_inputs(config)
with _session.Vmm(config, serial_out=lambda data: None):
    print(*sys.modules)
"""

_FACE = """
import sys, vmm_reference

assert "vmm_reference._machine" not in sys.modules
assert set(vmm_reference.__all__) <= set(dir(vmm_reference))
for package in ("vmm_reference", "kvm_ioctls", "virtio_devices"):
    try:
        getattr(__import__(package), "Machin")
    except AttributeError as error:
        assert "has no attribute 'Machin'" in str(error)
    else:
        raise AssertionError(package)
assert vmm_reference.Machine.__module__ == "vmm_reference._machine"
assert "Machine" in vars(vmm_reference)
"""


def _python(code, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.kvm
def test_a_machine_without_extras_loads_no_code_for_them(kernel):
    """Neither disks nor cards nor sockets nor typed exits, when nobody asked for them."""
    loaded = set(_python(_BUILD, str(kernel("poweroff"))).split())
    assert {"vmm_reference._machine", "virtio_devices._rng"} <= loaded
    assert loaded.isdisjoint(NOT_NEEDED), sorted(loaded & NOT_NEEDED)


def test_names_load_when_first_used():
    """A late name is there for `dir` and by attribute; a typing mistake is an error."""
    _python(_FACE)
