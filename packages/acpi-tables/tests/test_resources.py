"""Resource descriptors, byte by byte and through iasl."""

import pytest
from acpi_tables import EncodingError, aml, sdt


def test_descriptor_bytes():
    """The two descriptors of a virtio-mmio device, as the specification lays them out."""
    assert aml.memory32_fixed(0xD000_0000, 0x1000).hex() == "86090001" + "000000d0" + "00100000"
    assert aml.interrupt([5], edge=True, active_low=False).hex() == "890600" + "0301" + "05000000"
    assert aml.io_ports(0x3F8, 8).hex() == "4701f803f8030108"


@pytest.mark.parametrize(
    "build",
    [
        lambda: aml.io_ports(0xFFFF, 2),
        lambda: aml.io_ports(0, 256),
        lambda: aml.memory32_fixed(0xFFFF_F000, 0x1001),
        lambda: aml.memory32_fixed(0, 0),
        lambda: aml.interrupt([], edge=True, active_low=False),
        lambda: aml.interrupt([1 << 32], edge=True, active_low=False),
        lambda: aml.interrupt(range(256), edge=True, active_low=False),
        lambda: aml.address_space(aml.SpaceKind.IO, 0, 0x1_0000, width=2),
        lambda: aml.address_space(aml.SpaceKind.IO, 0, 1, width=3),
        lambda: aml.address_space(aml.SpaceKind.MEMORY, 1 << 63, 1 << 63 | 1),
    ],
)
def test_what_does_not_fit_is_refused(build):
    """Empty ranges, ranges past the end, a whole space in its own length field, wrong widths."""
    with pytest.raises(EncodingError):
        build()


def test_every_descriptor_is_accepted_by_iasl(iasl):
    """Iasl names each descriptor and assembles the same bytes again."""
    crs = aml.resource_template(
        aml.io_ports(0x3F8, 8),
        aml.memory32_fixed(0xD000_0000, 0x1000, writable=False),
        aml.interrupt([5, 6], edge=False, active_low=True, shared=True),
        aml.interrupt([0xFFFF_FFFF], edge=True, active_low=False, consumer=False),
        aml.address_space(aml.SpaceKind.BUS, 0, 0x100, width=2, producer=True),
        aml.address_space(aml.SpaceKind.IO, 0x1000, 0x1000, width=4, producer=True),
        aml.address_space(aml.SpaceKind.MEMORY, 1 << 40, 1 << 30, producer=True),
    )
    table = sdt(b"SSDT", 2, aml.device("\\DEV0", aml.name("_HID", "TEST0001"), aml.name("_CRS", crs)).code)
    runner = iasl()
    source = runner.disassemble(table)
    for word in (
        "IO (Decode16",
        "ReadOnly",
        "Level, ActiveLow, Shared",
        "WordBusNumber",
        "DWordIO",
        "QWordMemory",
    ):
        assert word in source
    assert crs.code in runner.assemble(source)
