"""AML data and namespace encoding."""

import pytest
from acpi_tables import EncodingError, aml
from hypothesis import example, given
from hypothesis import strategies as st

BOUNDARIES = [0, 1, 0x3F, 0x40, 0xFFF, 0x1000, 0xF_FFFF, 0x10_0000, 0xFFF_FFFF]


@pytest.mark.parametrize("value", BOUNDARIES)
def test_pkg_length_round_trips_at_each_boundary(value):
    """Decoding gives the encoded value and uses every byte."""
    code = aml.encode_pkg_length(value)
    assert aml.decode_pkg_length(code) == (value, len(code))


@given(st.integers(0, 0xFFF_FFFF), st.binary(max_size=3))
def test_pkg_length_round_trips_inside_other_bytes(value, before):
    """The decoder finds the value at any offset and is not misled by what follows."""
    code = aml.encode_pkg_length(value)
    assert aml.decode_pkg_length(before + code + b"\xff\xff", len(before)) == (value, len(code))


@pytest.mark.parametrize(
    ("value", "width"), [(0x3F, 1), (0x40, 2), (0xFFF, 2), (0x1000, 3), (0xF_FFFF, 3), (0x10_0000, 4)]
)
def test_pkg_length_takes_as_few_bytes_as_possible(value, width):
    """Each width starts where the narrower one ends."""
    assert len(aml.encode_pkg_length(value)) == width


@pytest.mark.parametrize("value", [-1, 0x1000_0000])
def test_pkg_length_out_of_range_is_refused(value):
    """28 bits are all there is."""
    with pytest.raises(EncodingError, match=r"PkgLength cannot be .*: 0 to 0xfffffff") as caught:
        aml.encode_pkg_length(value)
    assert caught.value.value == value


@pytest.mark.parametrize("code", [b"", b"\x40", b"\x80\x01", b"\xc0\x01\x01", b"\x50\x01"])
def test_bad_pkg_length_bytes_are_refused(code):
    """Cut short, or with reserved bits set."""
    with pytest.raises(EncodingError, match="PkgLength"):
        aml.decode_pkg_length(code)


@pytest.mark.parametrize("size", [0, 57, 58, 59, 60, 61, 4085, 4086, 4087, 4088, 4089, 1 << 20])
def test_a_package_counts_its_own_length_bytes(size):
    """The PkgLength of a device covers itself and everything up to the end, around every change of width."""
    code = aml.device("ABCD", aml.Aml(b"\xa3" * size)).code
    length, width = aml.decode_pkg_length(code, 2)
    assert length == len(code) - 2
    assert length == width + 4 + size


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a02"),
        (0xFF, "0aff"),
        (0x100, "0b0001"),
        (0xFFFF, "0bffff"),
        (0x1_0000, "0c00000100"),
        (0xFFFF_FFFF, "0cffffffff"),
        (1 << 32, "0e0000000001000000"),
        (aml.ONES - 1, "0efeffffffffffffff"),
        (aml.ONES, "ff"),
    ],
)
def test_integers_take_their_shortest_form(value, code):
    """Zero, One and Ones are opcodes; the rest takes the narrowest constant."""
    assert aml.encode(value).hex() == code


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_integers_outside_64_bits_are_refused(value):
    """Nothing is clipped."""
    with pytest.raises(EncodingError, match="AML integer"):
        aml.encode(value)


@pytest.mark.parametrize("text", ["é", "a\0b"])
def test_strings_that_aml_cannot_hold_are_refused(text):
    """Only ASCII without NUL."""
    with pytest.raises(EncodingError, match="AML string"):
        aml.encode(text)


def test_a_foreign_type_is_refused():
    """A float is no AML term."""
    with pytest.raises(EncodingError, match="AML term cannot be 1"):
        aml.encode(1.5)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("_S5", b"_S5_"),
        ("\\", b"\\\0"),
        ("^^A", b"^^A___"),
        ("\\_SB.PCI0", b"\\\x2e_SB_PCI0"),
        ("_SB.PCI0.S01", b"\x2f\x03_SB_PCI0S01_"),
    ],
)
def test_paths(text, code):
    """Root, parent, one, two and many segments."""
    assert aml.path(text).code == code


@pytest.mark.parametrize(
    "text", ["", "ABCDE", "1AB", "ab", "A..B", "A.", "A B", "\\^A", ".".join(["A"] * 256)]
)
def test_bad_paths_are_refused(text):
    """Empty, long, lower-case and digit-first segments, stray prefixes, too many segments."""
    with pytest.raises(EncodingError, match="AML name") as caught:
        aml.path(text)
    assert caught.value.value == text


def test_a_long_package_becomes_a_var_package():
    """255 elements fit the count byte; 256 do not."""
    assert aml.package(*[0] * 255).code[0] == 0x12
    long = aml.package(*[0] * 256).code
    assert long[0] == 0x13
    assert long[3:6] == b"\x0b\x00\x01"


def test_eisa_id_is_packed():
    """PNP0501 is 0x0105D041, the value every UART of every machine has."""
    assert aml.eisa_id("PNP0501").code == b"\x0c\x41\xd0\x05\x01"


@pytest.mark.parametrize("text", ["PNP050", "PNP05011", "pnp0501", "PNP050G", "LNRO0005", "ÀBC0501"])
def test_bad_eisa_ids_are_refused(text):
    """Only three capital letters and four hexadecimal digits."""
    with pytest.raises(EncodingError, match="EISA id"):
        aml.eisa_id(text)


def test_uuid_has_the_mixed_order_of_acpi():
    """The first three groups are little-endian."""
    code = aml.uuid("00112233-4455-6677-8899-aabbccddeeff").code
    assert code.endswith(bytes.fromhex("33221100554477668899aabbccddeeff"))
    with pytest.raises(EncodingError, match="UUID"):
        aml.uuid("00112233")


def test_a_buffer_smaller_than_its_data_is_refused():
    """The run-time length must hold the initial bytes."""
    assert aml.buffer(b"ab", 5).code == b"\x11\x05\x0a\x05ab"
    with pytest.raises(EncodingError, match="buffer size cannot be 0x1: at least 0x2"):
        aml.buffer(b"ab", 1)


ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=127))
TERMS = st.recursive(
    st.integers(0, aml.ONES)
    | st.text(st.characters(min_codepoint=1, max_codepoint=127))
    | st.binary(max_size=80),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=20,
)


def _plain(node):
    if node.kind == "Package":
        return [_plain(child) for child in node.children]
    return node.value


@given(TERMS)
@example([0] * 256)
@example(b"x" * 61)
def test_what_is_encoded_parses_back(term):
    """Integers, strings, buffers and packages survive a round trip through the reader."""
    (node,) = aml.parse(aml.name("DATA", term).code)
    assert (node.kind, node.name) == ("Name", "DATA")
    assert _plain(node.children[0]) == term
