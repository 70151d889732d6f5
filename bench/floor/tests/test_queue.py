"""The floor of the queue is one that a guest cannot hurt: whatever is in its rings, it ends in order.

Built with sanitizers, its memory between guard pages. Run with `pytest bench/floor`.
"""

import random
import struct
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
SIZE, PART, REGIONS = 8, 0x1000, 4
DESC, AVAIL, USED, TABLE, DATA = 0x0, 0x80, 0xA0, 0x100, 0x400
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    """The floor, built with sanitizers."""
    program = tmp_path_factory.mktemp("floor") / "queue"
    command = ["cc", *SANITIZE, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / "queue.c"]
    subprocess.run(command, check=True, timeout=50)
    return program


def image(rows, heads, tables=()):
    """Rings with these descriptors and heads; an indirect table."""
    memory = bytearray(REGIONS * PART)
    for index, row in enumerate(rows):
        struct.pack_into("<QIHH", memory, DESC + 16 * index, *row)
    for index, row in enumerate(tables):
        struct.pack_into("<QIHH", memory, TABLE + 16 * index, *row)
    struct.pack_into(f"<2H{SIZE}H", memory, AVAIL, 0, 0, *heads)
    return bytes(memory)


def run(queue, folder, content, *way, regions=REGIONS, chains=2):
    """Play one round, and return (status, what it said)."""
    file = folder / "image"
    file.write_bytes(content)
    words = [file, regions, 1, SIZE, DESC, AVAIL, USED, chains, 1, *way]
    done = subprocess.run(
        [queue, *map(str, words)],
        input="1\n",
        env={"ASAN_OPTIONS": "detect_leaks=0"},  # what is in use to the end needs no free
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "Sanitizer" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("way", [(), ("gather", 64), ("scatter", 64)])
@pytest.mark.parametrize("regions", [1, REGIONS])
def test_sound_chains_are_served(queue, tmp_path, way, regions):
    """Buffers of one region, over the border of two, and in a table."""
    rows = [(DATA, 64, 1, 1), (PART - 8, 64, 2, 0), (TABLE, 32, 4, 0)]
    tables = [(DATA + 64, 64, 1, 1), (2 * PART - 1, 64, 2, 0)]
    content = image(rows, [0, 2] * 4, tables)
    assert run(queue, tmp_path, content, *way, regions=regions) == (0, "")


@pytest.mark.parametrize(
    ("rows", "heads"),
    [
        ([(DATA, 8, 0, 0)], [SIZE] * 8),
        ([(DATA, 8, 1, SIZE)], [0] * 8),
        ([(DATA, 8, 1, 0)], [0] * 8),
        ([(REGIONS * PART - 4, 8, 0, 0)], [0] * 8),
        ([(REGIONS * PART, 0xFFFF_FFFF, 2, 0)], [0] * 8),
        ([((1 << 64) - 4, 8, 0, 0)], [0] * 8),
        ([(DATA, 8, 3, 1), (DATA, 8, 0, 0)], [0] * 8),
        ([(TABLE, 24, 4, 0)], [0] * 8),
        ([(TABLE, 0, 4, 0)], [0] * 8),
        ([(TABLE, 16, 5, 0)], [0] * 8),
        ([(REGIONS * PART - 16, 32, 4, 0)], [0] * 8),
    ],
)
def test_a_broken_rule_is_told(queue, tmp_path, rows, heads):
    """One sentence, status 2."""
    status, said = run(queue, tmp_path, image(rows, heads))
    assert (status, "breaks a rule" in said) == (2, True)


def test_a_nested_table_is_told(queue, tmp_path):
    """A table is followed once."""
    content = image([(TABLE, 16, 4, 0)], [0] * 8, [(TABLE, 16, 4, 0)])
    assert "breaks a rule" in run(queue, tmp_path, content)[1]


@pytest.mark.parametrize("seed", range(40))
def test_wild_rings_end_in_order(queue, tmp_path, seed):
    """Descriptors of any content, mostly near the edges: served or refused, and nothing else."""
    source = random.Random(seed)
    edges = (0, DATA, TABLE, PART - 4, PART, REGIONS * PART - 16, REGIONS * PART, (1 << 64) - 8, 1 << 63)
    lengths = (0, 1, 16, 32, 64, 128, PART, 0x8000_0000, 0xFFFF_FFFF)

    def row():
        choices = source.choice(edges), source.choice(lengths), source.choice((0, 1, 2, 3, 4, 5, 0xFFFF))
        return *choices, source.choice((*range(SIZE), SIZE, 0xFFFF))

    content = image(
        [row() for _ in range(SIZE)], [source.randrange(SIZE) for _ in range(8)], [row() for _ in range(8)]
    )
    way = source.choice([(), ("gather", 16), ("scatter", 16)])
    status, _ = run(
        queue, tmp_path, content, *way, regions=source.choice((1, REGIONS)), chains=source.randrange(1, 8)
    )
    assert status in (0, 2)
