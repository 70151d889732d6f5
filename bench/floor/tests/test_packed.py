"""The floor of the packed queue is one that a guest cannot hurt: whatever is in its ring, it ends in order.

Built with sanitizers, its memory between guard pages. Run with `pytest bench/floor`.
"""

import random
import struct
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
SIZE, PART, REGIONS = 7, 0x1000, 4
DESC, AVAIL, USED, TABLE, DATA = 0x0, 0x80, 0xA0, 0x100, 0x400
NEXT, WRITE, INDIRECT = 1, 2, 4
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The floor, built with sanitizers."""
    program = tmp_path_factory.mktemp("floor") / "packed"
    command = ["cc", *SANITIZE, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", program, HERE / "packed.c"]
    subprocess.run(command, check=True, timeout=50)
    return program


def image(rows, tables=(), wish=0):
    """A ring with these descriptors; an indirect table; what the driver wants to be told."""
    memory = bytearray(REGIONS * PART)
    for start, content in ((DESC, rows), (TABLE, tables)):
        for index, row in enumerate(content):
            struct.pack_into("<QIHH", memory, start + 16 * index, *row)
    struct.pack_into("<I", memory, AVAIL, wish)
    return bytes(memory)


def run(packed, folder, content, *, regions=REGIONS, chains=2, rounds=30):
    """Play some rounds, over several laps, and return (status, what it said)."""
    file = folder / "image"
    file.write_bytes(content)
    words = [file, regions, 1, SIZE, DESC, AVAIL, USED, chains, 1]
    done = subprocess.run(
        [packed, *map(str, words)],
        input=f"{rounds}\n",
        env={"ASAN_OPTIONS": "detect_leaks=0"},  # what is in use to the end needs no free
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "Sanitizer" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("regions", [1, REGIONS])
@pytest.mark.parametrize("wish", [0, 1 << 16, 2 << 16 | 0x8003, 2 << 16 | 0x7FFF, 3 << 16])
def test_sound_lists_are_served(packed, tmp_path, regions, wish):
    """Buffers of one region, over the border of two, and in a table; lists that run over the ring's end."""
    rows = [(DATA, 64, 9, NEXT), (PART - 8, 64, 3, WRITE), (TABLE, 32, 0xFFFF, INDIRECT)]
    tables = [(DATA + 64, 64, 1, NEXT), (2 * PART - 1, 64, 2, WRITE)]
    assert run(packed, tmp_path, image(rows, tables, wish), regions=regions) == (0, "")


@pytest.mark.parametrize(
    ("rows", "tables"),
    [
        ([(DATA, 8, 0, NEXT)] * SIZE, ()),
        ([(DATA, 8, 5, 0), (DATA, 8, 5, 0)], ()),
        ([(REGIONS * PART - 4, 8, 0, 0)], ()),
        ([(REGIONS * PART, 0xFFFF_FFFF, 0, WRITE)], ()),
        ([((1 << 64) - 4, 8, 0, 0)], ()),
        ([(DATA, 8, 0, NEXT | WRITE), (DATA, 8, 0, 0)], ()),
        ([(TABLE, 24, 0, INDIRECT)], ()),
        ([(TABLE, 0, 0, INDIRECT)], ()),
        ([(TABLE, 16, 0, INDIRECT | NEXT), (DATA, 8, 0, 0)], ()),
        ([(DATA, 8, 0, NEXT), (TABLE, 16, 0, INDIRECT)], ()),
        ([(REGIONS * PART - 16, 32, 0, INDIRECT)], ()),
        ([(TABLE, 16 * (SIZE + 1), 0, INDIRECT)], [(DATA, 8, 0, 0)] * (SIZE + 1)),
    ],
)
def test_a_broken_rule_is_told(packed, tmp_path, rows, tables):
    """One sentence, status 2."""
    status, said = run(packed, tmp_path, image(rows, tables))
    assert (status, "breaks a rule" in said) == (2, True)


@pytest.mark.parametrize("seed", range(40))
def test_wild_rings_end_in_order(packed, tmp_path, seed):
    """Descriptors of any content, mostly near the edges: served or refused, and nothing else."""
    source = random.Random(seed)
    edges = (0, DATA, TABLE, PART - 4, PART, REGIONS * PART - 16, REGIONS * PART, (1 << 64) - 8, 1 << 63)
    lengths = (0, 1, 16, 32, 64, 128, PART, 0x8000_0000, 0xFFFF_FFFF)

    def row():
        return (
            source.choice(edges),
            source.choice(lengths),
            source.choice((0, 1, 2, 3, 0xFFFF)),
            source.choice((0, 1, 2, 3, 4, 5, 0x80, 0x8001, 0xFFFF)),
        )

    content = image([row() for _ in range(SIZE)], [row() for _ in range(8)], source.getrandbits(32))
    status, _ = run(
        packed, tmp_path, content, regions=source.choice((1, REGIONS)), chains=source.randrange(1, 8)
    )
    assert status in (0, 2)
