"""Packages through apt, with stand-ins for the apt programs: no network in these tests."""

import os
import shutil
import stat
import subprocess

import pytest
from vmm_testhost import _apt
from vmm_testhost._errors import SetupError

CONTROL = "Package: tiny\nVersion: 1:2.0-1\nArchitecture: all\nSize: 700\nDepends: a,\n b\n\nPackage: other\n"


@pytest.fixture
def fake_apt(tmp_path, monkeypatch, cache):
    """A PATH whose apt-cache and apt-get serve one real .deb built here; returns the folder."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    root = tmp_path / "pkg"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: tiny\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (root / "usr").mkdir()
    (root / "usr/file").write_text("contents")
    subprocess.run(["dpkg-deb", "-b", root, tmp_path / "tiny.deb"], check=True, capture_output=True)
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "apt-cache": f'test "$3" = tiny && printf %s "{CONTROL}"\ntrue',
        "apt-get": f'echo "$@" >>{folder}/log\n'
        f"test -e {folder}/offline && {{ echo E: no network >&2; exit 100; }}\n"
        f"case $* in *download*) cp {tmp_path}/tiny.deb tiny_all.deb;; esac",
    }
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_package_is_unpacked_and_reused(fake_apt, capsys):
    """The first call downloads with a progress line, the second uses the cache without apt."""
    tree = _apt.fetch_package("tiny")
    assert (tree / "usr/file").read_text() == "contents"
    assert not list(tree.rglob("*.deb"))
    assert "downloading tiny 1:2.0-1" in capsys.readouterr().err
    log = (fake_apt / "log").read_text()
    assert "download tiny=1:2.0-1" in log
    assert _apt.fetch_package("tiny") == tree
    assert (fake_apt / "log").read_text() == log


def test_cached_version_serves_offline(fake_apt, capsys):
    """When apt fails, the version in the cache is used, and the user is told."""
    tree = _apt.fetch_package("tiny")
    (fake_apt / "offline").touch()
    (fake_apt / "apt-cache").write_text("#!/bin/sh\n")
    assert _apt.fetch_package("tiny", recheck_after=0) == tree
    assert "using tiny 1:2.0-1 from the cache" in capsys.readouterr().err


def test_failed_download_names_package_and_cure(fake_apt, cache):
    """Without cache and network the error says what failed and what to run; nothing half-done stays."""
    (fake_apt / "offline").touch()
    message = r"download tiny=1:2\.0-1 failed: E: no network; run: sudo apt-get update"
    with pytest.raises(SetupError, match=message) as info:
        _apt.fetch_package("tiny")
    assert info.value.cure == "sudo apt-get update"
    assert list((cache / "debian").iterdir()) == []


def test_unknown_package_is_named(fake_apt):
    """A package apt has never heard of is an error that names it."""
    with pytest.raises(SetupError, match="apt knows no package nothing-like-it"):
        _apt.fetch_package("nothing-like-it")


def test_option_as_package_name_is_refused():
    """A name that apt would take for an option never reaches it."""
    with pytest.raises(ValueError, match="'-oDir=x' is not a Debian package name"):
        _apt.fetch_package("-oDir=x")


def test_fields_end_at_the_first_paragraph():
    """Only the first paragraph is read, continuation lines are left out."""
    assert _apt.parse_fields(CONTROL)["Depends"] == "a,"
    assert _apt.parse_fields(CONTROL)["Package"] == "tiny"


def test_missing_tools_name_one_command(monkeypatch):
    """A plain user gets the one command that installs everything."""
    monkeypatch.setattr(_apt, "find_tool", lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError) as info:
        _apt.ensure_tools()
    assert info.value.cure == "sudo apt-get install kmod qemu-system-x86 xz-utils zstd"
