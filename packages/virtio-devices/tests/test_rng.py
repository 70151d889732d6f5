"""virtio-rng: random bytes, bounded work, and sources that have nothing to give."""

import os

import pytest
from virtio_devices import EntropySource, SourceError, VirtioRng
from virtio_devices._rng import MAX_REQUEST


@pytest.mark.parametrize("path", ["/dev/urandom", None])
def test_buffers_are_filled(rig, path):
    """All writable buffers get random bytes; two requests get different ones."""
    made = rig(VirtioRng("rng0", EntropySource(path)))
    made.driver.initialise()
    first, second = (made.driver.request([], [16, 48]) for _ in range(2))
    assert (first.written, len(first.data[0]), len(first.data[1])) == (64, 16, 48)
    assert first.data != second.data


def test_one_request_is_bounded(rig):
    """A request for more than the bound gets at least one byte and at most the bound."""
    made = rig(VirtioRng("rng0"))
    made.driver.initialise()
    assert 1 <= made.driver.request([], [MAX_REQUEST * 4]).written <= MAX_REQUEST


def test_readable_buffers_are_left_alone(rig):
    """A chain without room is completed with 0 bytes, and the device goes on."""
    made = rig(VirtioRng("rng0"))
    made.driver.initialise()
    assert made.driver.request([b"keep"], []).written == 0
    assert made.driver.request([b"keep"], [8]).written == 8


@pytest.fixture
def fifo(tmp_path):
    """A FIFO as a source that can run dry."""
    path = tmp_path / "source"
    os.mkfifo(path)
    return path


def test_a_dry_source_makes_requests_wait(rig, fifo):
    """Requests stay in the ring, registers answer at once, and the bytes are passed on when they come."""
    made = rig(VirtioRng("rng0", EntropySource(fifo)))
    made.driver.initialise()
    queue = made.driver.queues[0]
    with open(os.open(fifo, os.O_RDWR), "wb", buffering=0) as feed:
        for _ in range(3):
            queue.request([], [4])
        made.driver.kick()
        assert made.driver.status == 15
        feed.write(b"abcd")
        assert made.driver.wait()[0].data == (b"abcd",)
        made.mmio.pause()
        made.mmio.resume()
        feed.write(b"efghij")
        done = made.driver.wait(count=2)
    assert [completion.data[0] for completion in done] == [b"efgh", b"ij"]


def test_reset_while_the_source_is_dry(rig, fifo):
    """A reset does not wait for the source, and the next driver starts with an empty ring."""
    made = rig(VirtioRng("rng0", EntropySource(fifo)))
    with open(os.open(fifo, os.O_RDWR), "wb", buffering=0) as feed:
        for _ in range(2):
            made.driver.initialise()
            made.driver.queues[0].request([], [4])
            made.driver.kick()
        feed.write(b"1234")
        assert made.driver.wait()[0].data == (b"1234",)


def test_an_exhausted_source_is_said_once(rig, tmp_path, caplog):
    """At the end of a file the guest's requests wait for ever; nothing spins, and the log says why."""
    path = tmp_path / "seed"
    path.write_bytes(b"12345678")
    source = EntropySource(path)
    made = rig(VirtioRng("rng0", source))
    made.driver.initialise()
    assert made.driver.request([], [8]).data == (b"12345678",)
    made.driver.queues[0].request([], [8])
    for _ in range(5):
        made.driver.kick(always=True)
    made.mmio.pause()
    assert source.read(1) == b""
    assert caplog.text.count(f"{path} is at its end") == 1


def test_a_missing_source_names_the_path():
    """The error holds the path and the host's reason."""
    with pytest.raises(
        SourceError, match="/no/such: cannot be opened as entropy source: No such file"
    ) as caught:
        EntropySource("/no/such")
    assert caught.value.path == "/no/such"


def test_a_directory_is_no_source(tmp_path):
    """A directory can be opened, but not read."""
    with pytest.raises(SourceError, match="is a directory"):
        EntropySource(tmp_path)


def test_an_impossible_queue_size_is_refused():
    """Sizes are powers of two."""
    with pytest.raises(ValueError, match="queue_size=3"):
        VirtioRng("rng0", EntropySource(None), queue_size=3)


def test_random_bytes_are_not_saved(rig):
    """The state is empty, and restoring it gives a working device."""
    first, second = (rig(VirtioRng("rng0")) for _ in range(2))
    first.driver.initialise()
    first.mmio.pause()
    second.mmio.restore(first.mmio.state())
    second.mmio.resume()
    assert second.device.state() == {}
    assert second.driver.status == 15
