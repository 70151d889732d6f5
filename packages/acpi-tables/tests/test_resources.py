"""Resource descriptors, byte by byte and through iasl."""

import contextlib

import pytest
from acpi_tables import AmlParseError, EncodingError, aml, sdt
from hypothesis import given
from hypothesis import strategies as st


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


CHOICES = (
    aml.start_dependent(0, 2),
    aml.irq([3, 4]),
    aml.irq([10], edge=False, active_low=True, shared=True),
    aml.dma([1, 3], speed=2, bus_master=True, transfer=1),
    aml.fixed_ports(0x3F0, 6),
    aml.end_dependent(),
    aml.memory32(0x1000, 0xF000, 0x1000, 0x100, writable=False),
    aml.register(0, 0xFED0_0000, 32, offset=4, access=3),
    aml.vendor(b"short"),
    aml.vendor(bytes(range(40))),
)


def test_iasl_rebuilds_the_other_descriptors(iasl):
    """Each is what its macro in ASL says, and comes back byte by byte."""
    table = sdt(b"SSDT", 2, aml.name("CRS0", aml.resource_template(*CHOICES)).code)
    runner = iasl()
    source = runner.disassemble(table)
    for word in (
        "StartDependentFn (0x00, 0x02)", "IRQ (Edge, ActiveHigh, Exclusive", "IRQ (Level, ActiveLow, Shared",
        "DMA (TypeB, BusMaster, Transfer8_16", "FixedIO", "EndDependentFn", "Memory32 (ReadOnly",
        "Register (SystemMemory", "VendorShort", "VendorLong",
    ):  # fmt: skip
        assert word in source
    assert runner.assemble(source)[36:] == table[36:]


def test_a_template_is_taken_apart():
    """The descriptors as they were built; the end tag's checksum counts unless it is 0."""
    template = b"".join(CHOICES) + b"\x79"
    assert aml.split_resources(template + b"\0") == CHOICES
    assert aml.split_resources(template + bytes((-sum(template) & 0xFF,))) == CHOICES
    for damaged, message in (
        (template + b"\x01", "checksum 0x1"),
        (template[:-1], "no end tag"),
        (b"\x23\0", "leaves the template"),
        (b"\x84\xff", "leaves the template"),
        (b"\x79", "leaves the template"),
        (b"", "no end tag"),
    ):
        with pytest.raises(AmlParseError, match=message):
            aml.split_resources(damaged)


@given(st.binary(max_size=60))
def test_any_template_is_split_or_refused(data):
    """No other exception, and nothing that is not in the bytes."""
    with contextlib.suppress(AmlParseError):
        assert b"".join(aml.split_resources(data)) == data[: len(b"".join(aml.split_resources(data)))]


@pytest.mark.parametrize(
    "build",
    [
        lambda: aml.irq([]),
        lambda: aml.irq([16]),
        lambda: aml.dma([8]),
        lambda: aml.dma([1], speed=4),
        lambda: aml.fixed_ports(0x3FF, 2),
        lambda: aml.fixed_ports(0, 256),
        lambda: aml.start_dependent(3),
        lambda: aml.memory32(2, 1, 0, 1),
        lambda: aml.memory32(0, 1 << 32, 0, 1),
        lambda: aml.register(0, 1 << 64, 8),
        lambda: aml.register(0, 0, 8, access=5),
        lambda: aml.vendor(bytes(65536)),
    ],
)
def test_other_values_that_do_not_fit_are_refused(build):
    """Nothing is clipped."""
    with pytest.raises(EncodingError, match="cannot be"):
        build()
