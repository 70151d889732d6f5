"""What a stranger types wrong: one line that names the value and the cure, status 2, nothing left behind."""

import gzip
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import zlib
from pathlib import Path

import pytest
from linux_loader.testing import LINUX_NOTE, SegmentSpec, build_bzimage, build_elf, pvh_note
from virtio_devices import DiskImage
from vmm_reference import DiskConfig, VmConfig, Vmm

PATIENCE = 120.0  # seconds for one refusal, on a machine where everything else is busy too
NOBODY = 65534
ENTRY = 0x10_0000
SPIN = b"\xeb\xfe"
# The command in a process of its own for each request, forked after the imports: they take most of its
# time, and where the interpreter is closed to others, a user without rights could not make them.
SERVER = """
import difflib, grp, json, os, pwd, sys, tempfile
from vmm_reference import _cli, _emulated, _files, _host, _logging, _session
_cli._parser()
for line in sys.stdin:
    words, cwd, environment, user, *streams = json.loads(line)
    if (child := os.fork()) == 0:
        os.setsid()
        for number, path in enumerate(streams):
            os.dup2(os.open(path, os.O_RDWR | os.O_NOCTTY), number)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", errors="backslashreplace")
        sys.argv[1:] = words
        sys.exit(_cli.main())
    print(child, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def elf(*, machine=62, bits=64):
    """Return a kernel of one jump to itself, perhaps of another processor."""
    if bits == 32:
        head = struct.pack(
            "<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, machine, 1, ENTRY, 52, 0, 0, 52, 32, 1, 40, 0, 0
        )
        return head + struct.pack("<8I", 1, 84, ENTRY, ENTRY, 2, 2, 7, 0) + SPIN
    image = bytearray(build_elf([SegmentSpec(ENTRY, SPIN)], entry=ENTRY, notes=[pvh_note(ENTRY)]))
    image[18:20] = machine.to_bytes(2, "little")
    return bytes(image)


def bomb():
    """Return a gzip file of 1 MiB that unpacks to more than 1 GiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * 1030


def make_files(folder):
    """Fill a folder with what the rows name."""
    linux = build_elf([SegmentSpec(16 << 20, SPIN)], entry=16 << 20, notes=[LINUX_NOTE])
    bzimage = build_bzimage()
    (folder / "kernel").write_bytes(elf())
    (folder / "linux").write_bytes(linux)
    (folder / "bzimage").write_bytes(bzimage)
    (folder / "short").write_bytes(bzimage[: len(bzimage) // 2])
    (folder / "shorter").write_bytes(bzimage[:0x210])
    (folder / "cut").write_bytes(linux[:-1])
    (folder / "empty").touch()
    (folder / "random").write_bytes(bytes((i * 73 + (i >> 3)) & 0xFF for i in range(100_000)))
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "arm64.elf").write_bytes(elf(machine=183))
    (folder / "arm64").write_bytes(bytes(0x38) + b"ARM\x64" + bytes(64))
    (folder / "i386").write_bytes(elf(machine=3, bits=32))
    (folder / "zeros.gz").write_bytes(gzip.compress(bytes(1 << 20)))
    (folder / "bomb.gz").write_bytes(bomb())
    (folder / "torn.gz").write_bytes(gzip.compress(linux)[:-20])
    (folder / "with, comma").write_bytes(elf())
    for name, size in (
        ("initrd", 1 << 16),
        ("big", 1 << 30),
        ("disk", 1 << 20),
        ("tiny", 511),
        ("closed", 4096),
    ):
        (folder / name).touch()
        os.truncate(folder / name, size)
    (folder / "closed").chmod(0o600)
    (folder / "kept").write_bytes(elf())
    (folder / "kept").chmod(0o444)
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "same").symlink_to("disk")
    (folder / "taken").touch()
    (folder / "loop").symlink_to("loop")


@pytest.fixture(scope="module")
def place():
    """Return a folder that anyone may look into."""
    with tempfile.TemporaryDirectory(prefix="vmm-bad-input-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def world(place):
    """Return a folder with the files that the rows name."""
    folder = place / "world"
    folder.mkdir()
    make_files(folder)
    with socket.socket(socket.AF_UNIX) as used:
        used.bind(str(folder / "socket"))
        used.listen()
        yield folder


def snapshot(*folders):
    """Return every name below with what tells a change."""
    found = {}
    for folder in folders:
        for path in Path(folder).rglob("*"):
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
    return found


class Server:
    """Runs the command, forked off one process that has it loaded."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, words, cwd, environment, user, streams):
        """Return process id and exit status."""
        request = [words, str(cwd), environment, user, *map(str, streams)]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return map(int, self._process.stdout.readline().split())

    def close(self):
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def server():
    """Return what runs the command."""
    server = Server()
    yield server
    server.close()


def as_typed(command, cwd, environment, streams):
    """Run the installed command without any short cut; return process id and exit status."""
    with open(streams[0], "rb") as into, open(streams[1], "wb") as out, open(streams[2], "wb") as err:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=into, stdout=out, stderr=err, start_new_session=True
        )
        return process.pid, process.wait(timeout=PATIENCE)


@pytest.fixture
def refused(world, place, server, tmp_path):
    """Return a function that runs `vmm`, checks all that refusals have in common, and returns the line."""
    scratch, home, tools = (place / name for name in ("scratch", "home", "tools"))
    for folder in (scratch, home, tools):
        folder.mkdir(exist_ok=True)
    launched, out, err = (tmp_path / name for name in ("launched", "out", "err"))
    # Whoever gets as far as an emulated host is found out, and does not wait for one.
    for tool in ("qemu-system-x86_64", "apt-get", "apt-cache"):
        (tools / tool).write_text(f"#!/bin/sh\ntouch {launched}\nexit 1\n")
        (tools / tool).chmod(0o755)
    environment = {**os.environ, "TMPDIR": str(scratch), "HOME": str(home)}
    environment |= {"PATH": f"{tools}:{os.environ['PATH']}"}
    environment.pop("XDG_CACHE_HOME", None)

    def run(words, user=0, command=None):
        words = [word.replace("{}", str(world)) for word in words]
        out.write_bytes(b"")
        err.write_bytes(b"")
        before = snapshot(world, scratch, home)
        terminal, inner = os.openpty()
        try:
            attributes = termios.tcgetattr(inner)
            streams = [os.ttyname(inner), out, err]
            if command is None:
                process, status = server.run(words, world, environment, user, streams)
            else:
                process, status = as_typed([*command, *words], world, environment, streams)
            assert termios.tcgetattr(inner) == attributes
        finally:
            os.close(inner)
            os.close(terminal)
        text = err.read_text()
        assert (status, out.read_bytes()) == (2, b""), text
        assert re.fullmatch(r"vmm: [^\n]+\n", text), text
        assert text.rstrip("\n").isprintable()
        with pytest.raises(ProcessLookupError):
            os.killpg(process, 0)
        assert snapshot(world, scratch, home) == before
        assert not launched.exists()
        return text.removeprefix("vmm: ").rstrip("\n")

    return run


K = ["--kernel", "{}/kernel"]
LONG = "x" * 4096
DEEP = "{}/" + "s" * 108
GIVE_KERNEL = "give the path of a bzImage or ELF vmlinux for x86-64$"
SIZE_CURE = r" is not a size; write a whole number with K, M, G or T, such as 3584M$"
KEYS = r"is not of the form key=value; `vmm run --help` lists the keys$"

ROWS = {
    # kernel
    "no kernel": ([], r"--kernel; see `vmm run --help`$"),
    "kernel missing": (
        ["--kernel", "{}/none"],
        rf"--kernel: .*/none: No such file or directory; {GIVE_KERNEL}",
    ),
    "kernel unnamed": (["--kernel", ""], r"--kernel: the path is empty"),
    "kernel in a file": (["--kernel", "{}/disk/k"], rf"--kernel: .*/disk/k: Not a directory; {GIVE_KERNEL}"),
    "kernel loops": (["--kernel", "{}/loop"], rf"--kernel: .*/loop: Too many levels .*; {GIVE_KERNEL}"),
    "kernel's name too long": (["--kernel", LONG], rf"--kernel: x+: File name too long; {GIVE_KERNEL}"),
    "kernel folder": (
        ["--kernel", "{}/folder"],
        rf"--kernel: .*/folder: is a folder, not a file; {GIVE_KERNEL}",
    ),
    "kernel fifo": (["--kernel", "{}/fifo"], rf"--kernel: .*/fifo: is a FIFO, not a file; {GIVE_KERNEL}"),
    "kernel socket": (
        ["--kernel", "{}/socket"],
        rf"--kernel: .*/socket: is a socket, not a file; {GIVE_KERNEL}",
    ),
    "kernel device": (
        ["--kernel", "/dev/zero"],
        rf"--kernel: /dev/zero: is a device, not a file; {GIVE_KERNEL}",
    ),
    "kernel of /proc": (
        ["--kernel", "/proc/version"],
        r"--kernel: /proc/version: .*is empty \(0 bytes\); give",
    ),
    "kernel empty": (["--kernel", "{}/empty"], r"--kernel: .*/empty: .*is empty \(0 bytes\); give"),
    "kernel random": (
        ["--kernel", "{}/random"],
        r"--kernel: .*/random: not a kernel .*; give a Linux vmlinux",
    ),
    "kernel script": (["--kernel", "{}/script"], r"--kernel: .*: found a script; give a Linux vmlinux"),
    "kernel of zeros": (
        ["--kernel", "{}/disk"],
        r"--kernel: .*/disk: .*1048576 bytes that begins with 00 .*; give",
    ),
    "kernel cut": (["--kernel", "{}/cut"], r"--kernel: .*/cut: .*needs .* bytes .*truncated or damaged"),
    "bzImage cut": (["--kernel", "{}/short"], r"--kernel: .*/short: .*truncated or damaged"),
    "bzImage cut early": (["--kernel", "{}/shorter"], r"--kernel: .*/shorter: .*truncated or damaged"),
    "kernel gz torn": (["--kernel", "{}/torn.gz"], r"--kernel: .*/torn.gz: gzip payload .*ends early"),
    "kernel gz of zeros": (["--kernel", "{}/zeros.gz"], r"--kernel: .*/zeros.gz: not a kernel .*; give"),
    "kernel gz bomb": (["--kernel", "{}/bomb.gz"], r"--kernel: .*/bomb.gz: gzip payload .*limit"),
    "arm64 Image": (
        ["--kernel", "{}/arm64"],
        r"--kernel: .*/arm64: .*AArch64 .*; give a bzImage or ELF vmlinux for x86-64$",
    ),
    "arm64 ELF": (
        ["--kernel", "{}/arm64.elf"],
        r"--kernel: .*/arm64.elf: .*AArch64.*; give a bzImage or ELF vmlinux for x86-64$",
    ),
    "32-bit ELF": (["--kernel", "{}/i386"], r"--kernel: .*/i386: .*32-bit.*; "),
    "a program": (
        ["--kernel", "/bin/sh"],
        r"--kernel: /bin/sh: ",
    ),
    "PVH without note": (
        ["--kernel", "{}/linux", "--boot-protocol", "pvh"],
        r"--kernel: .*/linux: the kernel cannot be entered by PVH: .*; use LINUX64",
    ),
    "kernel above RAM": (
        ["--kernel", "{}/linux", "--memory", "size=16M"],
        r"--kernel: .*/linux: kernel.* bytes does not fit: .* at least 17 MiB .*size=16M; give more\)$",
    ),
    "kernel with a comma": (
        ["--kernel", "{}/with, comma", "--disk", "path={}/with, comma"],
        rf"' comma' {KEYS}",
    ),
    "kernel with an escape": (["--kernel", "a\x1b[31m\nb"], r"--kernel: a\\x1b\[31m b: No such file"),
    # initramfs
    "initramfs missing": (
        [*K, "--initramfs", "{}/none"],
        r"--initramfs: .*/none: No such .*or leave the option out$",
    ),
    "initramfs unnamed": ([*K, "--initramfs", ""], r"--initramfs: the path is empty"),
    "initramfs empty": (
        [*K, "--initramfs", "{}/empty"],
        r"--initramfs: .*/empty.* is empty \(0 bytes\); give",
    ),
    "initramfs folder": ([*K, "--initramfs", "{}"], r"--initramfs: .*: is a folder, not a file; give"),
    "initramfs too big": (
        [*K, "--initramfs", "{}/big", "--memory", "size=512M"],
        r"--initramfs: .*/big: .*; give the guest more memory or a smaller initrd \(--memory size=512M\)$",
    ),
    # command line
    "cmdline long": (
        ["--kernel", "{}/linux", "--cmdline", LONG],
        r"--cmdline: 4096 bytes, .* at most \d+; shorten it \(it begins 'x+'\)$",
    ),
    "cmdline long for Linux": (
        ["--kernel", "{}/linux", "--cmdline", LONG[:2048]],
        r"--cmdline: 2048 bytes, this kernel reads at most 2047; shorten it",
    ),
    "cmdline not ASCII": ([*K, "--cmdline", "naïve"], r"--cmdline: 'naïve' is not ASCII"),
    "cmdline of bytes": ([*K, "--cmdline", "\udcff"], r"--cmdline: '\\udcff' is not ASCII"),
    "cmdline with a newline": ([*K, "--cmdline", "a\nb"], r"--cmdline: .*'a\\nb'"),
    "cmdline's quote": ([*K, "--cmdline", 'a="b'], r"--cmdline: a double quote is never closed: 'a=\"b'"),
    # memory
    "memory bare": ([*K, "--memory", "512"], rf"--memory: '512' {KEYS}"),
    **{
        f"memory {text}": (
            [*K, "--memory", f"size={text}"],
            rf"--memory size: '{re.escape(text)}'{SIZE_CURE}",
        )
        for text in ("", "-1", "1Q", "1.5G", "0x1000", "٣٢M", "1 G", "M", "1GG", "²", "9" * 30)
    },
    "memory zero": ([*K, "--memory", "size=0"], r"--memory size: 0 bytes is not within 16M … 16T$"),
    "memory tiny": ([*K, "--memory", "size=4K"], r"--memory size: 4096 bytes is not within 16M … 16T$"),
    "memory unaligned": (
        [*K, "--memory", "size=536870913"],
        r"--memory size: 536870913 bytes is not a multiple of 4096 \(536870912 is, and 536875008\)$",
    ),
    "memory absurd": (
        [*K, "--memory", "size=99999T"],
        r"--memory size: 109950063265972224 bytes is not within",
    ),
    "memory more than any host": (
        [*K, "--memory", "size=17T"],
        r"--memory size: \d+ bytes is not within 16M … 16T",
    ),
    "memory more than RAM": (
        [*K, "--memory", "size=16T"],
        r"--memory size: 16777216M is more than the \d+M .*; ask",
    ),
    "memory huge unaligned": (
        [*K, "--memory", "size=17M,hugepages=on"],
        r"--memory size: 17825792 .*multiple of 2097152",
    ),
    "memory huge private": (
        [*K, "--memory", "size=32M,hugepages=on,shared=off"],
        r"--memory hugepages: on with shared=off; give shared=on",
    ),
    "memory maybe": (
        [*K, "--memory", "size=32M,shared=maybe"],
        r"--memory shared: 'maybe' is neither on nor off$",
    ),
    # vCPUs
    "cpus bare": ([*K, "--cpus", "2"], rf"--cpus: '2' {KEYS}"),
    **{
        f"cpus {count}": ([*K, "--cpus", f"boot={count}"], rf"--cpus boot: {count} is not within 1 … 254$")
        for count in ("0", "255", "100000")
    },
    **{
        f"cpus {count}": ([*K, "--cpus", f"boot={count}"], rf"--cpus boot: '{count}' is not a number")
        for count in ("", "-1", "two", "1.0", "٣")
    },
    "cpus pinned nowhere": (
        [*K, "--cpus", "boot=1,affinity=[0@[9999]]"],
        r"--cpus affinity: vCPU 0 .*\[9999\].*; ",
    ),
    "cpus pinned backwards": ([*K, "--cpus", "affinity=[0@[3-1]]"], r"--cpus affinity: '3-1' is not a range"),
    "no such vCPU": (
        [*K, "--cpus", "boot=1,affinity=[7@[0]]"],
        r"--cpus affinity: vCPU 7 does not exist; boot=1$",
    ),
    # disks
    "disk bare": ([*K, "--disk", "{}/disk"], rf"--disk: '.*/disk' {KEYS}"),
    "disk unnamed": ([*K, "--disk"], r"--disk: expected at least one argument; see `vmm run --help`$"),
    "disk without path": ([*K, "--disk", "readonly=on"], r"--disk: path= is missing$"),
    "disk missing": (
        [*K, "--disk", "path={}/none"],
        r"--disk path: .*/none: No such .*; .*truncate -s 8G FILE",
    ),
    "disk folder": (
        [*K, "--disk", "path={}"],
        r"--disk path: .*: is a folder, not a file or block device; give",
    ),
    "disk /dev/null": (
        [*K, "--disk", "path=/dev/null"],
        r"--disk path: /dev/null: is a device, not a file or block",
    ),
    "disk fifo": (
        [*K, "--disk", "path={}/fifo"],
        r"--disk path: .*/fifo: is a FIFO, not a file or block device; give",
    ),
    "disk empty": (
        [*K, "--disk", "path={}/empty"],
        r"--disk path: .*/empty: holds 0 bytes, at least 512 .*truncate",
    ),
    "disk tiny": (
        [*K, "--disk", "path={}/tiny"],
        r"--disk path: .*/tiny: holds 511 bytes, at least 512 .*truncate",
    ),
    "disk twice": (
        [*K, "--disk", "path={}/disk", "path={}/disk"],
        r"--disk path: .*/disk: given twice; .*readonly=on",
    ),
    "disk by two names": (
        [*K, "--disk", "path={}/disk,readonly=on", "path={}/same"],
        r"--disk path: .*/same: given twice; .*readonly=on",
    ),
    "disk engine": (
        [*K, "--disk", "path={}/disk,engine=v8"],
        r"--disk engine: 'v8' is neither native nor python$",
    ),
    "disk serial": (
        [*K, "--disk", f"path={{}}/disk,serial={'s' * 21}"],
        r"--disk serial: 's+' is not at most 20",
    ),
    "disk id": ([*K, "--disk", "path={}/disk,id=a b"], r"id: 'a b' is not 1 to 64 of A-Z"),
    "disk id of the machine": ([*K, "--disk", "path={}/disk,id=rtc"], r"id: 'rtc' is the id of a device"),
    "disk id twice": (
        [*K, "--disk", "path={}/disk,id=a", "path={}/kept,id=a"],
        r"id: 'a' names two devices$",
    ),
    "too many disks": (
        [*K, "--disk", *["path={}/disk"] * 99],
        r"--disk: 99 disks; a virtio-mmio machine takes 16$",
    ),
    # options and keys
    "unknown option": (
        [*K, "--memroy", "size=1G"],
        r"unrecognized arguments: --memroy .*mean --memory\?\); see `vmm",
    ),
    "unknown option far": ([*K, "--bios", "b"], r"unrecognized arguments: --bios b; see `vmm --help`$"),
    "short option": ([*K, "--mem", "size=1G"], r"unrecognized arguments: --mem size=1G"),
    "stray word": ([*K, "stray"], r"unrecognized arguments: stray; see `vmm"),
    "option twice": ([*K, "--kernel", "l"], r"--kernel: given twice; see"),
    "key twice": ([*K, "--cpus", "boot=2,boot=3"], r"--cpus boot: given twice \('2' and '3'\)$"),
    "unknown key": (
        [*K, "--disk", "path={}/disk,read-only=on"],
        r"--disk read-only: unknown key \(did you mean readonly\?\); --disk takes path, readonly, ",
    ),
    "quote": ([*K, "--disk", 'path="{}/disk'], r"--disk: quote is never closed"),
    "bracket": ([*K, "--cpus", "affinity=[0@[1]"], r"--cpus: bracket is never closed in"),
    "host": (
        [*K, "--host", "xen"],
        r"argument --host: invalid choice: 'xen' \(choose from 'auto', 'kvm', 'emulated'\)",
    ),
    "protocol": (
        [*K, "--boot-protocol", "bios"],
        r"invalid choice: 'bios' \(choose from 'auto', 'linux64', 'pvh'\)",
    ),
    "newline in an option": ([*K, "--a\nb"], r"unrecognized arguments: --a b; see"),
    # entropy
    "rng missing": ([*K, "--rng", "src={}/none"], r"--rng src: .*/none: No such .*such as /dev/urandom$"),
    "rng folder": ([*K, "--rng", "src={}"], r"--rng src: .*: is a folder; give .*such as /dev/urandom$"),
    # serial
    "serial": (
        [*K, "--serial", "uart"],
        r"--serial: 'uart' is none of off, null, tty, pty, file=PATH, socket=PATH$",
    ),
    "serial nowhere": ([*K, "--serial", "file="], r"--serial: 'file=' is none of"),
    "serial folder": (
        [*K, "--serial", "file={}"],
        r"--serial file: .*: is a folder; give the path of a file in it$",
    ),
    "serial in no folder": (
        [*K, "--serial", "file={}/no/f"],
        r"--serial file: .*: there is no folder .*/no; make it",
    ),
    "serial is the disk": (
        [*K, "--disk", "path={}/disk", "--serial", "file={}/same"],
        r"--serial file: .*/same: is what --disk path names too; give another path$",
    ),
    "serial is the kernel": (
        [*K, "--serial", "file={}/kernel"],
        r"--serial file: .*: is what --kernel names too; give",
    ),
    "serial to a socket": (
        [*K, "--serial", "file={}/socket"],
        r"--serial file: .*/socket: is a socket, not a file; give",
    ),
    "socket in use": (
        [*K, "--serial", "socket={}/socket"],
        r"--serial socket: .*/socket: exists already; remove it or",
    ),
    "socket is a file": (
        [*K, "--serial", "socket={}/taken"],
        r"--serial socket: .*/taken: exists already; remove it or",
    ),
    "socket is a dangling name": ([*K, "--serial", "socket={}/loop"], r"--serial socket: .*/loop: "),
    "socket long": (
        [*K, "--serial", f"socket={DEEP}"],
        r"--serial socket: .*: \d+ bytes, .* at most 107; choose a shorter",
    ),
    "socket in no folder": (
        [*K, "--serial", "socket={}/no/s"],
        r"--serial socket: .*: there is no folder .*; make it",
    ),
    # events
    "events nowhere": ([*K, "--event-monitor", ""], r"--event-monitor: "),
    "events in no folder": (
        [*K, "--event-monitor", "path={}/no/e"],
        r"--event-monitor path: .*: there is no folder .*/no; ",
    ),
    "events folder": ([*K, "--event-monitor", "path={}"], r"--event-monitor path: .*: is a folder; give"),
    "events and serial": (
        [*K, "--event-monitor", "path={}/new", "--serial", "file={}/new"],
        r"--event-monitor path: .*/new: is what --serial file names too; give another path$",
    ),
    "events to both": (
        [*K, "--event-monitor", "path={}/new,fd=1"],
        r"--event-monitor: path=.*/new and fd=1 was given; give exactly one",
    ),
    "trace nowhere": ([*K, "--trace", ""], r"--trace: the path is empty$"),
    "trace in no folder": ([*K, "--trace", "{}/no/t"], r"--trace: .*: there is no folder .*/no; "),
    "trace to a fifo": ([*K, "--trace", "{}/fifo"], r"--trace: .*/fifo: is a FIFO, not a file; give another"),
    "trace over its kernel": ([*K, "--trace", "{}/kernel"], r"--trace: .*: is what --kernel names too; give"),
    "trace over its template": (
        [*K, "--cpus", "template={}/kernel", "--trace", "{}/kernel"],
        r"--trace: .*: is what --cpus template names too; give another path$",
    ),
    "events to a word": ([*K, "--event-monitor", "fd=x"], r"--event-monitor fd: 'x' is not a number"),
}


@pytest.mark.parametrize("name", ROWS)
def test_refusals(refused, name):
    """Named with its value and the cure before any emulated host starts; nothing is changed anywhere."""
    words, expected = ROWS[name]
    assert re.search(expected, refused(["run", "--host", "emulated", *words])), name


TYPED = [sys.executable, "-m", "vmm_reference"]


@pytest.mark.parametrize(
    "name", ["kernel random", "memory bare", "disk missing", "unknown option", "socket in use"]
)
def test_as_typed(refused, name):
    """The command started afresh says the same, on whatever host."""
    words, expected = ROWS[name]
    assert re.search(expected, refused(["run", "--host", "auto", *words], command=TYPED))


@needs_root
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--kernel", "{}/closed"],
            r"--kernel: .*/closed: Permission denied \(root:root, mode 0600\); give yourself",
        ),
        (
            [*K, "--initramfs", "{}/closed"],
            r"--initramfs: .*/closed: Permission denied \(root:root, mode 0600\); give",
        ),
        (
            [*K, "--disk", "path={}/closed"],
            r"--disk path: .*/closed: Permission denied \(root:root, mode 0600\); give",
        ),
        (
            [*K, "--disk", "path={}/kept"],
            r"--disk path: .*/kept: cannot be written \(root:root, mode 0444\); give readonly=on",
        ),
        ([*K, "--rng", "src={}/closed"], r"--rng src: .*/closed: Permission denied"),
        (
            [*K, "--serial", "file={}/kept"],
            r"--serial file: .*/kept: cannot be written \(root:root, mode 0444\); give",
        ),
        (
            [*K, "--serial", "file={}/new"],
            r"--serial file: .*/new: the folder cannot be written \(root:root, mode 0755",
        ),
        (
            [*K, "--serial", "socket={}/new"],
            r"--serial socket: .*/new: the folder cannot be written .*; choose another$",
        ),
        (
            [*K, "--event-monitor", "path={}/new"],
            r"--event-monitor path: .*/new: the folder cannot be written",
        ),
    ],
)
def test_files_closed_to_the_user(refused, words, expected):
    """Somebody without rights is told whose the file is, its mode, and what helps."""
    assert re.search(expected, refused(["run", "--host", "emulated", *words], user=NOBODY))


# Where nobody else can be tried it is not for want of a KVM: --require must not say so.
@(pytest.mark.kvm if os.geteuid() == 0 else needs_root)
def test_kvm_closed_to_the_user(refused):
    """`/dev/kvm` that the user may not open: its owner, group and mode, and the command that mends it."""
    if os.stat("/dev/kvm").st_mode & 0o006 == 0o006:
        pytest.skip("anybody may open this /dev/kvm")
    line = refused(["run", "--host", "kvm", *K], user=NOBODY)
    assert re.search(r"open on /dev/kvm: Permission denied .*(`chgrp kvm |`usermod -aG \w+ USER`)", line)


# A /dev of its own, made before the command starts; $1 is what to do about its kvm.
OWN_DEV = """
set -e
dev=$(mktemp -d)
mount -t tmpfs none $dev
for name in null zero urandom tty; do touch $dev/$name; mount --bind /dev/$name $dev/$name; done
cd $dev; eval "$1"; cd "$OLDPWD"
mount --move $dev /dev
rmdir $dev
shift
exec "$@"
"""
UNSHARE = [
    "unshare",
    "--mount",
    *([] if os.geteuid() == 0 else ["--map-root-user"]),
    "sh",
    "-c",
    OWN_DEV,
    "sh",
]


@pytest.mark.parametrize(
    ("kvm", "expected"),
    [
        (
            "true",
            r"open on /dev/kvm: No such file .*\(ENOENT\); no KVM here; load the module \(`modprobe",
        ),
        ("touch kvm", r"KVM_GET_API_VERSION on /dev/kvm: .*; this is not a KVM device$"),
        ("mkdir kvm", r"open on /dev/kvm: Is a directory \(EISDIR\)"),
        (
            "touch kvm; mount --bind /dev/zero kvm",
            r"KVM_GET_API_VERSION on /dev/kvm: .*; this is not a KVM device$",
        ),
    ],
)
def test_kvm_that_is_none(refused, kvm, expected):
    """`--host kvm` where `/dev/kvm` is absent or something else: what it is, and what to load or pass in."""
    tried = subprocess.run([*UNSHARE, "true", "true"], capture_output=True, text=True, timeout=PATIENCE)
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace for us: {tried.stderr.strip()}")
    assert re.search(expected, refused(["run", "--host", "kvm", *K], command=[*UNSHARE, kvm, *TYPED]))


@pytest.mark.kvm
@pytest.mark.parametrize(("ours", "theirs"), [(False, False), (False, True), (True, False)])
def test_disk_of_a_running_machine(refused, world, ours, theirs):
    """A disk that a machine has, or reads: refused to who would write it, or read what is written."""
    disk = world / "disk"
    machine = VmConfig(kernel=world / "kernel", disks=[DiskConfig(disk, readonly=theirs)])
    with Vmm(machine) as vmm:
        vmm.boot()
        mode = "on" if ours else "off"
        line = refused(["run", "--host", "emulated", *K, "--disk", f"path={disk},readonly={mode}"])
        kind = "shared (read-only)" if ours else "exclusive (read-write)"
        assert line.startswith(
            f"--disk path: {disk}: in use: the {kind} lock is held by someone else; close that"
        )
    with DiskImage(disk):
        pass  # the lock went with the machine


@pytest.mark.kvm
def test_disk_that_both_read(refused, world):
    """Two readers share an image: the next mistake is the one that is told."""
    disk = world / "disk"
    machine = VmConfig(kernel=world / "kernel", disks=[DiskConfig(disk, readonly=True)])
    with Vmm(machine) as vmm:
        vmm.boot()
        line = refused(
            ["run", "--host", "emulated", "--kernel", "{}/random", "--disk", f"path={disk},readonly=on"]
        )
    assert line.startswith("--kernel: ")
