"""The command ``vmm-testhost``."""

import argparse
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

from ._cache import say
from ._errors import EmulatedHostError, HostTimeoutError
from ._run import prepare, run

EPILOG = """\
examples:
  vmm-testhost -- uname -a                       a command in a machine with a complete /dev/kvm
  vmm-testhost                                   a shell in it
  vmm-testhost -- python -m pytest -m kvm_full   this virtual environment, this checkout, same paths
  vmm-testhost --results out -- sh -c 'dmesg > $VMM_TESTHOST_RESULTS/dmesg'
  vmm-testhost --writable disk.img -- ./my-vmm disk.img
  vmm-testhost --prepare                         fetch everything now; offline from then on

All files of this machine are visible inside at the same paths. What the command writes stays in the host's
memory and is lost, except below --results and --writable. There is no network but loopback.

exit status: the command's own; 124 after --timeout; 125 when the host could not start or crashed;
126/127 when the command cannot be executed/found; 128+N when signal N ended it (130: Ctrl-C).
"""


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    p = argparse.ArgumentParser(
        prog="vmm-testhost",
        usage="vmm-testhost [options] [--] [COMMAND [ARGUMENT...]]",
        description="Run a command in an emulated machine that has a complete KVM (QEMU, nested SVM), as root.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument(
        "--results",
        metavar="DIR",
        help="folder (created) that keeps what is written, also in $VMM_TESTHOST_RESULTS",
    )
    p.add_argument(
        "--writable",
        metavar="PATH",
        action="append",
        default=[],
        help="existing file or folder that keeps what is written, at the same path (repeatable)",
    )
    p.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="pass one more variable (repeatable)",
    )
    p.add_argument("--cwd", metavar="DIR", help="working directory inside (default: this one)")
    p.add_argument(
        "--memory",
        metavar="MIB",
        type=int,
        default=3072,
        help="RAM of the host in MiB (default: %(default)s)",
    )
    p.add_argument("--cpus", metavar="N", type=int, default=2, help="CPUs of the host (default: %(default)s)")
    p.add_argument(
        "--timeout", metavar="SECONDS", type=float, help="end the run after this time, boot included"
    )
    p.add_argument("--no-tty", action="store_true", help="no terminal for the command even if we have one")
    p.add_argument(
        "--qemu-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="one more argument for QEMU (repeatable; write --qemu-arg=-device)",
    )
    p.add_argument("--prepare", action="store_true", help="only fetch and build what a launch needs")
    p.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (see the epilog of ``--help``)."""
    args = parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    try:
        if args.prepare and not command:
            prepare()
            return 0
        terminal = not args.no_tty and os.isatty(0) and os.isatty(1)
        with _raw_terminal() if terminal else contextlib.nullcontext():
            return run(
                command or [os.environ.get("SHELL", "/bin/sh")],
                cwd=args.cwd,
                env=dict(_variable(item) for item in args.env),
                results=args.results,
                writable=args.writable,
                stdin=0,
                tty=terminal,
                timeout=args.timeout,
                memory=args.memory,
                cpus=args.cpus,
                extra_qemu_args=args.qemu_arg,
                forward_signals=True,
            ).returncode
    except HostTimeoutError as err:
        say(str(err))
        return 124
    except (EmulatedHostError, ValueError, OSError) as err:
        say(str(err))
        return 125


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    return name, value if equals else os.environ.get(name, "")


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


if __name__ == "__main__":
    sys.exit(main())
