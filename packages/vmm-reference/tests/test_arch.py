"""What the architectures' modules have in common, and what AArch64's refuses, on any host."""

import attrs
import pytest
from linux_loader import ForeignArchitectureError, KernelImage, LoaderError
from linux_loader.testing import build_bzimage, build_image
from vmm_memory.arch.aarch64 import RAM_START
from vmm_reference import (
    BootProtocol,
    ConfigError,
    HostError,
    Irqchip,
    MemoryConfig,
    PlatformConfig,
    Tables,
    VmConfig,
)
from vmm_reference._arch import CONSOLE, HOST, architecture

MIB = 1 << 20


@pytest.fixture
def config(tmp_path):
    """A small machine; its kernel is an Image of a few bytes."""
    (tmp_path / "Image").write_bytes(build_image("aarch64"))
    return VmConfig(tmp_path / "Image", memory=MemoryConfig(16 * MIB))


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_modules_have_the_same_names(name):
    """Each can be imported on any host, and shows what the others show."""
    module = architecture(name)
    assert set(module.__all__) == {
        "Board",
        "check_kernel",
        "check_options",
        "ram_ranges",
    }
    assert sum(size for _, size in module.ram_ranges(64 * MIB)) == 64 * MIB


def test_another_host():
    """A machine that has no module says so before anything is made."""
    with pytest.raises(HostError, match=r"^this machine is riscv64; guests run on x86_64 and aarch64, "):
        architecture("riscv64")


def test_the_console_is_this_hosts(config):
    """Linux has another name for the first serial port on each."""
    assert {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}[HOST] == CONSOLE
    assert config.cmdline == f"console={CONSOLE}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"platform": PlatformConfig(Irqchip.SPLIT)},
            "--platform irqchip: split: an AArch64 machine has its GIC in KVM; leave it out",
        ),
        (
            {"boot_protocol": BootProtocol.PVH},
            "--boot-protocol: pvh: an AArch64 kernel has one entry; leave it out (auto)",
        ),
        (
            {"boot_protocol": BootProtocol.LINUX64},
            "--boot-protocol: linux64: an AArch64 kernel has one entry; leave it out (auto)",
        ),
    ],
)
def test_options_that_aarch64_does_not_have(config, change, said):
    """What is x86's alone is refused with the cure; x86 itself refuses none of it."""
    machine = attrs.evolve(config, **change)
    architecture("x86_64").check_options(machine)
    with pytest.raises(ConfigError) as caught:
        architecture("aarch64").check_options(machine)
    assert str(caught.value) == said
    architecture("aarch64").check_options(config)


def test_a_device_tree_is_not_for_x86(config):
    """Its kernels take ACPI."""
    machine = attrs.evolve(config, platform=PlatformConfig(tables=Tables.FDT))
    with pytest.raises(ConfigError, match=r"^--platform tables: fdt: kernels of x86-64 take ACPI; leave"):
        architecture("x86_64").check_options(machine)
    architecture("aarch64").check_options(machine)


def test_kernels_are_fitted_before_anything_is_made(config, tmp_path):
    """An Image passes; an x86 kernel, a big one, and an initrd that does not fit do not."""
    check = architecture("aarch64").check_kernel

    def fails(data: bytes, initrd: int = 0) -> LoaderError:
        (tmp_path / "kernel").write_bytes(data)
        (tmp_path / "initrd").write_bytes(bytes(initrd))
        files = attrs.evolve(config, initramfs=tmp_path / "initrd" if initrd else None)
        with KernelImage.open(tmp_path / "kernel") as image, pytest.raises(LoaderError) as caught:
            check(files, image)
        return caught.value

    with KernelImage.open(config.kernel) as image:
        check(config, image)
    assert isinstance(fails(build_bzimage(b"\x7fELF")), ForeignArchitectureError)
    assert f"{RAM_START:#x}" in str(fails(build_image("aarch64", image_size=32 * MIB)))
    assert "initrd" in str(fails(build_image("aarch64"), 16 * MIB))


def test_acpi_tables_take_room_from_the_kernel(config):
    """They lie where it would begin: one that just fits beside a device tree is refused beforehand too."""
    config.kernel.write_bytes(build_image("aarch64", image_size=15 * MIB))
    check = architecture("aarch64").check_kernel
    with KernelImage.open(config.kernel) as image:
        check(config, image)
        machine = attrs.evolve(config, platform=PlatformConfig(tables=Tables.ACPI))
        with pytest.raises(LoaderError, match="kernel"):
            check(machine, image)
