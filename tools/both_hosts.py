"""Marks for tests whose body runs on hosts of both architectures: an instance for each, where it can run."""

import pytest
from vmm_testhost.pytest_plugin import LONG

AARCH64 = pytest.param("aarch64", marks=pytest.mark.arm64)


def both_hosts(*, aarch64: bool = True, tiny: bool = False) -> pytest.MarkDecorator:
    """Return the mark; without `aarch64` that instance exists in long runs only; any KVM runs `tiny` guests.

    The test, or a fixture it uses, takes `arch`.
    """
    x86_64 = pytest.param("x86_64", marks=pytest.mark.kvm if tiny else pytest.mark.kvm_full)
    return pytest.mark.parametrize("arch", [x86_64, AARCH64] if aarch64 or LONG else [x86_64])
