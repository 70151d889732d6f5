"""The command `vmm` as a user meets it: one line and status 2 for every mistake."""

import contextlib
import fcntl
import io
import os
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vmm_reference import _cli, _host
from vmm_reference._config import BootProtocol
from vmm_reference._config_keys import DISK_KEYS
from vmm_reference._config_rings import RING_KEYS

SLOW = "/dev/kvm runs ring 0 interpreted (320.0 ns per instruction)"


@pytest.fixture
def tiny(kernel):
    """A kernel that prints a line and powers off."""
    return kernel("poweroff")


@pytest.fixture
def disk(tmp_path):
    """A raw image."""
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(1 << 16))
    return path


@pytest.fixture
def on_kvm(monkeypatch):
    """Let --host kvm pass on any machine: what is tested fails before KVM matters."""
    monkeypatch.setattr(_host, "choose", lambda _: _host.HostChoice("kvm", "as the test says"))


@pytest.fixture
def vmm(capsys):
    """A function that runs `vmm` in this process and returns (status, stdout, stderr)."""

    def run(*words):
        try:
            status = _cli.main([str(word) for word in words])
        except SystemExit as exit_:
            status = exit_.code
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return run


def refused(result):
    """Return the one line of a refusal, without its prefix."""
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.startswith("vmm: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err.removeprefix("vmm: ").rstrip("\n")


def test_help(vmm):
    """Help names every option, every key, the exit statuses and a first run."""
    status, out, err = vmm("run", "--help")
    assert (status, err) == (0, "")
    words = ["--kernel", "--initramfs", "--cmdline", "--cpus", "--memory", "--disk", "--rng", "--serial"]
    words += [
        "--platform",
        "irqchip=",
        "tables=",
        "--event-monitor",
        "--trace",
        "--boot-protocol",
        "--host",
        "-v",
        "hugepages=",
        "affinity=",
        "engine=",
        *(f"{key}=" for key in RING_KEYS),
    ]
    words += [protocol.value for protocol in BootProtocol]
    for word in [*words, "Exit status:", "A first run"]:
        assert word in out
    assert vmm("--help")[0] == 0


def test_version(vmm):
    """The installed version, on stdout."""
    assert vmm("--version") == (0, f"vmm {version('vmm-reference')}\n", "")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "the following arguments are required: COMMAND"),
        (
            ["fly"],
            "argument COMMAND: invalid choice: 'fly' (choose from 'run', 'doctor', 'cpuid', 'testhost')",
        ),
        (["run"], "the following arguments are required: --kernel"),
        (["run", "--kernel", "k", "--kernel", "l"], "--kernel: given twice"),
        (["run", "--kernel", "k", "--cpus", "boot=1", "--cpus", "boot=2"], "--cpus: given twice"),
        (["run", "--kernel"], "argument --kernel: expected one argument"),
        (["run", "--kernel", "k", "--bios", "b"], "unrecognized arguments: --bios b"),
        (
            ["run", "--kernel", "k", "--memroy", "size=1G"],
            "unrecognized arguments: --memroy size=1G (did you mean --memory?)",
        ),
        (
            ["run", "--kernel", "k", "--mem\n", "size=1G"],
            "unrecognized arguments: --mem  size=1G (did you mean --memory?)",
        ),
        (
            ["run", "--kernel", "k", "--host", "xen"],
            "argument --host: invalid choice: 'xen' (choose from 'auto', 'kvm', 'emulated')",
        ),
        (
            ["doctor", "--format", "xml"],
            "argument --format: invalid choice: 'xml' (choose from 'text', 'json')",
        ),
        (["doctor", "--form", "json"], "unrecognized arguments: --form json (did you mean --format?)"),
        (["cpuid", "show", "dump", "--fle", "x"], "unrecognized arguments: --fle x"),
    ],
)
def test_mistakes_of_grammar(vmm, words, problem):
    """Unknown, doubled, missing, abbreviated: one line that says so and where the help is."""
    line = refused(vmm(*words))
    assert line.startswith(f"{problem}; see `vmm ")
    assert line.endswith("--help`")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--cpus", "boot=2,boot=3"], "--cpus boot: given twice ('2' and '3')"),
        (
            ["--cpus", "cores=2"],
            "--cpus cores: unknown key; --cpus takes boot, max, topology, template, affinity, "
            "core_scheduling",
        ),
        (
            ["--cpus", "template=t3"],
            "--cpus template: CPU template 't3' is not built in; there are host, t2, "
            "or give a file: ./t3.toml",
        ),
        (["--memory", "size=99999T"], "--memory size: 109950063265972224 bytes is not within 16M … 16T"),
        (
            ["--memory", "size=many"],
            "--memory size: 'many' is not a size; write a whole number with K, M, G or T, such as 3584M",
        ),
        (["--serial", "uart"], "--serial: 'uart' is none of off, null, tty, pty, file=PATH, socket=PATH"),
        (["--disk", "readonly=on"], "--disk: path= is missing"),
        (
            ["--disk", "path=a\nb,x=1"],
            f"--disk x: unknown key; --disk takes {', '.join(DISK_KEYS)}",
        ),
        (["--initramfs", ""], "--initramfs: the path is empty"),
        (["--cmdline", "ü"], "--cmdline: 'ü' is not ASCII without NUL"),
    ],
)
@pytest.mark.parametrize("host", ["auto", "kvm", "emulated"])
def test_mistakes_in_values(vmm, tiny, words, line, host):
    """Refused before any host is chosen, the same on every host."""
    assert refused(vmm("run", "--host", host, "--kernel", tiny, *words)) == line


def test_incomplete_kvm_is_refused_with_its_reason(vmm, tiny, monkeypatch):
    """--host kvm on a KVM that interprets ring 0: the measurement and the cure."""
    from vm_hypervisor.probe import KvmReport

    monkeypatch.setattr(_host, "probe", lambda: KvmReport(320.0, 900.0, True, 254, {"IRQCHIP": 1}))
    line = refused(vmm("run", "--host", "kvm", "--kernel", tiny))
    assert line == f"--host kvm: {SLOW}; a stock kernel does not run here, use --host emulated"


OPTIONS = (
    "kernel",
    "initramfs",
    "cmdline",
    "cpus",
    "memory",
    "disk",
    "rng",
    "serial",
    "event-monitor",
    "trace",
    "host",
)
KEYS = (
    "boot",
    "max",
    "affinity",
    "size",
    "shared",
    "path",
    "readonly",
    "id",
    "serial",
    "src",
    "fd",
    "file",
    "socket",
)
TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["1", "0", "[0@[1]]", "on", "512M", '"', "tty"]
)
VALUES = TEXTS | st.lists(st.tuples(st.sampled_from(KEYS) | TEXTS, TEXTS).map("=".join), max_size=3).map(
    ",".join
)
WORDS = st.tuples(st.sampled_from(OPTIONS), VALUES).map(lambda pair: [f"--{pair[0]}", pair[1]]) | TEXTS.map(
    lambda text: [text]
)


@given(st.lists(WORDS, max_size=5))
@example([["--disk", "path=\0"]])
@example([["--a\nb"]])
@example([["--serial", "socket=\0"], ["--host", "kvm"]])
def test_any_words(words):
    """Whatever is typed: one printable line and status 2 (help and version: 0), never a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = _cli.main(
                ["run", *(word for pair in words for word in pair), "--disk", "path=/nonexistent"]
            )
        except SystemExit as exit_:
            status = exit_.code
    if status == 0:
        assert out.getvalue().startswith(("usage: ", "vmm "))
        assert err.getvalue() == ""
    else:
        assert (status, out.getvalue()) == (2, "")
        assert re.fullmatch(r"vmm: .+\n", err.getvalue())
        assert err.getvalue()[:-1].isprintable()


@pytest.mark.kvm
def test_this_machines_kvm(vmm, tiny):
    """--host kvm on this machine: refused by measurement when incomplete, else it runs."""
    result = vmm("run", "--host", "kvm", "--serial", "null", "--kernel", tiny)
    if _host.probe().complete:
        assert result[0] == 0
    else:
        why = r"--host kvm: /dev/kvm runs ring 0 .*; a stock kernel does not run here, use --host emulated"
        assert re.fullmatch(why, refused(result))


@pytest.mark.kvm
@pytest.mark.parametrize("id_", ["a-name-that-is-much-longer-than-20", "d"])
def test_any_disk_id_is_fine(vmm, tiny, disk, on_kvm, id_):
    """An id longer than a serial number is no error."""
    words = ["--serial", "null", "--kernel", tiny, "--disk", f"path={disk},id={id_}"]
    assert vmm("run", "--host", "kvm", *words) == (0, "", "")


@pytest.mark.parametrize("host", ["auto", "kvm", "emulated"])
@pytest.mark.parametrize("more", ["", ",prefault=on"])
def test_absurd_memory(vmm, tiny, host, more):
    """More than this machine has is refused before anything starts, wherever it would."""
    line = refused(vmm("run", "--host", host, "--kernel", tiny, "--memory", f"size=16T{more}"))
    assert line.startswith("--memory size: 16777216M is more than the ")
    assert line.endswith("M of RAM and swap here; ask for less")


@pytest.mark.kvm
def test_nothing_is_left_behind(vmm, tiny, disk, tmp_path, on_kvm):
    """A refusal while the machine is built leaves no descriptor, file, socket or lock of ours."""
    before = sorted(os.listdir("/proc/self/fd"))
    words = [
        "--disk",
        f"path={disk}",
        "--event-monitor",
        f"path={tmp_path}/e",
        "--cpus",
        "affinity=[0@[9999]]",
    ]
    for serial in ("socket", "file"):
        line = refused(
            vmm("run", "--host", "kvm", "--kernel", tiny, "--serial", f"{serial}={tmp_path}/s", *words)
        )
        assert line.startswith("--cpus affinity: vCPU 0 shall run on host CPUs [9999]; usable are [")
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.raw", "kernel-poweroff"]
    with disk.open("rb") as image:
        fcntl.flock(image, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_as_a_process(tmp_path):
    """`python -m vmm_reference` is the command: same line, same status, fast."""
    done = subprocess.run(
        [sys.executable, "-m", "vmm_reference", "run", "--kernel", tmp_path / "none"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"vmm: --kernel: {tmp_path}/none: No such file or directory; give ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("columns", [{}, {"COLUMNS": "0"}, {"COLUMNS": "-3"}])
def test_help_on_a_terminal_of_unknown_width(columns):
    """A serial line or a new pseudo-terminal has 0 columns: help is as wide as where there is none."""
    main, slave = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | columns
    command = [sys.executable, "-m", "vmm_reference", "--help"]
    try:
        subprocess.run(command, stdout=slave, env=environment, timeout=240, check=True)
        shown = os.read(main, 1 << 16).decode()
    finally:
        os.close(main)
        os.close(slave)
    assert "A small virtual machine monitor built from the toolkit's packages.\r\n" in shown


def test_names_that_are_no_utf_8(tmp_path):
    """A path of arbitrary bytes is refused in a line, not by a traceback."""
    path = os.fsencode(tmp_path) + b"/\xff\xfe"
    done = subprocess.run(
        [sys.executable, "-m", "vmm_reference", "run", "--kernel", path], capture_output=True, timeout=240
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"/\\udcff\\udcfe: No such file or directory; give" in done.stderr
