"""Codecs between the kernel's structs and Python objects."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import Fpu, Regs, Segment, Sregs, VcpuEvents
from kvm_ioctls._ffi import layout
from kvm_ioctls._wire import Wire


def _classes():
    # attrs makes a class with slots anew; the first one stays a subclass until the collector comes.
    made = (c for c in Wire.__subclasses__() if c.ABI and "__attrs_attrs__" in vars(c))
    return sorted(made, key=lambda c: c.__name__)


@pytest.mark.parametrize("cls", _classes(), ids=lambda c: c.__name__)
def test_offsets_are_the_c_compilers(cls):
    """Every field of every class lies where csrc/kvm_abi.h puts it, and no named C field is missing."""
    table = {field: place for (strct, field), place in layout().items() if strct == cls.ABI}
    size = table.pop("")[1]

    assert cls.wire_size() == size
    assert cls.wire_offsets() == table


@pytest.mark.parametrize("cls", _classes(), ids=lambda c: c.__name__)
@given(data=st.data())
def test_bytes_survive_unpack_and_pack(cls, data):
    """Any kernel bytes come back the same, but for padding, which comes back as zero."""
    size = cls.wire_size()
    raw = data.draw(st.binary(min_size=size, max_size=size))

    once = cls.unpack(raw).pack()

    assert cls.unpack(once) == cls.unpack(raw)
    for start, length in cls.wire_offsets().values():
        if not _nested_at(cls, start):
            assert once[start : start + length] == raw[start : start + length]


def _nested_at(cls, start):
    return any(
        field.metadata.get("kind") and cls.wire_offsets()[field.name][0] == start
        for field in attrs.fields(cls)
    )


def test_default_regs_have_the_fixed_flag():
    """A fresh Regs can be loaded: bit 1 of rflags is set and all else is zero."""
    assert Regs().pack() == bytes(136) + b"\x02" + bytes(7)


@pytest.mark.parametrize("bad", [-1, 1 << 64])
def test_out_of_range_register_is_named(bad):
    """A number that does not fit is refused with the object shown."""
    with pytest.raises(ValueError, match=f"^Regs: .*rip={bad}"):
        Regs(rip=bad).pack()


def test_array_of_wrong_length_is_refused():
    """Arrays have a fixed length."""
    with pytest.raises(ValueError, match=r"^interrupt_bitmap has 1 numbers, the ABI has 4$"):
        Sregs(interrupt_bitmap=(1,)).pack()


def test_short_buffer_is_refused():
    """Unpacking never reads past the data."""
    with pytest.raises(ValueError, match=r"^Regs needs 144 bytes at 8, there are 136$"):
        Regs.unpack(bytes(144), 8)


def test_nested_segments_are_not_shared():
    """Two objects never share a mutable part by default."""
    one, two = Sregs(), Sregs()
    one.cs.base = 5

    assert two.cs == Segment()


def test_events_use_the_kernels_names():
    """Anonymous inner structs are flattened, and the table keeps the kernel's names."""
    assert VcpuEvents.wire_offsets()["nmi.masked"] == (14, 1)


@pytest.mark.parametrize("size", [127, 129])
def test_bytes_of_wrong_length_are_refused(size):
    """They are neither cut off nor filled up."""
    with pytest.raises(ValueError, match=rf"^fpr has {size} bytes, the ABI has 128$"):
        Fpu(fpr=bytes(size)).pack()


@pytest.mark.parametrize("offset", [-1, -200])
def test_negative_offset_is_refused(offset):
    """Unpacking never reads before the data, nor from its end."""
    with pytest.raises(ValueError, match=rf"^Regs needs 144 bytes at {offset}, "):
        Regs.unpack(bytes(200), offset)
