"""The command ``vmm-testhost``."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from ._arch import ARCHITECTURES, DEFAULT
from ._cache import say
from ._errors import EmulatedHostError, HostTimeoutError
from ._run import prepare, run

EPILOG = """\
examples:
  vmm-testhost -- uname -a                       a command in a machine with a complete /dev/kvm
  vmm-testhost                                   a shell in it
  vmm-testhost -- python -m pytest -m kvm_full   this virtual environment, this checkout, same paths
  vmm-testhost --arch aarch64 -- python3 -V      an AArch64 machine with EL2; Debian's arm64 programs
  vmm-testhost --results out -- sh -c 'dmesg > $VMM_TESTHOST_RESULTS/dmesg'
  vmm-testhost --writable disk.img -- ./my-vmm disk.img
  vmm-testhost --prepare                         fetch everything now; offline from then on

All files of this machine are visible inside at the same paths. What the command writes stays in the host's
memory and is lost, except below --results and --writable. There is no network but loopback.

exit status: the command's own; 124 after --timeout; 125 when the host could not start or crashed;
126/127 when the command cannot be executed/found; 128+N when signal N ended it (130: Ctrl-C).
"""

OPTIONS: dict[str, dict[str, Any]] = {
    "--arch": {
        "choices": sorted(ARCHITECTURES),
        "default": DEFAULT.name,
        "help": "architecture of the host (default: %(default)s)",
    },
    "--results": {
        "metavar": "DIR",
        "help": "folder (created) that keeps what is written, also in $VMM_TESTHOST_RESULTS",
    },
    "--writable": {
        "metavar": "PATH",
        "action": "append",
        "default": [],
        "help": "existing file or folder that keeps what is written, at the same path (repeatable)",
    },
    "--env": {
        "metavar": "NAME[=VALUE]",
        "action": "append",
        "default": [],
        "help": "pass one more variable (repeatable)",
    },
    "--cwd": {"metavar": "DIR", "help": "working directory inside (default: this one)"},
    "--memory": {
        "metavar": "MIB",
        "type": int,
        "default": 3072,
        "help": "RAM of the host in MiB (default: %(default)s)",
    },
    "--cpus": {"metavar": "N", "type": int, "default": 1, "help": "CPUs of the host (default: %(default)s)"},
    "--timeout": {
        "metavar": "SECONDS",
        "type": float,
        "help": "end the run after this time, boot included",
    },
    "--no-tty": {
        "action": "store_true",
        "help": "no terminal for the command, even when stdin and stdout are one",
    },
    "--append": {"metavar": "ARGS", "default": "", "help": "added to the host's kernel command line"},
    "--qemu-arg": {
        "metavar": "ARG",
        "action": "append",
        "default": [],
        "help": "one more argument for QEMU (repeatable; write --qemu-arg=-device)",
    },
    "--prepare": {"action": "store_true", "help": "only fetch and build what a launch needs"},
}


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    p = argparse.ArgumentParser(
        prog="vmm-testhost",
        usage="vmm-testhost [options] [--] [COMMAND [ARGUMENT...]]",
        description="Run a command, as root, in an emulated machine that has a complete KVM.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag, settings in OPTIONS.items():
        p.add_argument(flag, **settings)
    p.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (see the epilog of ``--help``)."""
    args = parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    try:
        if args.prepare and not command:
            prepare(args.arch)
            return 0
        return run(
            command or [_shell(args.arch)],
            arch=args.arch,
            cwd=args.cwd,
            env=dict(_variable(item) for item in args.env),
            results=args.results,
            writable=args.writable,
            stdin=0,
            tty=not args.no_tty and os.isatty(0) and os.isatty(1),
            timeout=args.timeout,
            memory=args.memory,
            cpus=args.cpus,
            kernel_args=args.append,
            extra_qemu_args=args.qemu_arg,
            forward_signals=True,
        ).returncode
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except HostTimeoutError as err:
        say(str(err))
        return 124
    except (EmulatedHostError, ValueError, OSError) as err:
        say(str(err))
        return 125


def _shell(arch: str) -> str:
    return os.environ.get("SHELL", "/bin/sh") if arch == DEFAULT.name else "/bin/sh"


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    return name, value if equals else os.environ.get(name, "")


if __name__ == "__main__":
    sys.exit(main())
