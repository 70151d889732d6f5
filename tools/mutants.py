"""Plant historic defects and measure how fast the state machine finds each.

Usage: python tools/mutants.py [--seeds N] [--seconds S] [--jobs N] [NAME...]

Prints a table: mutant, seed, seconds of processor time to find and shrink it (others may use the machine),
steps of the shrunk program. The defects of the C core are those of csrc/mutants.h, each compiled into a copy
of the package below build/mutants/; those of the twin are in tools/twin_mutants.py. "unmutated" must survive.
Exits 1 when a mutant survives, takes too long or is not shrunk to LIMIT steps. NAME: c:NESTED, twin:total, c.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "packages" / "virtio-queue"
CACHE = ROOT / "build" / "mutants"
LIMIT = 6  # steps of a shrunk program, the line that makes the trial included
SEEDS = 5
SECONDS = 60.0


def c_mutants() -> dict[str, int]:
    """Names and numbers of the defects that the C core can be compiled with."""
    text = (PACKAGE / "csrc" / "mutants.h").read_text()
    return {name: int(number) for name, number in re.findall(r"^#define VQ_MUTANT_(\w+) (\d+)", text, re.M)}


def build(number: int) -> Path:
    """A folder for PYTHONPATH with the package and its C core, which has this defect; 0: none.

    Raises:
        subprocess.CalledProcessError: It does not compile.
    """
    digest = hashlib.sha256(sys.version.encode())
    for source in sorted([*(PACKAGE / "csrc").iterdir(), *(PACKAGE / "src").rglob("*.py")]):
        digest.update(source.name.encode() + source.read_bytes())
    made = CACHE / f"{number}-{digest.hexdigest()[:16]}"
    if made.exists():
        return made
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        package = Path(scratch) / "tree" / "virtio_queue"
        shutil.copytree(
            PACKAGE / "src" / "virtio_queue", package, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
        sources = [file for file in (PACKAGE / "csrc").glob("*.c") if not file.name.endswith(".csrc.c")]
        flags = ["-std=c11", "-O1", "-fPIC", "-shared", "-DPy_LIMITED_API=0x030b0000"]
        flags += [f"-DVQ_MUTANT={number}"] if number else []
        include = [f"-I{sysconfig.get_paths()['include']}", f"-I{PACKAGE / 'csrc'}"]
        command = [os.environ.get("CC", "gcc"), *flags, *include, *sources, "-o", package / "_core.abi3.so"]
        subprocess.run(command, check=True)
        (Path(scratch) / "tree").rename(made)
    for old in CACHE.glob(f"{number}-*"):
        if old != made:
            shutil.rmtree(old, ignore_errors=True)
    return made


class EndOfHuntError(BaseException):
    """The budget is spent; not an Exception, which Hypothesis would take for a finding."""


def hunt(queue_class: type, seed: int, seconds: float) -> dict[str, object]:
    """Look for a failure of one implementation, from an empty database, by seed.

    Ends with the first failure and the program that is printed for it. Hypothesis' own shrinking, which also
    makes the arguments small, takes several times as long and is left out.

    Returns:
        found, seconds, steps, script, examples; `found` is None when there was none in time.
    """
    import hypothesis  # noqa: PLC0415 - only where it hunts
    from hypothesis.stateful import run_state_machine_as_test  # noqa: PLC0415
    from virtio_queue.testing.stateful import queue_machine  # noqa: PLC0415

    began = time.process_time()
    result: dict[str, object] = {"found": None, "steps": 0, "script": ""}
    examples = 0

    class Hunted(queue_machine(queue_class)):  # type: ignore[misc]
        def __init__(self) -> None:
            nonlocal examples
            super().__init__()
            examples += 1
            if time.process_time() - began > seconds:
                raise EndOfHuntError

    settings = hypothesis.settings(
        max_examples=10**9,
        stateful_step_count=12,
        database=None,
        deadline=None,
        phases=(hypothesis.Phase.generate,),
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Hunted), settings=settings)
    except (EndOfHuntError, hypothesis.errors.FlakyStrategyDefinition):
        pass  # the latter is what it calls an end at the first draw, where all runs before went on
    except Exception as error:  # noqa: BLE001 - whatever the defect leads to
        result["found"] = f"{type(error).__name__}: {error}"
        script = "\n".join(getattr(error, "__notes__", []))
        # The line that makes the trial is a step too.
        result["steps"] = sum(line.startswith(("trial = ", "trial.")) for line in script.splitlines())
        result["script"] = script
    return result | {"examples": examples, "seconds": round(time.process_time() - began, 1)}


def package_for(name: str) -> Path:
    """What `build` makes for a mutant; for one of the twin a copy too: nobody's editing may come between."""
    kind, _, defect = name.partition(":")
    return build(c_mutants()[defect] if kind == "c" and defect else 0)


def hunt_by_name(name: str, seeds: Sequence[int], seconds: float) -> list[dict[str, object]]:
    """Run a hunt with each seed in a process of its own; the keys are those of `hunt`."""
    env = dict(os.environ, PYTHONPATH=str(package_for(name)))
    command = [sys.executable, __file__, "--hunt", name, "--seconds", str(seconds)]
    command += ["--seed", *map(str, seeds)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise RuntimeError(f"hunting {name} with {seeds}: process ended with {done.returncode}: {last}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def verdict(name: str, result: dict[str, object], seconds: float) -> str:
    """Empty when all is as it should be, else what is wrong."""
    if name.endswith(":"):
        return "" if result["found"] is None else f"unmutated, but {result['found']}"
    if result["found"] is None:
        return f"not found in {seconds:g} s"
    steps, spent = result["steps"], result["seconds"]
    assert isinstance(steps, int)
    assert isinstance(spent, float)
    if spent > seconds:
        return f"{spent:g} s, more than {seconds:g}"
    return "" if 0 < steps <= LIMIT else f"{steps} steps, more than {LIMIT}"


def all_names() -> list[str]:
    """Every mutant, and the two unmutated implementations."""
    from twin_mutants import MUTANTS  # noqa: PLC0415

    return ["c:", "twin:", *(f"c:{name}" for name in c_mutants()), *(f"twin:{name}" for name in MUTANTS)]


def _hunt_here(name: str, seeds: Sequence[int], seconds: float) -> None:
    from twin_mutants import load  # noqa: PLC0415
    from virtio_queue import Queue  # noqa: PLC0415

    kind, _, defect = name.partition(":")
    queue_class = Queue if kind == "c" else load(defect)
    for seed in seeds:
        print(json.dumps(hunt(queue_class, seed, seconds)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--hunt", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, nargs="*", default=[0], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hunt:
        _hunt_here(options.hunt, options.seed, options.seconds)
        return 0
    wanted = [
        name
        for name in all_names()
        if not options.names or name in options.names or name.partition(":")[0] in options.names
    ]
    failures = 0
    seeds = range(options.seeds)
    for name in wanted:
        package_for(name)  # here, not in two threads at once
    print(f"{'mutant':30} {'seed':>4} {'seconds':>8} {'steps':>6} {'examples':>9}")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(lambda name: hunt_by_name(name, seeds, options.seconds), wanted)
        for name, results in zip(wanted, found, strict=True):
            label = name + "unmutated" if name.endswith(":") else name
            for seed, result in zip(seeds, results, strict=True):
                wrong = verdict(name, result, options.seconds)
                failures += bool(wrong)
                columns = f"{result['seconds']:>8} {result['steps'] or '-':>6} {result['examples']:>9}"
                print(f"{label:30} {seed:>4} {columns} {wrong}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
