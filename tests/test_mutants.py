"""Historic defects, planted in the twin and in the C core, are found by the state machine as it stands."""

import os
import re
import subprocess

import mutants
import pytest
import twin_mutants

LONG = os.environ.get("VMM_HYPOTHESIS_PROFILE") == "long"
EVERY = mutants.all_names()
# Cheap ones of each kind and format; profile `long` hunts all of them, with five seeds each.
SOME = ["twin:total", "twin:packed-id-is-slot", "c:USED_ZERO", "c:PACKED_USED_STATE"]
CASES = [(name, seed) for name in EVERY for seed in range(mutants.SEEDS)] if LONG else [(n, 0) for n in SOME]


@pytest.mark.timeout(1200)  # the budget is processor time, and others may use the machine
@pytest.mark.parametrize(("name", "seed"), CASES)
def test_found_and_shrunk(name, seed):
    """From an empty database, within the budget, to a few steps; what is not mutated survives it."""
    result = mutants.hunt_by_name(name, seed, mutants.SECONDS)
    assert mutants.verdict(name, result, mutants.SECONDS) == "", result


def test_a_verdict_names_what_is_wrong():
    """Not found, too long, found where nothing is."""
    found = {"found": "AssertionError", "steps": 6}
    assert mutants.verdict("c:LOOP", found, 1) == ""
    assert mutants.verdict("c:LOOP", found | {"steps": 7}, 1) == "7 steps, more than 6"
    assert mutants.verdict("c:LOOP", {"found": None}, 1) == "not found in 1 s"
    assert mutants.verdict("c:", found, 1) == "unmutated, but AssertionError"
    assert mutants.verdict("twin:", {"found": None}, 1) == ""


@pytest.mark.parametrize("name", twin_mutants.MUTANTS)
def test_mutants_of_the_twin_fit_its_source(name):
    """Each replacement applies, and the result is another class than the twin."""
    assert twin_mutants.load(name) is not twin_mutants.load("")


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
