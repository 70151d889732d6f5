"""Commands that end: one that takes too long says where it stands, and its process group with it."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

GRACE = 20.0  # seconds in which a process at its limit may print the stacks of its threads
POLL = 0.05


@attrs.frozen
class Ended:
    """What came of a command.

    Attributes:
        status: As `subprocess` has it.
        output: What it wrote to standard output.
        errors: What it wrote to standard error; if it was ended at its limit the last line says so.
    """

    status: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        """All that it wrote."""
        return self.output + self.errors


def run(
    command: Sequence[str | Path], *, limit: float, cwd: Path, env: Mapping[str, str], echo: bool = False
) -> Ended:
    """Run a command in a session of its own, without input.

    At its limit it gets SIGABRT, at which an interpreter with faulthandler (as pytest's is) prints the stacks
    of all its threads. In the end its process group is killed; what has begun a session of its own is not in
    it. What it writes goes to files: pipes would be read for as long as any process that the command left
    holds them.

    Args:
        command: The program and its arguments.
        limit: Seconds, more than 0.
        cwd: Working directory.
        env: The whole environment.
        echo: Also print what it writes, as it comes.
    """
    with ExitStack() as stack:
        written = [stack.enter_context(tempfile.NamedTemporaryFile()) for _ in range(2)]
        streams = [stack.enter_context(Path(file.name).open(errors="replace")) for file in written]

        def ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
            deadline = time.monotonic() + seconds
            while True:
                # Left a zombie: until it is waited for, no other process group gets its number.
                over = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
                for stream in streams if echo else ():
                    print(stream.read(), end="", flush=True)
                if over or time.monotonic() >= deadline:
                    return over
                time.sleep(POLL)

        process = stack.enter_context(
            subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=written[0],
                stderr=written[1],
                start_new_session=True,
            )
        )
        try:
            late = not ended(process, limit)
            if late:
                os.kill(process.pid, signal.SIGABRT)
                ended(process, GRACE)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        for stream in streams:
            stream.seek(0)
        output, errors = (stream.read() for stream in streams)
    return Ended(status, output, f"{errors}\nended at its limit of {limit:g} s\n" if late else errors)
