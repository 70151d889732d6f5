"""vmm_testhost.cpio against a reader that is not ours, and its refusals."""

import shutil
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmm_testhost.cpio import Archive


def listing(data):
    """Return the names busybox cpio finds."""
    done = subprocess.run(["busybox", "cpio", "-t"], input=data, capture_output=True, check=True)
    return done.stdout.decode().split()


needs_busybox = pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is the reader")


@needs_busybox
def test_extracted_tree_equals_what_was_added(tmp_path):
    """Files, modes, links and implied parents come out of busybox cpio as they went in."""
    archive = Archive()
    archive.file("a/b/hello", b"x" * 1001, 0o640)
    archive.directory("empty", 0o711)
    archive.symlink("a/link", "b/hello")
    subprocess.run(
        ["busybox", "cpio", "-i"], input=archive.build(), cwd=tmp_path, check=True, capture_output=True
    )
    assert (tmp_path / "a/link").read_bytes() == b"x" * 1001
    assert stat.S_IMODE((tmp_path / "a/b/hello").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == 0o711
    assert str((tmp_path / "a/link").readlink()) == "b/hello"


@needs_busybox
def test_device_node_is_listed_with_its_numbers():
    """A device node carries kind and numbers."""
    archive = Archive()
    archive.device("dev/console", "c", 5, 1)
    done = subprocess.run(["busybox", "cpio", "-tv"], input=archive.build(), capture_output=True, check=True)
    line = done.stdout.decode().splitlines()[-1]
    assert line.startswith("crw-------")
    assert line.endswith("dev/console")


names = st.text("abcXYZ019._-", min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))


@needs_busybox
@given(st.dictionaries(names, st.binary(max_size=600), max_size=6))
def test_any_files_keep_names_and_alignment(files):
    """Whatever the lengths of names and contents, the reader finds the same names, and blocks are whole."""
    archive = Archive()
    for name, data in files.items():
        archive.file(name, data)
    built = archive.build()
    assert listing(built) == list(files)
    assert len(built) % 512 == 0


def test_equal_calls_give_equal_bytes():
    """Nothing of this machine or moment gets into an archive."""

    def build():
        archive = Archive()
        archive.file("/etc/x", b"1")
        return archive.build()

    assert build() == build()
    assert build().startswith(b"07070100000001000041ED")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda a: a.file("../x", b""),
            r"cpio name '../x': empty, with '\.\.' or NUL, or the trailer's name",
        ),
        (lambda a: a.file("/", b""), "cpio name '/': empty"),
        (lambda a: a.file("x", b"", 0o10000), "cpio mode 0o10000 is not in 0..0o7777"),
        (lambda a: a.symlink("x", ""), "cpio symlink 'x': the target is empty"),
        (lambda a: a.device("x", "p", 1, 1), "cpio device 'x': kind 'p' is neither 'c' nor 'b'"),
        (lambda a: a.device("x", "c", -1, 1), "cpio device 'x': major -1 is not in 0..0xffffffff"),
        (lambda a: a.file("taken", b""), "cpio name 'taken' is already in the archive"),
    ],
)
def test_refusals_name_the_value_and_add_nothing(call, message):
    """A refused entry leaves the archive as it was."""
    archive = Archive()
    archive.directory("taken")
    before = archive.build()
    with pytest.raises(ValueError, match=message):
        call(archive)
    assert archive.build() == before
