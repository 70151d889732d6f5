"""The table reader against damaged and hostile memory."""

import contextlib

import pytest
from acpi_tables import MAX_TABLE_SIZE, MAX_TABLES, TableError, parse_tables, rsdp, sdt, xsdt
from hypothesis import given
from hypothesis import strategies as st

BASE = 0x1000


class Memory:
    """Flat memory at BASE that reads as zero beyond its end."""

    def __init__(self, *pieces):
        self.data = bytearray(b"".join(pieces))

    def read(self, address, size):
        """Return ``size`` bytes at ``address``."""
        offset = address - BASE
        return bytes(self.data[offset : offset + size]).ljust(size, b"\0")


def _fixed(data, at, value):
    """Write one byte and mend the sums of the RSDP, so that only the field itself is wrong."""
    raw = bytearray(data)
    raw[at : at + len(value)] = value
    raw[8] = (raw[8] - sum(raw[:20])) & 0xFF
    raw[32] = (raw[32] - sum(raw)) & 0xFF
    return bytes(raw)


ROOT = rsdp(BASE + 36)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (_fixed(ROOT, 0, b"X"), "signature"),
        (_fixed(ROOT, 15, b"\0"), "revision 0"),
        (_fixed(ROOT, 20, b"\x14"), "length 0x14, not 0x24"),
        (ROOT[:9] + b"Z" + ROOT[10:], "byte sum of the first 20"),
        (ROOT[:33] + b"Z" + ROOT[34:], "byte sum of the first 36"),
    ],
)
def test_a_bad_root_pointer_is_refused(root, message):
    """Signature, revision, length and both sums."""
    with pytest.raises(TableError, match=message) as caught:
        parse_tables(Memory(root, xsdt(())).read, BASE)
    assert (caught.value.table, caught.value.address) == ("RSDP", BASE)


def test_an_empty_index_is_fine():
    """Nothing listed, nothing found."""
    parsed = parse_tables(Memory(ROOT, xsdt(())).read, BASE)
    assert [table.signature for table in parsed.tables] == ["XSDT"]
    with pytest.raises(KeyError, match="FACP"):
        parsed.fadt()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (sdt(b"RSDT", 1, b""), "XSDT at 0x1024: signature 'RSDT'"),
        (sdt(b"XSDT", 1, b"abc"), "0 entries and 3 bytes"),
        (xsdt([0] * (MAX_TABLES + 1)), "257 entries"),
        (b"XSDT" + (MAX_TABLE_SIZE + 1).to_bytes(4, "little") + bytes(28), "length 0x1000001"),
        (b"XSDT\x23" + bytes(31), "length 0x23"),
        (xsdt(())[:-1] + b"Z", "byte sum"),
        (xsdt([BASE + 0x8000]), "length 0x0"),
    ],
)
def test_a_bad_index_is_refused(index, message):
    """Signature, size, count, length and sum of the XSDT, and an entry that leads nowhere."""
    with pytest.raises(TableError, match=message):
        parse_tables(Memory(ROOT, index).read, BASE)


def test_a_table_that_changes_under_the_reader_is_refused():
    """The header is read twice; a guest that swaps it in between gains nothing."""
    memory = Memory(ROOT, xsdt(()))
    reads = iter(range(10))

    def read(address, size):
        if next(reads) == 2:
            memory.data[36 + 16] ^= 1
        return memory.read(address, size)

    with pytest.raises(TableError, match="header changed"):
        parse_tables(read, BASE)


@given(st.binary(max_size=400))
def test_random_memory_raises_the_documented_error(noise):
    """Whatever follows a sound RSDP, only TableError comes out."""
    with contextlib.suppress(TableError):
        assert parse_tables(Memory(ROOT, noise).read, BASE).tables[0].signature == "XSDT"
