"""Values behave as if attrs had generated their methods."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_device import Value


@attrs.frozen
class Generated:
    """What attrs makes of it, the oracle."""

    first: int
    second: object = attrs.field(default=0, hash=False)
    third: object = attrs.field(default=0, eq=False)
    fourth: object = attrs.field(default=0, repr=False)


@attrs.frozen(eq=False, repr=False)
class Shared(Value):
    """The same fields with the shared methods."""

    first: int
    second: object = attrs.field(default=0, hash=False)
    third: object = attrs.field(default=0, eq=False)
    fourth: object = attrs.field(default=0, repr=False)


@attrs.frozen(eq=False, repr=False)
class Other(Value):
    """Another class with a field of the same name."""

    first: int


@attrs.frozen(order=True, repr=False)
class Ordered(Value):
    """One that can be sorted."""

    first: int


FIELDS = st.tuples(*[st.integers(0, 1)] * 4)


@given(FIELDS, FIELDS)
def test_as_attrs_has_it(one, another):
    """Equality, hashes and text, field by field."""
    assert (Shared(*one) == Shared(*another)) == (Generated(*one) == Generated(*another))
    assert (Shared(*one) != Shared(*another)) == (Generated(*one) != Generated(*another))
    same = hash(Shared(*one)) == hash(Shared(*another))
    assert same == (hash(Generated(*one)) == hash(Generated(*another)))
    assert repr(Shared(*one)) == repr(Generated(*one)).replace("Generated", "Shared")


def test_another_class_is_not_equal():
    """Whatever its fields."""
    assert Other(1) != Shared(1)
    assert Shared(1) != 1
    assert len({Other(1), Shared(1), Shared(1)}) == 2


def test_what_cannot_be_hashed_refuses():
    """As for a tuple of the fields; a field that is left out does not matter."""
    assert isinstance(hash(Shared(1, second=[])), int)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Shared(1, fourth=[]))


def test_frozen_slotted_and_sorted():
    """The class stays what attrs makes of it."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Shared(1).first = 2
    assert not hasattr(Shared(1), "__dict__")
    assert repr(max(Ordered(1), Ordered(2))) == "Ordered(first=2)"
    assert attrs.evolve(Shared(1), first=2) == Shared(2)
