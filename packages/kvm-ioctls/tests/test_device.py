"""In-kernel devices, with the VFIO bridge as the one that needs no hardware."""

import pytest
from kvm_ioctls import Kvm, KvmOSError

VFIO = 4

pytestmark = pytest.mark.kvm


@pytest.fixture
def vm():
    """Yield an empty VM."""
    with Kvm() as kvm, kvm.create_vm() as vm:
        yield vm


def test_unknown_type_is_refused(vm):
    """A type no kernel has is ENODEV, and asking first gives False."""
    assert not vm.has_device(9999)
    with pytest.raises(KvmOSError, match=r"^KVM_CREATE_DEVICE on VM fd \d+: No such device \(ENODEV\)$"):
        vm.create_device(9999)


@pytest.mark.kvm_full
def test_vfio_bridge_has_its_group_attributes(vm):
    """The bridge knows group 1 (add, delete) and nothing in group 77."""
    assert vm.has_device(VFIO)
    with vm.create_device(VFIO) as device:
        assert device.has_device_attr(1, 1)
        assert not device.has_device_attr(77, 1)
        with pytest.raises(KvmOSError, match=r"^KVM_SET_DEVICE_ATTR on KVM device type 4"):
            device.set_device_attr(1, 1, b"\xff\xff\xff\xff")
        with pytest.raises(KvmOSError, match=r"^KVM_GET_DEVICE_ATTR on KVM device type 4"):
            device.get_device_attr(1, 1, 4)
