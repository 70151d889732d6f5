"""The command `vmm`: `run`, `doctor`, `cpuid`, `testhost`."""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import vmm_reference  # whose names load when they are used
from vmm_reference._arch import CONSOLE
from vmm_reference._config import (
    MEMORY_KEYS,
    PLATFORM_KEYS,
    RNG_KEYS,
    BootProtocol,
    MemoryConfig,
    PlatformConfig,
    RngConfig,
    SerialConfig,
    VmConfig,
)
from vmm_reference._config_cpus import CPUS_KEYS, CpusConfig
from vmm_reference._config_keys import DISK_KEYS, EVENT_MONITOR_KEYS, NET_KEYS
from vmm_reference._errors import ConfigError, VmmError
from vmm_reference._grammar import meant

_T = TypeVar("_T")

USAGE = 2  # exit status of a wrong option and of a host that cannot do what was asked

_EPILOG = """\
A first run (a Debian kernel, its console on this terminal, Ctrl-A x to leave):
  vmm run --kernel /boot/vmlinuz --initramfs initrd.img --cmdline "console=ttyS0 quiet" \\
          --memory size=1G --disk path=root.raw
Two CPUs, a root disk and one that is only read, console and events in files:
  vmm run --kernel vmlinuz --initramfs initrd.img --cmdline "console=ttyS0 root=/dev/vda ro" \\
          --cpus boot=2 --disk path=root.raw path=data.raw,readonly=on \\
          --serial file=console.log --event-monitor path=events.json
No kernel at hand: `make boot` in the toolkit's repository fetches one and boots it.

Sizes take K, M, G, T; flags are on or off; values with commas stand in double quotes.
On a machine whose /dev/kvm is missing or cannot run a stock kernel, the guest runs in an emulated
host (QEMU in software): see --host, and `vmm doctor` for what this machine can do.

Exit status: 0 the guest powered off; 3 it asked for a reset (reboot; also a panic with panic=-1 and
no pvpanic driver); 4 it crashed (triple fault); 5 the VMM failed; 6 its kernel panicked (pvpanic);
2 wrong options or an unfit host; 130 Ctrl-A x or SIGINT; 143 SIGTERM; 129 SIGHUP.
"""


def _one_line(text: str) -> str:
    """Return `text` fit for a terminal, whatever the names in it hold."""
    line = " ".join(text.splitlines())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


class _Help(argparse.HelpFormatter):
    """As wide as the terminal; argparse, which makes one for each option, would import shutil to ask it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class _RawHelp(_Help, argparse.RawDescriptionHelpFormatter):
    """With the lines of description and epilog as they are."""


def _columns() -> int:
    try:
        columns = int(os.environ.get("COLUMNS", "0"))
        if columns <= 0:
            columns = os.get_terminal_size().columns
    except (OSError, ValueError):  # no terminal
        columns = 0
    return columns if columns > 0 else 80  # a terminal that nobody told its size has 0


class _Parser(argparse.ArgumentParser):
    """Errors in one line with the cure, exit status 2, options never abbreviated."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - whatever argparse takes
        super().__init__(allow_abbrev=False, **{"formatter_class": _Help, **options})

    def error(self, message: str) -> NoReturn:
        """End with one line and the status for wrong usage."""
        self.exit(USAGE, f"vmm: {_one_line(message)}; see `{self.prog} --help`\n")


class _Command:
    """A sub-command's parser, put together when it is asked for: a run needs one of them."""

    def __init__(self, fill: Callable[[_Parser], None] | None = None, **options: Any) -> None:  # noqa: ANN401
        self._fill, self._options = fill, options

    def parser(self) -> _Parser:
        parser = _Parser(**self._options)
        if self._fill is not None:
            self._fill(parser)
        return parser

    def parse_known_args(
        self, words: Sequence[str] | None, namespace: argparse.Namespace | None
    ) -> tuple[argparse.Namespace, list[str]]:
        return self.parser().parse_known_args(words, namespace)


class _Once(argparse.Action):
    """An option that may be given once."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, f"_{self.dest}_given", False):
            parser.error(f"{option_string}: given twice")
        setattr(namespace, f"_{self.dest}_given", True)
        setattr(namespace, self.dest, values)


class _Version(argparse.Action):
    """Print the version, which takes longer to find than all options to read."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - argparse's signature
        values: object,  # noqa: ARG002
        option_string: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"vmm {version('vmm-reference')}")
        parser.exit()


def _keys(keys: dict[str, str], default: str = "") -> str:
    text = "; ".join(f"{key}= {meaning}" for key, meaning in keys.items())
    return f"{text} (default: {default})" if default else text


def _fill_run(run: _Parser) -> None:
    add = run.add_argument
    add("-V", "--version", action=_Version, nargs=0, help="show program's version number and exit")
    what = "bzImage or ELF vmlinux (x86-64), Image (AArch64)"
    add("--kernel", required=True, action=_Once, metavar="PATH", help=what)
    add("--initramfs", action=_Once, metavar="PATH", help="initial RAM disk (default: none)")
    add(
        "--cmdline",
        action=_Once,
        default=f"console={CONSOLE}",
        metavar="TEXT",
        help="kernel command line (default: %(default)s)",
    )
    add("--cpus", action=_Once, default="", metavar="boot=N", help=_keys(CPUS_KEYS, "boot=1"))
    add("--memory", action=_Once, default="", metavar="size=SIZE", help=_keys(MEMORY_KEYS, "size=512M"))
    add("--disk", nargs="+", action="extend", default=[], metavar="path=PATH", help=_keys(DISK_KEYS, "none"))
    add("--net", nargs="+", action="extend", default=[], metavar="tap=NAME", help=_keys(NET_KEYS, "none"))
    add("--rng", action=_Once, default="", metavar="src=PATH", help=_keys(RNG_KEYS, "src=/dev/urandom"))
    add("--platform", action=_Once, default="", metavar="irqchip=WHERE", help=_keys(PLATFORM_KEYS))
    add(
        "--serial",
        action=_Once,
        default="tty",
        metavar="WHERE",
        help="the console: off, null, tty, pty, file=PATH, socket=PATH (default: %(default)s)",
    )
    add("--event-monitor", action=_Once, metavar="path=PATH", help=_keys(EVENT_MONITOR_KEYS, "none"))
    add("--trace", action=_Once, metavar="PATH", help="a trace of the vCPUs' exits, for ui.perfetto.dev")
    add(
        "--boot-protocol",
        action=_Once,
        default="auto",
        choices=[p.value for p in BootProtocol],
        help="entry of the kernel: auto takes the fastest the image offers (default)",
    )
    add(
        "--host",
        action=_Once,
        default="auto",
        choices=["auto", "kvm", "emulated"],
        help="where it runs: this machine's KVM, an emulated host, or auto (default): as `vmm doctor` says",
    )
    add(
        "-v",
        action="count",
        default=0,
        dest="verbose",
        help="log progress (-v) or everything (-vv) on stderr",
    )


_CPUID_EPILOG = """\
Will a guest be able to move from this host to another? Compare what they can show:
  vmm cpuid dump >host-a.txt          (on each of them; `cpuid -1 -r` of Debian's package makes one as well)
  vmm cpuid diff host-a.txt host-b.txt
Give guests of both the same processor: `vmm run --cpus boot=2,template=t2`, or a template of your own.
What would the guest's processors answer?
  vmm cpuid dump --template t2 --topology 2:2:1:1 --leaves-only >guest.txt; cpuid -f guest.txt

FILE is a dump, or the word host: what this machine's KVM can show a guest (the default).
Exit status: 0; of diff 1 when there are differences; 2 wrong options, files that are none, no KVM.
"""


def _fill_cpuid(cpuid: _Parser) -> None:
    verbs = cpuid.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=_Parser)
    dump = verbs.add_parser("dump", help="print every leaf and MSR, to be kept or read by other programs")
    dump.add_argument("file", nargs="?", default="host", metavar="FILE", help="a dump, or host (default)")
    dump.add_argument("--template", metavar="NAME", help="as guests with this template see it")
    dump.add_argument("--topology", metavar="T:C:D:S", help="as each processor of such a machine sees it")
    dump.add_argument(
        "--leaves-only", action="store_true", help="without MSRs, as the program cpuid reads it"
    )
    show = verbs.add_parser("show", help="print the features by name")
    show.add_argument("file", nargs="?", default="host", metavar="FILE", help="a dump, or host (default)")
    compare = verbs.add_parser("diff", help="print in what two processors differ")
    compare.add_argument("first", metavar="FILE", help="a dump, or host")
    compare.add_argument(
        "second", nargs="?", default="host", metavar="FILE", help="a dump, or host (default)"
    )
    verbs.add_parser("templates", help="list the built-in templates")


def _fill_doctor(doctor: _Parser) -> None:
    what = "how to print the findings"
    doctor.add_argument("--format", choices=["text", "json"], default="text", help=what)


def _parser() -> _Parser:
    parser = _Parser(
        prog="vmm",
        description="A small virtual machine monitor built from the toolkit's packages.",
        epilog="Begin with `vmm doctor`: it says where guests will run. `vmm run --help` shows a first run.",
    )
    parser.add_argument(
        "-V", "--version", action=_Version, nargs=0, help="show program's version number and exit"
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=cast("type[_Parser]", _Command)
    )
    commands.add_parser(
        "run",
        help="boot a kernel",
        description="Boot a Linux kernel in a virtual machine of its own.",
        epilog=_EPILOG,
        formatter_class=_RawHelp,
        fill=_fill_run,
    )
    commands.add_parser(
        "doctor",
        help="measure what this machine's KVM can do",
        description="Measure what this machine's KVM really does (about a second), and say what runs where: "
        "stock kernels on kvm or in the emulated host, tiny guests on any KVM.",
        epilog="Lines with ok need nothing; a note is followed by its cure, if there is one. The exit status "
        "is 0 whatever is found; programs read --format json.",
        fill=_fill_doctor,
    )
    commands.add_parser(
        "cpuid",
        help="what guests see of this processor; compare two hosts",
        description="Print and compare what processors say of themselves: CPUID leaves and feature MSRs.",
        epilog=_CPUID_EPILOG,
        formatter_class=_RawHelp,
        fill=_fill_cpuid,
    )
    # Only for the list of commands: `main` hands its words on unread.
    commands.add_parser(
        "testhost", help="run a command in the emulated host (see `vmm testhost --help`)", add_help=False
    )
    return parser


# What a namespace has besides long options: commands, their operands, and -v.
_NO_OPTIONS = frozenset({"command", "what", "file", "first", "second", "verbose"})


def _meant_option(word: str, arguments: argparse.Namespace) -> str:
    if not word.startswith("--"):
        return ""
    options = [
        name.replace("_", "-")
        for name in vars(arguments)
        if not name.startswith("_") and name not in _NO_OPTIONS
    ]
    return meant(word[2:].partition("=")[0], options, "--")


def config_from(arguments: argparse.Namespace) -> VmConfig:
    """Return the machine that `vmm run`'s arguments describe.

    Raises:
        ConfigError: an option is wrong.
    """

    def parse(kind: Callable[[str], _T], text: str, default: _T) -> _T:
        return kind(text) if text else default

    for option in ("kernel", "initramfs", "trace"):
        if getattr(arguments, option) == "":
            raise ConfigError(f"--{option}", "the path is empty")
    monitor: str | None = arguments.event_monitor
    return VmConfig(
        kernel=Path(arguments.kernel),
        initramfs=Path(arguments.initramfs) if arguments.initramfs else None,
        cmdline=arguments.cmdline,
        boot_protocol=BootProtocol(arguments.boot_protocol),
        cpus=parse(CpusConfig.parse, arguments.cpus, CpusConfig()),
        memory=parse(MemoryConfig.parse, arguments.memory, MemoryConfig()),
        disks=tuple(vmm_reference.DiskConfig.parse(text) for text in arguments.disk),
        nets=tuple(vmm_reference.NetConfig.parse(text) for text in arguments.net),
        serial=SerialConfig.parse(arguments.serial),
        rng=parse(RngConfig.parse, arguments.rng, RngConfig()),
        platform=parse(PlatformConfig.parse, arguments.platform, PlatformConfig()),
        event_monitor=None if monitor is None else vmm_reference.EventMonitorConfig.parse(monitor),
        trace=Path(arguments.trace) if arguments.trace else None,
    )


def _run(arguments: argparse.Namespace) -> int:
    # Imported late: `vmm --help` and a refused option need none of it.
    from vmm_reference import _files, _host, _logging, _session  # noqa: PLC0415

    _logging.set_up(arguments.verbose)
    config = config_from(arguments)
    _files.check_inputs(config)
    _files.check_memory(config)
    choice = _host.choose(arguments.host)
    if arguments.host == "auto":
        print(f"vmm: host: {choice.host} ({choice.why})", file=sys.stderr)
    if choice.host == "kvm":
        return _session.run(config)
    from vmm_reference import _emulated  # noqa: PLC0415

    gc.enable()
    return _emulated.run(config, verbose=arguments.verbose)


def _hold_standard_streams() -> None:
    """Give descriptors 0, 1 and 2 to /dev/null where they are closed, before a device gets them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `vmm` with `argv` (default: this process's) and return its exit status."""
    _hold_standard_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["testhost"]:
        from vmm_testhost import main as testhost  # noqa: PLC0415

        gc.enable()
        return testhost(words[1:])
    parser = _parser()
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{_meant_option(unknown[0], arguments)}")
    try:
        if arguments.command == "doctor":
            from vmm_reference import _doctor  # noqa: PLC0415

            return _doctor.main(arguments.format)
        if arguments.command == "cpuid":
            from vmm_reference import _cpuid  # noqa: PLC0415

            return _cpuid.main(arguments)
        return _run(arguments)
    except VmmError as error:
        print(f"vmm: {_one_line(str(error))}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
