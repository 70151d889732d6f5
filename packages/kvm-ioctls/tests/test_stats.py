"""Binary statistics: the reader against hand-made descriptors, and the kernel's own."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import Hlt, KvmAbiError, Stat, StatType, StatUnit
from kvm_ioctls._stats import parse_stats_descriptors
from kvm_ioctls.testing import TinyGuest

STATS = st.lists(
    st.builds(
        Stat,
        st.text("abcdefgh_", min_size=1, max_size=20),
        st.sampled_from(StatType).map(int),
        st.sampled_from(StatUnit).map(int),
        st.sampled_from([2, 10]),
        st.integers(-9, 20),
        st.integers(1, 64),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    ),
    max_size=10,
)


@given(STATS, st.integers(21, 48))
def test_descriptors_are_the_kernels_struct(stats, name_size):
    """What struct packs by the documentation comes back."""
    data = b""
    for s in stats:
        flags = s.type | s.unit << 4 | (s.base == 2) << 8
        data += struct.pack("<IhHII", flags, s.exponent, s.size, s.offset, s.bucket_size)
        data += s.name.encode().ljust(name_size, b"\0")

    assert parse_stats_descriptors(data, name_size, len(stats)) == tuple(stats)


def test_cut_descriptors_are_refused():
    """Fewer bytes than announced are no statistics."""
    with pytest.raises(KvmAbiError, match=r"^2 statistics of 48 bytes do not fit the 95 bytes read$"):
        parse_stats_descriptors(bytes(95), 32, 2)


@pytest.mark.kvm
def test_kernel_counts_the_exits_of_a_vcpu():
    """A vCPU's counters are named, typed and grow; VM and vCPU name themselves."""
    with TinyGuest(bytes.fromhex("f4 f4")) as guest:
        with guest.vm.get_stats_fd() as vm, guest.vcpu.get_stats_fd() as vcpu:
            before = vcpu.read()
            assert [guest.vcpu.run(), guest.vcpu.run()] == [Hlt(), Hlt()]
            after = vcpu.read()

            assert after["exits"][0] > before["exits"][0]
            assert set(after) == {stat.name for stat in vcpu.descriptors}
            assert all(len(after[s.name]) == s.size for s in vcpu.descriptors)
            assert (vm.id[:4], vcpu.id[:4]) == ("kvm-", "kvm-")
            assert {stat.type for stat in vcpu.descriptors} >= {StatType.CUMULATIVE, StatType.LOG_HISTOGRAM}
