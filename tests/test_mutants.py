"""Historic defects, planted in the twin and in the C core, are found by the state machine as it stands."""

import os
import re
import subprocess

import mutants
import pytest
import twin_mutants
from vmm_testhost.pytest_plugin import LONG

# Cheap ones of each kind and format, one seed each; `make test-long` hunts all of them with five.
SOME = ["twin:total", "twin:packed-id-is-slot", "twin:attach-count", "c:USED_ZERO", "c:PACKED_USED_STATE"]
NAMES = mutants.all_names() if LONG else [*SOME, "c:", "twin:"]
SEEDS = range(mutants.SEEDS if LONG else 1)
TABLE = mutants.ROOT / "docs" / "virtio-queue-defects.md"


@pytest.mark.timeout(3600)  # the budget is processor time, and others may use the machine
@pytest.mark.parametrize("name", NAMES)
def test_found_and_shrunk(name):
    """From an empty database, within the budget, to a few steps; what is not mutated survives it."""
    seconds = mutants.SECONDS if LONG or not name.endswith(":") else 3.0
    results = mutants.hunt_by_name(name, SEEDS, seconds)
    assert len(results) == len(SEEDS)
    wrong = {seed: mutants.verdict(name, results[seed], seconds) for seed in SEEDS}
    assert not any(wrong.values()), (wrong, results)
    assert all(result["examples"] for result in results)


def test_a_verdict_names_what_is_wrong():
    """Not found, too long, found where nothing is."""
    found = {"found": "AssertionError", "steps": 6, "seconds": 0.9}
    assert mutants.verdict("c:LOOP", found, 1) == ""
    assert mutants.verdict("c:LOOP", found | {"steps": 7}, 1) == "7 steps, more than 6"
    assert mutants.verdict("c:LOOP", found | {"seconds": 1.1}, 1) == "1.1 s, more than 1"
    assert mutants.verdict("c:LOOP", {"found": None}, 1) == "not found in 1 s"
    assert mutants.verdict("c:", found, 1) == "unmutated, but AssertionError"
    assert mutants.verdict("twin:", {"found": None}, 1) == ""


@pytest.mark.parametrize("name", twin_mutants.MUTANTS)
def test_mutants_of_the_twin_fit_its_source(name):
    """Each replacement applies, and the result is another class than the twin."""
    assert twin_mutants.load(name) is not twin_mutants.load("")


def test_table_names_every_mutant():
    """What each stands for is written down, once."""
    lines = TABLE.read_text().splitlines()
    rows = [line.split("|") for line in lines if line.startswith("| ") and "`" in line]
    twin, core = ([row[column].strip(" `") for row in rows if row[column].strip()] for column in (1, 2))
    assert sorted(twin) == sorted(twin_mutants.MUTANTS)
    assert sorted(core) == sorted(mutants.c_mutants())
    assert all(row[3].strip() and row[4].strip() for row in rows)
    both = [row for row in rows if row[1].strip() and row[2].strip()]
    assert len(both) >= 12


def test_switches_of_the_core_are_all_planted():
    """Every defect has a number of its own and a place in the code; without a switch none is left."""
    numbers = mutants.c_mutants()
    assert sorted(numbers.values()) == list(range(1, len(numbers) + 1))
    sources = [*mutants.PACKAGE.glob("csrc/core.c"), *mutants.PACKAGE.glob("csrc/*.h")]
    used = set().union(*(re.findall(r"\bMUTANT\((\w+), ", source.read_text()) for source in sources))
    assert used - {"name"} == set(numbers)
    command = [os.environ.get("CC", "gcc"), "-std=c11", "-E", "-P", "core.c"]
    text = subprocess.run(command, cwd=mutants.PACKAGE / "csrc", capture_output=True, text=True, check=True)
    assert "MUTANT" not in text.stdout
    assert "VQ_MUTANT" not in (mutants.PACKAGE / "setup.py").read_text()
