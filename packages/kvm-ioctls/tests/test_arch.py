"""Methods of another architecture, on any host."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvm_ioctls import (
    Arm64VcpuInit,
    ArmIrqType,
    Kvm,
    RiscvRegType,
    UnsupportedError,
    VcpuFd,
    VmFd,
    WrongArchitectureError,
    arm64_core_reg,
    arm64_sys_reg,
    arm_irq,
    reg_size,
    riscv64_reg,
)
from kvm_ioctls._arch import HOST_ARCH, only_on
from kvm_ioctls.testing import TinyGuest


class Sample:
    """Two methods, one private."""

    def do(self, value):
        """Return it."""
        return value

    def _hidden(self):
        return 1


def test_guard_leaves_its_own_host_alone():
    """On the right host the class is the same object with the same functions."""
    before = dict(vars(Sample))

    assert only_on("riscv64", host="riscv64")(Sample) is Sample
    assert dict(vars(Sample)) == before


def test_guard_refuses_elsewhere():
    """Public methods refuse with names and architectures, private ones stay."""
    guarded = only_on("aarch64", host="x86_64")(type("Copy", (), dict(vars(Sample))))

    with pytest.raises(
        WrongArchitectureError, match=r"^do\(\) exists on aarch64 only; this host is x86_64$"
    ) as err:
        guarded().do(1)

    assert (err.value.method, err.value.arch, err.value.host) == ("do", "aarch64", "x86_64")
    assert isinstance(err.value, UnsupportedError)
    assert guarded()._hidden() == 1


@pytest.mark.parametrize(
    ("kind", "name", "arch"),
    [
        (VcpuFd, "arm_vcpu_init", "aarch64"),
        (VcpuFd, "set_riscv_guest_debug", "riscv64"),
        (VcpuFd, "get_xsave", "x86_64"),
        (VcpuFd, "get_nested_state", "x86_64"),
        (VmFd, "arm_preferred_target", "aarch64"),
        (VmFd, "create_pit2", "x86_64"),
        (VmFd, "set_msr_filter", "x86_64"),
        (Kvm, "get_supported_cpuid", "x86_64"),
    ],
)
def test_each_architecture_guards_its_methods(kind, name, arch):
    """A method of one architecture is guarded everywhere else, and only there."""
    guarded = hasattr(getattr(kind, name), "__wrapped__")

    assert guarded == (arch != HOST_ARCH)


@pytest.mark.kvm
def test_wrong_architecture_is_refused_by_a_real_vcpu():
    """Nothing reaches the kernel; the vCPU goes on."""
    with TinyGuest(b"\xf4") as guest:
        with pytest.raises(WrongArchitectureError, match=r"^arm_vcpu_init\(\) exists on aarch64 only"):
            guest.vcpu.arm_vcpu_init(Arm64VcpuInit())

        assert type(guest.vcpu.run()).__name__ == "Hlt"


def test_register_ids_are_the_documentations():
    """Ids that the kernel's documentation or the headers write out."""
    assert arm64_core_reg(0) == 0x6030_0000_0010_0000  # X0
    assert arm64_core_reg(256) == 0x6030_0000_0010_0040  # PC
    assert arm64_sys_reg(3, 0, 0, 0, 5) == 0x6030_0000_0013_C005  # MPIDR_EL1
    assert riscv64_reg(RiscvRegType.CORE, 0) == 0x8030_0000_0200_0000  # PC
    assert riscv64_reg(RiscvRegType.ISA_EXT, 0) == 0x8030_0000_0700_0000


@given(st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_sizes_come_from_the_id(log2, rest):
    """2^n bytes by bits 52 to 55."""
    assert reg_size(0x6000_0000_0000_0000 | log2 << 52 | rest) == 1 << log2


@pytest.mark.parametrize(
    "make",
    [
        lambda: reg_size(9 << 52),
        lambda: arm64_sys_reg(4, 0, 0, 0, 0),
        lambda: arm64_core_reg(3),
        lambda: riscv64_reg(2, 1 << 24),
        lambda: arm_irq(ArmIrqType.SPI, 1 << 16),
    ],
)
def test_impossible_ids_are_refused(make):
    """Each says which number it was."""
    with pytest.raises(ValueError, match=r"\d"):
        make()


@given(st.sampled_from(ArmIrqType), st.integers(0, 0xFFFF), st.integers(0, 0xFFF))
def test_arm_interrupt_numbers_are_fields(kind, number, vcpu):
    """The number is a struct of bit fields: vcpu2 4, type 4, vcpu 8, number 16."""
    word = arm_irq(kind, number, vcpu)

    low, index, top = struct.unpack("<HBB", word.to_bytes(4, "little"))
    assert (low, index | (top >> 4) << 8, top & 15) == (number, vcpu, kind)
