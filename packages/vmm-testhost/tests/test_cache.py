"""The cache folder: lock and publication."""

import fcntl
import threading

import pytest
from vmm_testhost import _cache


def test_folder_follows_the_environment(monkeypatch, tmp_path):
    """VMM_TESTHOST_CACHE beats XDG_CACHE_HOME."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("VMM_TESTHOST_CACHE", raising=False)
    assert _cache.cache_dir() == tmp_path / "xdg" / "vmm-testhost"
    monkeypatch.setenv("VMM_TESTHOST_CACHE", str(tmp_path / "own"))
    assert _cache.cache_dir() == tmp_path / "own"


def test_second_taker_waits(cache):
    """While one holder has the lock another gets it only after release."""
    order = []
    entered = threading.Event()

    def second():
        entered.set()
        with _cache.locked("x"):
            order.append("second")

    with _cache.locked("x"):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        with (cache / "x.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_failed_publication_leaves_nothing(cache):
    """A directory that could not be filled never appears, nor does its scratch copy."""
    target = cache / "deb" / "tree"

    def fail():
        with _cache.publish(target) as scratch:
            (scratch / "half").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(target.parent.iterdir()) == []


def test_publication_is_whole(cache):
    """A directory that was filled appears under its name."""
    with _cache.publish(cache / "tree") as scratch:
        (scratch / "file").write_text("x")
    assert (cache / "tree" / "file").read_text() == "x"


def test_atomic_write_replaces(cache):
    """The new contents replace the old, and no scratch file stays."""
    target = _cache.cache_dir() / "f"
    _cache.write_atomically(target, b"1")
    _cache.write_atomically(target, b"2")
    assert target.read_bytes() == b"2"
    assert [path.name for path in target.parent.iterdir()] == ["f"]
