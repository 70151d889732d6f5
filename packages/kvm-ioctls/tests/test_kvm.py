"""Opening the device, and what it says about the host."""

import contextlib
import grp
import os
import tempfile
from pathlib import Path

import pytest
from kvm_ioctls import Cap, ClosedError, CpuidEntry, Kvm, KvmOSError, KvmUnavailableError, MsrError


@pytest.fixture
def kvm():
    """Yield an open /dev/kvm."""
    with Kvm() as kvm:
        yield kvm


@contextlib.contextmanager
def somebody_else():
    """Root is refused nothing: be nobody meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def test_missing_device_names_the_cure(tmp_path):
    """A missing node says to load the module."""
    with pytest.raises(
        KvmUnavailableError, match=r"open on .*: No such file.*\(ENOENT\); .*modprobe kvm_intel"
    ):
        Kvm(tmp_path / "kvm")


@pytest.mark.parametrize(
    ("mode", "group", "cure"),
    [
        (0o660, "disk", r"add your user to group disk \(`usermod -aG disk USER`\) and log in again$"),
        (0o660, 4_000_000, r"add your user to group 4000000 "),
        (
            0o600,
            "disk",
            r"all but its owner \(user 0, group disk, mode 0600\); as root: `chgrp kvm ",
        ),
        (
            0o660,
            "root",
            r"all but its owner \(user 0, group root, mode 0660\); as root: `chgrp kvm ",
        ),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away and be somebody else")
def test_closed_device_names_the_cure(mode, group, cure):
    """A node without permission says what opens it, by its owner, group and mode."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        node = Path(folder, "kvm")
        node.touch()
        os.chown(node, 0, grp.getgrnam(group).gr_gid if isinstance(group, str) else group)
        node.chmod(mode)
        with somebody_else(), pytest.raises(KvmUnavailableError, match=cure):
            Kvm(node)


def test_device_behind_a_closed_folder(tmp_path):
    """Where the node itself cannot be looked at, it is the folder."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    with somebody_else(), pytest.raises(KvmUnavailableError, match="a folder on the way is closed to you"):
        Kvm(folder / "kvm")


def test_other_device_is_not_kvm():
    """A file that is no KVM is refused and its descriptor closed."""
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(
        KvmUnavailableError, match=r"KVM_GET_API_VERSION on /dev/null: .*this is not a KVM device"
    ):
        Kvm("/dev/null")

    assert len(os.listdir("/proc/self/fd")) == before


def test_unavailable_is_an_os_error(tmp_path):
    """Code that knows only OSError still works, errno included."""
    with pytest.raises(OSError, match="No such file") as err:
        Kvm(tmp_path / "kvm")

    assert err.value.errno == 2


@pytest.mark.kvm
def test_api_version(kvm):
    """Every KVM speaks version 12."""
    assert kvm.get_api_version() == 12


@pytest.mark.kvm
def test_descriptor_is_not_inherited(kvm):
    """The descriptor is close-on-exec."""
    assert not os.get_inheritable(kvm.fileno())


@pytest.mark.kvm
def test_extensions_are_numbers(kvm):
    """Capabilities give their number, unknown ones 0, also as a plain int."""
    assert kvm.check_extension(Cap.USER_MEMORY) == 1
    assert kvm.check_extension(Cap.NR_MEMSLOTS) >= 32
    assert kvm.check_extension(60000) == 0


@pytest.mark.kvm
def test_limits_are_ordered(kvm):
    """Recommended vCPUs <= maximum <= id bound; the run page holds a kvm_run."""
    assert 1 <= kvm.get_nr_vcpus() <= kvm.get_max_vcpus() <= kvm.get_max_vcpu_id()
    assert kvm.get_nr_memslots() >= 32
    assert kvm.get_vcpu_mmap_size() >= 2 * 4096


@pytest.mark.kvm
def test_supported_cpuid_has_the_basic_leaves(kvm):
    """Leaves 0 and 1 exist, and leaf 0 gives the highest basic one."""
    leaves = {entry.function: entry for entry in kvm.get_supported_cpuid()}

    assert leaves[0].eax >= 1
    assert leaves[1].eax != 0


@pytest.mark.kvm
def test_emulated_cpuid_is_a_list(kvm):
    """The emulated leaves are a possibly empty list of entries."""
    assert all(isinstance(entry, CpuidEntry) for entry in kvm.get_emulated_cpuid())


@pytest.mark.kvm
def test_msr_lists_are_distinct_numbers(kvm):
    """The state list holds the TSC and SYSENTER MSRs, without duplicates."""
    indices = kvm.get_msr_index_list()

    assert {0x10, 0x174} <= set(indices)
    assert len(set(indices)) == len(indices)


@pytest.mark.kvm
def test_feature_msrs_can_be_read(kvm):
    """Every feature MSR of the list has a value."""
    indices = kvm.get_msr_feature_index_list()

    assert [entry.index for entry in kvm.get_msrs(indices)] == indices


@pytest.mark.kvm
def test_unknown_feature_msr_is_named(kvm):
    """A refused MSR is named with its place in the list."""
    good = kvm.get_msr_feature_index_list()[:1]

    with pytest.raises(MsrError, match=rf"MSR 0x12345678 \(entry {len(good)} of {len(good) + 1}\)") as err:
        kvm.get_msrs([*good, 0x12345678])

    assert (err.value.index, err.value.completed) == (0x12345678, len(good))


@pytest.mark.kvm
def test_impossible_vm_type_is_refused(kvm):
    """The kernel's refusal carries the ioctl's name."""
    with pytest.raises(KvmOSError, match=r"^KVM_CREATE_VM on /dev/kvm: "):
        kvm.create_vm(0x7FFF)


@pytest.mark.kvm
def test_closed_kvm_refuses_calls(kvm):
    """After close every call says so; closing again is fine."""
    kvm.close()
    kvm.close()

    assert kvm.closed
    with pytest.raises(ClosedError, match=r"^/dev/kvm is closed$"):
        kvm.get_api_version()


@pytest.mark.kvm
def test_every_capability_answers(kvm):
    """Each name is a number that the kernel takes; VM and system agree that memory is there."""
    with kvm.create_vm() as vm:
        answers = {cap: (kvm.check_extension(cap), vm.check_extension(cap)) for cap in Cap}

    assert answers[Cap.USER_MEMORY] == (1, 1)
    assert all(number >= 0 for pair in answers.values() for number in pair)


@pytest.mark.kvm_full
def test_a_complete_kvm_offers_what_a_vmm_needs(kvm):
    """Encryption aside, a complete KVM reports what this package has methods for."""
    with kvm.create_vm() as vm:
        answers = {cap: max(kvm.check_extension(cap), vm.check_extension(cap)) for cap in Cap}

    wanted = (
        Cap.XEN_HVM,
        Cap.HYPERV_EVENTFD,
        Cap.NESTED_STATE,
        Cap.SREGS2,
        Cap.BINARY_STATS_FD,
        Cap.DIRTY_LOG_RING,
    )
    assert [cap.name for cap in wanted if not answers[cap]] == []
