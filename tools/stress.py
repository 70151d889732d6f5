"""Stress the wake-ups of virtqueues: a driver and a device, a thread each, that sleep whenever they may.

Usage: python tools/stress.py [--ring split|packed] [--mode flags|event] [--sleeps N] [--size N] [--seed N]
                              [--without POINT] [--thread]

Both are C (tests/wakeups/csrc), the device on the C core of virtio-queue; requests carry sequence numbers. A
wake-up is lost when nothing comes for --patience milliseconds. --without builds the core without one of its
ordering points (the comments `FENCE name` in its source), which must go wrong; --thread builds with
ThreadSanitizer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "packages/virtio-queue/csrc"
SOURCES = ROOT / "tests/wakeups/csrc"
CACHE = ROOT / "build/stress"
MODES = ("flags", "event")

FENCE = re.compile(r"FENCE ((?:[a-z-]+, )*[a-z-]+): (acquire|release|full)\b")
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", "-g")
# Without -fno-builtin gcc expands memcpy and the like in place, uninstrumented.
THREAD = (
    *("-fsanitize=thread", "-fno-builtin", "-fno-omit-frame-pointer", "-O1"),
    *("-include", str(SOURCES / "tsan.h")),
)
THREAD_EXIT = 66
THREAD_OPTIONS = f"halt_on_error=1:exitcode={THREAD_EXIT}"


def ordering_points(core: Path = CORE) -> dict[str, str]:
    """Name and kind (acquire, release, full) of each ordering point that the source of a core names."""
    found = {}
    for source in sorted(core.glob("*.[ch]")):
        for names, kind in FENCE.findall(source.read_text()):
            found |= dict.fromkeys(names.split(", "), kind)
    return found


RINGS = tuple(ring for ring in ("split", "packed") if f"{ring}-avail" in ordering_points())


def weakened(point: str, folder: Path) -> Path:
    """Copy the core into an empty folder, without one ordering point.

    The statement behind each comment that names it loses its fence, or its order.

    Raises:
        KeyError: The source names no such point.
        ValueError: There is nothing to weaken behind the comment.
    """
    if point not in ordering_points():
        raise KeyError(f"no ordering point {point}; there are {', '.join(ordering_points())}")
    for source in CORE.glob("*.[ch]"):
        text = source.read_text()
        for comment in reversed(list(FENCE.finditer(text))):
            if point not in comment[1].split(", "):
                continue
            start = text.index("*/", comment.end())
            end = text.index(";", start)
            statement = re.sub(r"__ATOMIC_(ACQUIRE|RELEASE)\b", "__ATOMIC_RELAXED", text[start:end])
            statement = statement.replace("__atomic_thread_fence(__ATOMIC_SEQ_CST)", "(void)0")
            if statement == text[start:end]:
                raise ValueError(
                    f"{source.name}: nothing to weaken behind FENCE {point}: {statement.strip()}"
                )
            text = text[:start] + statement + text[end:]
        (folder / source.name).write_text(text)
    return folder


def build(
    *, without: str = "", thread: bool = False, library: bool = False, flags: Sequence[str] = ()
) -> Path:
    """Compile the stress program, or find it in build/stress.

    Args:
        without: Ordering point to leave out of the core.
        thread: With ThreadSanitizer.
        library: Only the driver, as a shared object.
        flags: Further flags of the compiler.

    Raises:
        subprocess.CalledProcessError: It does not compile without warnings.
    """
    with tempfile.TemporaryDirectory() as scratch:
        core = weakened(without, Path(scratch)) if without else CORE
        options = [*STRICT, *(THREAD if thread else ("-O2",)), *flags]
        sources = [SOURCES / "driver.c"]
        sources += [] if library else [SOURCES / "stress.c", core / "core.c"]
        options += ["-shared", "-fPIC"] if library else []
        read = [*sorted(SOURCES.iterdir()), *([] if library else sorted(core.glob("*.[ch]")))]
        digest = hashlib.sha256(" ".join(options).encode())
        for source in read:
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        kept = CACHE / f"{'driver' if library else 'stress'}-{digest.hexdigest()[:16]}"
        if not kept.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            made = Path(scratch) / "made"
            command = [
                os.environ.get("CC", "gcc"),
                *options,
                f"-I{core}",
                *map(str, sources),
                "-o",
                str(made),
            ]
            subprocess.run(command, check=True)
            # In two steps: the scratch folder may be another file system, and another run may look for it.
            near = kept.with_suffix(f".{os.getpid()}")
            shutil.move(made, near)
            near.rename(kept)
        return kept


@attrs.frozen
class Report:
    """What a run came to.

    Attributes:
        status: Exit status: 0, 1 lost wake-up, 2 wrong data, 3 refused, 66 ThreadSanitizer found a race.
        driver_slept: Times that the driver had to wait for an interrupt.
        device_slept: Times that the device had to wait for a kick.
        sent: Requests, all of them answered when `status` is 0.
        wrong: What went wrong.
        errors: What came on stderr: reports of ThreadSanitizer, a traceback.
    """

    status: int
    driver_slept: int
    device_slept: int
    sent: int
    wrong: str
    errors: str


def run(
    program: Path | Sequence[str | Path],
    ring: str,
    mode: str,
    *,
    sleeps: int,
    size: int = 8,
    seed: int = 1,
    patience: int = 10_000,
    env: Mapping[str, str] = os.environ,
) -> Report:
    """Run it until both sides have slept so often.

    Args:
        program: From `build`, or a command that takes the same arguments.
        ring: One of RINGS.
        mode: One of MODES: notifications asked for by flags or by event index.
        sleeps: Of each side, from 1.
        size: Entries of the ring, 2 to 1024; split: a power of two.
        seed: Of the delays and of how much is sent at once.
        patience: Milliseconds until a wake-up counts as lost.
        env: Environment.
    """
    words = [ring, mode, size, sleeps, seed, patience]
    command = [program] if isinstance(program, Path) else [*program]
    env = {"TSAN_OPTIONS": THREAD_OPTIONS} | dict(env)
    done = subprocess.run([*command, *map(str, words)], env=env, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout) if done.stdout else {}
    counts = [int(result.get(name, 0)) for name in ("driver_slept", "device_slept", "sent")]
    return Report(done.returncode, *counts, str(result.get("wrong", "")), done.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ring", choices=RINGS, action="append", help="default: both")
    parser.add_argument("--mode", choices=MODES, action="append", help="default: both")
    shown = "(default: %(default)s)"
    parser.add_argument("--sleeps", type=int, default=100_000, metavar="N", help=f"of each side {shown}")
    parser.add_argument("--size", type=int, default=8, metavar="N", help=f"entries of the ring {shown}")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--patience", type=int, default=10_000, metavar="MS")
    parser.add_argument("--without", default="", choices=["", *ordering_points()], metavar="POINT")
    parser.add_argument("--thread", action="store_true", help="with ThreadSanitizer")
    options = parser.parse_args(arguments)
    program = build(without=options.without, thread=options.thread)
    worst = 0
    for ring in options.ring or RINGS:
        for mode in options.mode or MODES:
            report = run(
                program,
                ring,
                mode,
                sleeps=options.sleeps,
                size=options.size,
                seed=options.seed,
                patience=options.patience,
            )
            worst = max(worst, report.status)
            print(f"{ring} {mode}: {report}", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main())
