"""Userlands of another architecture, with stand-ins for apt and real packages built here."""

import os
import shutil
import stat
import subprocess

import pytest
from vmm_testhost import SetupError, _userland

SOURCES = "Debian|Debian|http://mirror.example.org/debian/"
FILES = {"shell": "bin/sh", "library": "lib/arm/libc.so", "tool": "usr/bin/tool"}


@pytest.fixture
def fake_apt(tmp_path, monkeypatch, cache):
    """A PATH whose apt resolves and serves three packages; returns its folder."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    folder = tmp_path / "bin"
    debs = folder / "debs"
    debs.mkdir(parents=True)
    for name, file in FILES.items():
        root = tmp_path / name
        (root / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: 1-2\nArchitecture: arm64\nMaintainer: x <x@example.org>\n"
        (root / "DEBIAN/control").write_text(f"{control}Description: x\n")
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text(name)
        subprocess.run(["dpkg-deb", "-b", root, debs / f"{name}.deb"], check=True, capture_output=True)
    lines = "".join(f"Inst {name} (1-2 Debian:12/oldstable [arm64])\\n" for name in FILES)
    (folder / "apt-get").write_text(
        f"""#!/bin/sh
echo "$@" >>{folder}/log
test -e {folder}/offline && {{ echo E: no network >&2; exit 100; }}
case " $* " in
*" indextargets "*) echo "{SOURCES}";;
*" -s install "*) printf '{lines}Conf shell (1-2 Debian [arm64])\\n';;
*" download "*) cp {debs}/*.deb .;;
esac
"""
    )
    (folder / "apt-get").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_packages_and_dependencies_are_one_merged_tree(fake_apt, capsys):
    """What apt names is downloaded by exact version; /bin and /lib are links into /usr; asked once."""
    tree = _userland.userland(["tool"], "someday:arm64")
    assert (tree / "bin/sh").read_text() == (tree / "usr/bin/sh").read_text() == "shell"
    assert (tree / "usr/lib/arm/libc.so").read_text() == "library"
    assert [os.readlink(tree / name) for name in ("bin", "lib", "sbin")] == ["usr/bin", "usr/lib", "usr/sbin"]
    assert not list(tree.rglob("*.deb"))
    log = (fake_apt / "log").read_text()
    assert "download library=1-2 shell=1-2 tool=1-2" in log
    assert "APT::Architecture=arm64" in log
    assert _userland.userland(["tool"], "someday:arm64") == tree
    assert (fake_apt / "log").read_text() == log


def test_cached_tree_serves_offline(fake_apt, monkeypatch, capsys):
    """When apt fails after a week, the tree in the cache is used, and the user is told."""
    tree = _userland.userland(["tool"], "someday:arm64")
    monkeypatch.setattr(_userland, "RECHECK_AFTER", -1.0)
    (fake_apt / "offline").touch()
    assert _userland.userland(["tool"], "someday:arm64") == tree
    assert "using the userland in the cache" in capsys.readouterr().err


def test_nothing_half_done_stays(fake_apt, cache):
    """A package that cannot be unpacked is named, and no tree appears."""
    (fake_apt / "debs/tool.deb").write_bytes(b"damaged")
    with pytest.raises(SetupError, match=r"dpkg-deb .*tool\.deb failed"):
        _userland.userland(["tool"], "someday:arm64")
    assert not list((cache / "debian").glob("userland*"))


def test_unresolved_packages_are_named(fake_apt):
    """Without a cache the failure of apt is the error."""
    (fake_apt / "offline").touch()
    with pytest.raises(SetupError, match="no network"):
        _userland.userland(["tool"], "someday:arm64")
