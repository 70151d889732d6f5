"""What differs between hosts, without a host."""

from pathlib import Path

import pytest
import vmm_testhost
from vmm_testhost import _apt, _cli
from vmm_testhost._arch import ARCHITECTURES
from vmm_testhost._plan import foreign_environment, inner_environment
from vmm_testhost._qemu import Machine, command_line


def test_unknown_architecture_is_named():
    """What there is no host of is refused with what there is, before anything is fetched."""
    with pytest.raises(ValueError, match="arch 'riscv64': an emulated host is one of x86_64, aarch64"):
        vmm_testhost.run(["true"], arch="riscv64")
    with pytest.raises(ValueError, match="arch 'riscv64'"):
        vmm_testhost.prepare("riscv64")


@pytest.mark.parametrize(("name", "package"), [("x86_64", "qemu-system-x86"), ("aarch64", "qemu-system-arm")])
def test_missing_emulator_is_named(monkeypatch, name, package):
    """A plain user gets the one command that installs what this architecture needs, and no more."""
    monkeypatch.setattr(_apt, "find_tool", lambda program: None if program.startswith("qemu") else program)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    arch = ARCHITECTURES[name]
    assert arch.package == package
    with pytest.raises(vmm_testhost.SetupError) as info:
        vmm_testhost.prepare(name)
    assert info.value.cure == f"sudo apt-get install {package}"


def test_userland_is_a_share_of_its_own():
    """The arm64 board has EL2, its console, and the userland read-only beside the root."""
    machine = Machine(
        kernel=Path("/k"),
        initramfs=Path("/i"),
        console=Path("/c"),
        memory=1024,
        cpus=1,
        shares=[],
        kernel_args="",
        extra=(),
        arch=ARCHITECTURES["aarch64"],
        userland=Path("/u,v"),
    )
    argv = command_line(machine, "qemu", 7, None)
    assert "virt,virtualization=on,gic-version=3" in argv
    assert "console=ttyAMA0" in argv[argv.index("-append") + 1]
    shares = [argv[index + 1] for index, arg in enumerate(argv) if arg == "-virtfs"]
    assert shares[1].startswith("local,path=/u,,v,mount_tag=userland,readonly=on,")


def test_only_variables_that_hold_there_pass():
    """Paths of programs of this machine stay outside; what steers tests passes."""
    outer = {
        "PATH": "/venv/bin",
        "VIRTUAL_ENV": "/venv",
        "SHELL": "/bin/zsh",
        "PYTHONPATH": "/here",
        "HOME": "/root",
        "VMM_HYPOTHESIS_PROFILE": "long",
    }
    inner = foreign_environment(inner_environment(outer))
    assert inner.pop("TMPDIR")
    assert inner == {"PATH": "/usr/sbin:/usr/bin", "HOME": "/root", "VMM_HYPOTHESIS_PROFILE": "long"}


def test_command_line_names_the_architecture(monkeypatch):
    """--arch reaches the call; without a command there is a shell that every Debian has."""
    seen = {}

    def fake(argv, **settings):
        seen.update(settings, argv=argv)
        raise vmm_testhost.SetupError("stop here")

    monkeypatch.setattr(_cli, "run", fake)
    assert _cli.main(["--arch", "aarch64"]) == 125
    assert (seen["argv"], seen["arch"]) == (["/bin/sh"], "aarch64")
