"""Suites that this machine does not follow: the private apt configuration, with stand-ins for apt."""

import os
import shutil
import stat
import subprocess

import pytest
from vmm_testhost import _apt, _kernel, _suite
from vmm_testhost._errors import KernelImageError, SetupError

RELEASE = "9.9+deb99-amd64"
PARTS = ("linux-binary", "linux-base", "linux-modules")
DEPENDS = (
    f"initramfs-tools | linux-initramfs-tool, {', '.join(f'{part}-{RELEASE} (= 9-1)' for part in PARTS)}"
)
FOLDER = f"usr/lib/modules/{RELEASE}"
FILES = {
    "linux-image": "usr/share/doc/readme",
    "linux-meta": "usr/share/doc/readme",
    "linux-binary": f"{FOLDER}/vmlinuz",
    "linux-base": f"{FOLDER}/config",
    "linux-modules": f"{FOLDER}/modules.dep",
}


@pytest.fixture
def fake_apt(tmp_path, monkeypatch, cache):
    """A PATH whose apt serves a split kernel from a private suite only; returns its folder."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    folder = tmp_path / "bin"
    folder.mkdir()
    for part, name in FILES.items():
        root = tmp_path / part
        (root / "DEBIAN").mkdir(parents=True)
        control = (
            f"Package: {part}-{RELEASE}\nVersion: 9-1\nArchitecture: amd64\nMaintainer: x <x@example.org>\n"
        )
        (root / "DEBIAN/control").write_text(f"{control}Description: x\n")
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(part)
        debs = folder / "debs"
        debs.mkdir(exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "-b", root, debs / f"{part}-{RELEASE}.deb"], check=True, capture_output=True
        )
    scripts = {
        "apt-cache": f"""
            case "$*" in *Dir::Etc::sourcelist*) ;; *) exit 100;; esac
            for name; do :; done
            case $name in
            linux-image-{RELEASE}) depends='{DEPENDS}';;
            linux-image-amd64) depends='linux-base-amd64, linux-image-{RELEASE}, linux-modules-amd64';;
            esac
            case $name in *-{RELEASE} | linux-image-amd64)
                printf 'Package: %s\\nVersion: 9-1\\nArchitecture: amd64\\n' "$name"
                printf 'Depends: %s\\n' "$depends";;
            esac""",
        "apt-get": f"""
            echo "$@" >>{folder}/log
            for exact; do :; done
            case "$*" in
            *indextargets*) cat {folder}/targets;;
            *update*) cat {folder}/update.err >&2; test ! -s {folder}/update.err || exit 100;;
            *linux-image-amd64*) cp {folder}/debs/linux-meta-{RELEASE}.deb .;;
            *download*) cp {folder}/debs/"${{exact%%=*}}".deb .;;
            esac""",
    }
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(stat.S_IRWXU)
    (folder / "update.err").touch()
    (folder / "targets").write_text(
        "Other|Other|http://mirror.example.org/other/\nDebian|Debian|http://mirror.example.org/debian/\n"
    )
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize("name", ["linux-image-amd64", f"linux-image-{RELEASE}"])
def test_split_kernel_becomes_one_tree(fake_apt, cache, name):
    """Image, configuration and modules of several packages stand in one tree, found by their names."""
    kernel = _kernel.kernel(name, suite="nextone")
    assert kernel.package == f"linux-image-{RELEASE}"
    assert kernel.version == RELEASE
    assert kernel.bzimage.read_text() == "linux-binary"
    assert kernel.config.read_text() == "linux-base"
    assert (kernel.modules / "modules.dep").read_text() == "linux-modules"
    assert _kernel.kernel(name, suite="nextone") == kernel
    sources = (cache / "apt/nextone/sources.list").read_text()
    assert sources.endswith("] http://mirror.example.org/debian/ nextone main\n")
    assert "trusted=yes" not in sources


def test_a_suite_of_another_architecture(fake_apt, cache):
    """Sources, lists and cache are its own; only the image's package is fetched."""
    found = _kernel.kernel_image("linux-image-amd64", suite="nextone:riscv64")
    assert found.read_text() == "linux-binary"
    sources = (cache / "apt/nextone_riscv64/sources.list").read_text()
    assert "arch=riscv64" in sources
    assert sources.endswith("] http://mirror.example.org/debian/ nextone main\n")
    log = (fake_apt / "log").read_text()
    assert "APT::Architecture=riscv64" in log
    assert "linux-modules" not in log
    assert _apt.is_cached(f"linux-binary-{RELEASE}", "nextone:riscv64")
    assert not _apt.is_cached(f"linux-binary-{RELEASE}", "nextone")


def test_it_is_cached_apart_from_the_machines_own(fake_apt):
    """The same name from the machine's own sources is another package."""
    _apt.fetch_package(f"linux-base-{RELEASE}", suite="nextone")
    assert _apt.is_cached(f"linux-base-{RELEASE}", "nextone")
    assert not _apt.is_cached(f"linux-base-{RELEASE}")


def test_a_suite_that_has_gone_is_said(fake_apt):
    """A mirror without the suite is told from one that does not answer."""
    (fake_apt / "update.err").write_text(
        "E: The repository 'x nextone Release' does not have a Release file.\n"
    )
    with pytest.raises(
        SetupError, match=r"^Debian nextone: the mirror of this machine's apt sources has no such"
    ):
        _apt.fetch_package("linux-base", suite="nextone")
    (fake_apt / "update.err").write_text("E: Failed to fetch x  Could not connect\n")
    with pytest.raises(SetupError, match=r"^Debian nextone: apt-get update failed: E: Failed to fetch x"):
        _apt.fetch_package("linux-base", suite="nextone")


def test_unknown_keys_are_not_believed(fake_apt, tmp_path, monkeypatch):
    """Lists that neither the machine's keyring nor the newest one verifies are refused, not used."""
    newest = tmp_path / "keyring" / "usr/share/keyrings"
    newest.mkdir(parents=True)
    (newest / "debian-archive-keyring.gpg").touch()
    seen = []
    fetched = _apt._fetch

    def fetch(name, suite):
        seen.append((name, suite))
        return {"Tree": str(tmp_path / "keyring")} if suite is None else fetched(name, suite)

    monkeypatch.setattr(_apt, "_fetch", fetch)
    (fake_apt / "update.err").write_text("W: GPG error: x InRelease: NO_PUBKEY 1234\nE: x is not signed.\n")
    with pytest.raises(
        SetupError, match="not signed by a key of any debian-archive-keyring to be had; not used"
    ):
        _apt.fetch_package("linux-base", suite="nextone")
    assert ("debian-archive-keyring", None) in seen
    log = (fake_apt / "log").read_text()
    assert "AllowUnauthenticated" not in log
    assert "AllowInsecure" not in log
    assert log.count(" update") == 2


def test_the_mirror_is_the_machines_own(fake_apt):
    """Without lists apt knows no origin: the archive is told by its path; no source at all is an error."""
    (fake_apt / "targets").write_text(
        "||http://a.example.org/debian-security/\n||http://b.example.org/debian\n"
    )
    assert _suite.debian_mirror(_apt._run) == "http://b.example.org/debian"
    (fake_apt / "targets").write_text("Other|Other|http://a.example.org/other/\n")
    with pytest.raises(
        SetupError, match=r"name no mirror of Debian \(1 sources, none of the Debian archive\)"
    ):
        _suite.debian_mirror(_apt._run)


@pytest.mark.parametrize("suite", ["", "../etc", "-o", "a b", "Sid"])
def test_a_suite_is_a_name(suite):
    """What apt or the file system would take for something else never reaches them."""
    with pytest.raises(ValueError, match="is not the name of a Debian suite"):
        _apt.fetch_package("linux-base", suite=suite)


def test_an_image_of_no_parts_is_refused(fake_apt, monkeypatch):
    """A package without a kernel that names none of a kernel's parts is said to be that."""
    record = {"Package": "linux-image-1", "Version": "1", "Depends": "libc6", "Tree": str(fake_apt)}
    monkeypatch.setattr(_kernel, "resolve", lambda *_, **__: record)
    with pytest.raises(KernelImageError, match="package linux-image-1 depends on no linux-image"):
        _kernel.kernel("linux-image-1")


def test_later_kernel_says_why_there_is_none(monkeypatch):
    """Each suite that failed is named with its reason; one in the cache is tried first."""
    asked = []

    def kernel(name, *, suite):
        asked.append(suite)
        raise SetupError(f"Debian {suite}: gone")

    monkeypatch.setattr(_kernel, "LATER_SUITES", ("one", "two"))
    monkeypatch.setattr(_kernel, "is_cached", lambda _, suite: suite == "two")
    monkeypatch.setattr(_kernel, "kernel", kernel)
    with pytest.raises(
        SetupError, match="no kernel of a later Debian is to be had: Debian two: gone; Debian one"
    ):
        _kernel.later_kernel()
    assert asked == ["two", "one"]
