"""The layout of a GIC, on any host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vm_hypervisor.arch.aarch64 import DISTRIBUTOR_SIZE, ITS_SIZE, REDISTRIBUTOR_SIZE, Gic
from vm_hypervisor.kvm_arm64 import _check_layout

FRAMES = st.integers(0, 40).map(lambda frame: 0x800_0000 + 0x1_0000 * frame)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lines": 33}, "lines 33 is not a multiple of 32 within 32 … 960"),
        ({"lines": 992}, "lines 992"),
        ({"lines": 0}, "lines 0"),
        ({"distributor": 0x800_8000}, "distributor 0x8008000 is not aligned to 0x10000"),
        ({"redistributors": 1 << 40}, "redistributors 0x10000000000"),
        ({"its": -0x1_0000}, "its -0x10000"),
    ],
)
def test_a_gic_that_cannot_be_is_refused(changes, message):
    """A number out of range is named with its limit."""
    with pytest.raises(ValueError, match=message):
        Gic(**changes)


@given(FRAMES, FRAMES, st.none() | FRAMES, st.integers(1, 8))
def test_overlap_is_found(distributor, redistributors, its, vcpus):
    """The check refuses exactly the layouts in which two parts own one 64 KiB frame."""
    gic = Gic(distributor=distributor, redistributors=redistributors, its=its)
    owned = [*range(distributor, distributor + DISTRIBUTOR_SIZE, 0x1_0000)]
    owned += range(redistributors, redistributors + vcpus * REDISTRIBUTOR_SIZE, 0x1_0000)
    owned += [] if its is None else range(its, its + ITS_SIZE, 0x1_0000)
    if len(set(owned)) == len(owned):
        _check_layout(gic, vcpus)
    else:
        with pytest.raises(ValueError, match="reaches into"):
            _check_layout(gic, vcpus)
