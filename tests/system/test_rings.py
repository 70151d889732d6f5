"""A stock kernel's own driver on every kind of ring: packed and split, event index, indirect tables."""

import hashlib
import itertools
import logging
import os
import re
from pathlib import Path

import attrs
import pytest
from virtio_devices import Feature, QueueStats
from vmm_reference import DiskConfig, EndReason, MemoryConfig, RingConfig, RngConfig
from vmm_testhost.pytest_plugin import LONG

pytestmark = [pytest.mark.kvm_full, pytest.mark.timeout(1500)]

MIB = 1 << 20
QUEUE_SIZE = 64  # so that a few requests take the ring round
PIECE, PIECES, WORKERS = 4096, 12, 4
# On all disks at once: the blocks of the first half go to the second in reverse order, through the page
# cache; then pieces go back into the first half, from several processes past the cache; then all is read.
SCRIPT = f"""
work() {{
  disk=/dev/$1; blocks=$2
  i=0
  while [ $i -lt $blocks ]; do
    dd if=$disk of=$disk bs=1M count=1 skip=$i seek=$((2 * blocks - 1 - i)) conv=notrunc,fsync 2>/dev/null
    i=$((i + 1))
  done
  echo 3 > /proc/sys/vm/drop_caches
  for i in 0 1 2 3; do
    dd if=$disk of=$disk bs={PIECE} count={PIECES} conv=notrunc iflag=direct oflag=direct \\
      skip=$((blocks * 256 + i * {PIECES})) seek=$((2 * i * {PIECES})) 2>/dev/null &
  done
  wait
  echo 3 > /proc/sys/vm/drop_caches
  echo "guest: $1 $(md5sum < $disk | cut -d' ' -f1)"
}}
for disk in $(cd /sys/block; echo vd*); do
  device=$(readlink -f /sys/block/$disk/device)
  echo "guest: $disk $(cat /sys/block/$disk/serial) $(cat /sys/bus/virtio/devices/${{device##*/}}/features)"
  work $disk $(($(cat /sys/block/$disk/size) / 4096)) &
done
echo "guest: entropy $(head -c 64 /dev/hwrng | wc -c)"
wait
poweroff -f
"""


@attrs.frozen
class Disk:
    """One combination: its image, and the checksum of what the guest must make of it."""

    config: DiskConfig
    md5: str

    @classmethod
    def make(cls, path: Path, rings: RingConfig, size: int, engine: str = "native") -> "Disk":
        """An image of random bytes, an even number of MiB."""
        data = bytearray(os.urandom(size // 2) * 2)
        half = size // 2
        path.write_bytes(data)
        for block in range(0, half, MIB):
            data[size - block - MIB : size - block] = data[block : block + MIB]
        run = PIECE * PIECES
        for i in range(WORKERS):
            data[2 * i * run : (2 * i + 1) * run] = data[half + i * run : half + (i + 1) * run]
        config = DiskConfig(path, id=path.stem, engine=engine, queue_size=QUEUE_SIZE, rings=rings)
        return cls(config, _md5(data))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def check_features(bits: str, rings: RingConfig) -> None:
    """The guest took what was offered, and nothing else."""
    for name, bit in (
        ("packed", Feature.RING_PACKED),
        ("event_idx", Feature.EVENT_IDX),
        ("indirect_desc", Feature.INDIRECT_DESC),
        ("notification_data", Feature.NOTIFICATION_DATA),
    ):
        assert (bits[bit.bit_length() - 1] == "1") == getattr(rings, name), (name, bits)


def check_counters(stats: QueueStats, rings: RingConfig) -> None:
    """The ring went round, and what was negotiated was used."""
    assert stats.wraps > 0
    assert stats.tables == stats.chains * rings.indirect_desc
    assert stats.interrupts + stats.interrupts_suppressed <= stats.chains
    assert stats.interrupts > 0
    assert stats.kicks > 0  # more than requests, perhaps: Linux also kicks when its ring is full


def check_suppressed(found: list[tuple[RingConfig, QueueStats]]) -> None:
    """Both sides kept silent when the other did not want to hear: each disk, in the time of a long run."""
    groups = [[one] for one in found[:8]] if LONG else [found[:4], found[4:]]
    for group in groups:
        assert sum(stats.kicks_suppressed for _, stats in group) > 0
    named = [[stats for rings, stats in group if rings.event_idx] for group in groups]
    for group in named:
        assert not group or sum(stats.interrupts_suppressed for stats in group) > 0


def test_the_kernels_driver_on_every_ring(boot, tmp_path):
    """16 MiB (in long runs 256) of mixed I/O on each of eight combinations at once, and on two engines."""
    size = (128 if LONG else 8) * MIB
    disks = [
        Disk.make(tmp_path / f"disk{n}", RingConfig(packed, event_idx, indirect), size)
        for n, (packed, event_idx, indirect) in enumerate(itertools.product([False, True], repeat=3))
    ]
    disks += [
        Disk.make(tmp_path / "python", RingConfig(packed=True), 2 * MIB, "python"),
        Disk.make(tmp_path / "data", RingConfig(packed=True, notification_data=True), 2 * MIB),
    ]
    with boot(
        script=SCRIPT,
        modules=("virtio_mmio", "virtio_blk", "virtio_rng"),
        rng=RngConfig(rings=RingConfig(packed=True)),
        disks=[disk.config for disk in disks],
        memory=MemoryConfig(256 * MIB),
    ) as machine:
        assert machine.end(1400).reason is EndReason.POWEROFF
        text = machine.console.text
        stats = {device.id: device.queue_stats()[0] for device in machine.vmm.machine.virtio}
    for disk in disks:
        name, rings = disk.config.id, disk.config.rings
        found = re.search(rf"guest: (vd\w) {name} ([01]+)\n", text)
        assert found, text
        check_features(found[2], rings)
        assert f"guest: {found[1]} {disk.md5}\n" in text
        assert _md5(disk.config.path.read_bytes()) == disk.md5
        logging.getLogger(__name__).info("%s: %s", name, stats[name])
        check_counters(stats[name], rings)
    assert "guest: entropy 64\n" in text
    assert stats["rng0"].chains > 0
    check_suppressed([(disk.config.rings, stats[disk.config.id]) for disk in disks])
