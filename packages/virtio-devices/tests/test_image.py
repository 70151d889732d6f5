"""Disk images: what is refused, how they are locked, what a size that does not fit does."""

import os
import stat
import subprocess

import pytest
from virtio_devices import DiskImage, ImageError, ImageLockedError, VirtioBlk


def test_capacity_and_close_on_exec(image):
    """The capacity counts whole sectors; the descriptor is not inherited."""
    path, _content = image(size=5 * 512)
    with DiskImage(path) as disk:
        assert disk.capacity == 5
        assert not os.get_inheritable(disk.fd)
        assert 512 <= disk.block_size <= 65536
    with pytest.raises(ImageError, match="image is closed"):
        _ = disk.fd


def test_a_tail_is_hidden_with_a_warning(image, caplog):
    """A size that is no multiple of 512 is rounded down, and said by the one who shows it to a guest."""
    path, _content = image(size=2 * 512 + 7)
    with DiskImage(path) as disk:
        assert (disk.capacity, disk.hidden) == (2, 7)
        assert caplog.text == ""
        VirtioBlk("disk0", disk).close()
    assert f"{path}: the last 7 bytes are no whole sector" in caplog.text


@pytest.mark.parametrize("size", [0, 511])
def test_less_than_a_sector_is_refused(image, size):
    """An image without a whole sector is a mistake of the caller."""
    path, _content = image(size=size)
    with pytest.raises(ImageError, match=f"{path}: holds {size} bytes, at least 512"):
        DiskImage(path)


def test_writable_locks_exclude_everybody(image):
    """A second writer and a reader are refused, with the path and the kind of lock in the message."""
    path, _content = image()
    with DiskImage(path):
        with pytest.raises(ImageLockedError, match=rf"{path}: in use: the exclusive \(read-write\) lock"):
            DiskImage(path)
        with pytest.raises(
            ImageLockedError, match=rf"{path}: in use: the shared \(read-only\) lock"
        ) as caught:
            DiskImage(path, read_only=True)
        assert caught.value.path == str(path)
        DiskImage(path, lock=False).close()
    DiskImage(path).close()


def test_readers_share(image):
    """Two read-only images coexist; a writer has to wait for both."""
    path, _content = image()
    with DiskImage(path, read_only=True), DiskImage(path, read_only=True), pytest.raises(ImageLockedError):
        DiskImage(path)


def test_failed_opens_leak_nothing(image):
    """A refused image leaves no descriptor behind."""
    path, _content = image(size=100)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ImageError):
            DiskImage(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_disk_is_refused(tmp_path):
    """Directories, devices and FIFOs are refused without blocking; a missing file keeps its errno."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, "/dev/null"):
        with pytest.raises(ImageError, match=str(path)):
            DiskImage(path)
    with pytest.raises(ImageError, match="No such file") as caught:
        DiskImage(tmp_path / "missing")
    assert caught.value.errno == 2


def test_a_mounted_block_device_is_refused(tmp_path):
    """A file system that the host has mounted must not be written by a guest."""
    path = tmp_path / "fs.img"
    path.write_bytes(bytes(1 << 20))
    setup = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True, check=False)
    if setup.returncode:
        pytest.skip(f"no loop device: {setup.stderr.strip()}")
    loop = setup.stdout.strip()
    try:
        holder = os.open(loop, os.O_RDWR | os.O_EXCL)
        with pytest.raises(ImageError, match=f"{loop}: Device or resource busy"):
            DiskImage(loop)
        os.close(holder)
        assert stat.S_ISBLK(os.stat(loop).st_mode)
        DiskImage(loop).close()
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
