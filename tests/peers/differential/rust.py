"""The Rust crate as another device: built by cargo, fed by a pipe."""

import contextlib
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import attrs

from differential.script import (
    BASE,
    BLANK,
    PAGE,
    REGIONS,
    CompleteBatch,
    Decide,
    Enable,
    Gather,
    Pop,
    PopOne,
    Registers,
    Step,
    Store,
)

ROOT = Path(__file__).resolve().parents[3]
CRATE = ROOT / "tests" / "peers" / "queue"
OLDEST_CARGO = (1, 78)  # reads version 4 of Cargo.lock

_U32 = struct.Struct("<I")
_SEGMENT = struct.Struct("<QI?")
_CHAIN = struct.Struct("<HBI")
_AFTER = struct.Struct("<HHH")  # next_avail, next_used, bytes of the used ring that follow


class MissingPeerError(Exception):
    """There is no peer here, and why."""


class RustError(NamedTuple):
    """The crate answered a step with an error: InvalidAvailRingIndex, or another."""

    index: bool


class RustChain(NamedTuple):
    """A chain as the crate's iterator yields it; whether Reader and Writer could be made."""

    head: int
    segments: tuple[tuple[int, int, bool], ...]
    reader: bool
    writer: bool


RustOutcome = tuple[RustChain, ...] | bytes | bool | RustError | None


class RustRecord(NamedTuple):
    """As `Record`, of the crate."""

    outcome: RustOutcome
    next_avail: int
    next_used: int
    used_ring: bytes


@attrs.frozen
class RustTrace:
    """As `Trace`, of the crate."""

    valid: bool
    records: list[RustRecord]
    dirty: tuple[int, ...]
    memory: bytes


def build() -> Path:
    """The peer, built when its sources are newer.

    Raises:
        MissingPeerError: There is no cargo, or it cannot get the crates.
        RuntimeError: It does not compile.
    """
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if cargo is None:
        raise MissingPeerError("the Rust peer needs cargo, which is not installed")
    target = ROOT / "build" / "peers"
    command = [
        cargo,
        "build",
        "--release",
        "--locked",
        "--quiet",
        "--manifest-path",
        str(CRATE / "Cargo.toml"),
    ]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    for offline in (["--offline"], []):  # what is in cargo's cache needs no network
        done = subprocess.run(
            [*command, *offline], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return target / "release" / "queue-peer"
        if "could not compile" in done.stderr:
            raise RuntimeError(done.stderr)
    raise MissingPeerError(f"the Rust peer's crates cannot be had: {done.stderr.strip()[-300:]}")


class Peer:
    """The running peer.

    Args:
        program: From `build`.
    """

    def __init__(self, program: Path) -> None:
        regions = [f"{base}:{size}" for base, size in REGIONS]
        self._process = subprocess.Popen(
            [str(program), *regions], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send(b"".join(BLANK[base - BASE : base - BASE + size] for base, size in REGIONS))

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # whoever reads the answer finds out
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def play(self, scripts: Sequence[tuple[bytes, Sequence[Step]]]) -> list[RustTrace]:
        """Play encoded scripts; beside each the steps that are in it.

        Raises:
            RuntimeError: The peer ended.
        """
        frames = b"".join(_U32.pack(len(code)) + code for code, _ in scripts)
        # In a thread: the peer answers each script before it reads the next, and pipes are short.
        sender = threading.Thread(target=self._send, args=(frames,))
        sender.start()
        answers = [self._receive() for _ in scripts]
        sender.join()
        return [decode(data, steps) for data, (_, steps) in zip(answers, scripts, strict=True)]

    def _receive(self) -> bytes:
        assert self._process.stdout is not None
        head = self._process.stdout.read(4)
        data = self._process.stdout.read(_U32.unpack(head)[0]) if len(head) == 4 else b""
        if not data:
            raise RuntimeError(f"the Rust peer ended with status {self._process.wait()}")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate()


def decode(data: bytes, steps: Sequence[Step]) -> RustTrace:
    """Read a trace; the steps say which form each record has."""
    valid, at, records = data[0] == 1, 1, []
    for step in steps if valid else ():
        if type(step) is Store:
            continue
        outcome, at = _outcome(step, data, at)
        next_avail, next_used, size = _AFTER.unpack_from(data, at)
        at += _AFTER.size
        records.append(RustRecord(outcome, next_avail, next_used, data[at : at + size]))
        at += size
    mask = int.from_bytes(data[at : at + 8], "little")
    pages = [page for base, length in REGIONS for page in range(base, base + length, PAGE)]
    dirty = tuple(page for bit, page in enumerate(pages) if mask >> bit & 1)
    memory = data[at + 8 :]
    assert len(memory) == sum(size for _, size in REGIONS), "a trace of another length than its steps"
    return RustTrace(valid, records, dirty, memory)


def _outcome(step: Step, data: bytes, at: int) -> tuple[RustOutcome, int]:
    """The outcome at an offset, and the offset behind it."""
    status = data[at]
    match step:
        case Pop() | PopOne():
            return _chains(data, at)
        case Gather():
            end = at + 5 + _U32.unpack_from(data, at + 1)[0]
            return (data[at + 5 : end] if status == 0 else RustError(index=False)), end
        case Decide() | Enable() | CompleteBatch() | Registers() if status == 0:
            return data[at + 1] == 1, at + 2
    return (None if status == 0 else RustError(index=status == 1)), at + 2


def _chains(data: bytes, at: int) -> tuple[RustOutcome, int]:
    status, count = data[at], int.from_bytes(data[at + 1 : at + 3], "little")
    at += 3
    if status:
        return RustError(index=status == 1), at
    chains = []
    for _ in range(count):
        head, streams, segments = _CHAIN.unpack_from(data, at)
        at += _CHAIN.size
        end = at + _SEGMENT.size * segments
        chains.append(
            RustChain(head, tuple(_SEGMENT.iter_unpack(data[at:end])), streams & 1 != 0, streams & 2 != 0)
        )
        at = end
    return tuple(chains), at
