"""Write the ACPI tables of the floor's machine, to be loaded at 0xe0000: tables.py FILE."""

import sys
from pathlib import Path

from acpi_tables import build_tables
from vm_device.platform import (
    AddressRange,
    AddressSpace,
    CpuNode,
    DeviceNode,
    InterruptSpec,
    IoApicNode,
    MemoryNode,
    Platform,
)

ADDRESS = 0xE_0000
COM1 = DeviceNode(
    "com1", "serial", (AddressRange(AddressSpace.PIO, 0x3F8, 8),), (InterruptSpec(4),), hid="PNP0501"
)
MACHINE = Platform(
    arch="x86_64",
    cpus=(CpuNode(0, 0),),
    memory=(MemoryNode(0, 128 << 20),),
    devices=(COM1,),
    ioapics=(IoApicNode(0, 0xFEC0_0000),),
)

if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(build_tables(MACHINE, ADDRESS).blob)
