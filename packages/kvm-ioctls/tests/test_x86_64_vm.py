"""VM ioctls of x86-64: irqchip, PIT, clock, reserved addresses."""

import pytest
from kvm_ioctls import IrqchipId, Kvm, KvmOSError

pytestmark = pytest.mark.kvm


@pytest.fixture
def vm():
    """Yield an empty VM."""
    with Kvm() as kvm, kvm.create_vm() as vm:
        yield vm


def test_reserved_addresses_are_taken(vm):
    """TSS and identity map below 4 GiB are accepted before any vCPU."""
    vm.set_identity_map_address(0xFFFB_C000)
    vm.set_tss_address(0xFFFB_D000)
    with vm.create_vcpu(0) as vcpu:
        assert vcpu.id == 0


@pytest.mark.parametrize("address", [0x1001, 0x1_0000_0000, -0x1000])
def test_impossible_addresses_are_refused(vm, address):
    """Unaligned or beyond 4 GiB is refused before the kernel sees it."""
    with pytest.raises(ValueError, match=f"^address={address:#x} is not"):
        vm.set_tss_address(address)
    with pytest.raises(ValueError, match=f"^address={address:#x} is not"):
        vm.set_identity_map_address(address)


@pytest.mark.parametrize("chip", IrqchipId)
def test_irqchip_state_survives_a_round_trip(vm, chip):
    """What was read can be written and reads the same."""
    vm.create_irq_chip()
    state = vm.get_irqchip(chip)
    vm.set_irqchip(chip, state)

    assert (len(state), vm.get_irqchip(chip)) == (512, state)


def test_second_irqchip_is_refused(vm):
    """One set of controllers per VM."""
    vm.create_irq_chip()
    with pytest.raises(KvmOSError, match=r"KVM_CREATE_IRQCHIP on .*EEXIST"):
        vm.create_irq_chip()


def test_pit_state_survives_a_round_trip(vm):
    """The timer can be saved and restored."""
    vm.create_irq_chip()
    vm.create_pit2(speaker_dummy=True)
    state = vm.get_pit2()
    vm.set_pit2(state)

    assert len(state) == 112


def test_wrong_state_sizes_are_refused(vm):
    """Blobs must have the kernel's size."""
    with pytest.raises(ValueError, match=r"^irqchip state has 511 bytes, not 512$"):
        vm.set_irqchip(0, bytes(511))
    with pytest.raises(ValueError, match=r"^PIT state has 1 bytes, not 112$"):
        vm.set_pit2(b"\0")


def test_pit_needs_the_irqchip(vm):
    """Without controllers there is no timer."""
    with pytest.raises(KvmOSError, match=r"^KVM_CREATE_PIT2 on "):
        vm.create_pit2()


def test_old_forms_are_reached_by_their_numbers(vm):
    """`raw_ioctl` does KVM_CREATE_PIT, _GET_PIT, _SET_PIT and _SET_CPUID, which newer calls replace."""
    vm.create_irq_chip()
    vm.raw_ioctl(0xAE64)
    state = bytearray(72)
    vm.raw_ioctl(0xC048_AE65, state)
    vm.raw_ioctl(0x8048_AE66, bytearray(state))
    with vm.create_vcpu(0) as vcpu:
        vcpu.raw_ioctl(0x4008_AE8A, bytearray(8))
        assert vcpu.get_cpuid2() == []

    again = vm.get_pit2()
    assert [again[at : at + 4] for at in (0, 24, 48)] == [state[at : at + 4] for at in (0, 24, 48)]  # counts


def test_clock_goes_on_from_where_it_was_set(vm):
    """A clock that was set counts on from there."""
    clock = vm.get_clock()
    clock.clock, clock.flags = 1 << 40, 0
    vm.set_clock(clock)

    assert 1 << 40 <= vm.get_clock().clock < (1 << 40) + 10_000_000_000
