"""`vmm run --host emulated`, from outside: files, streams and signals cross; descriptors do not."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import exits
import guest
import pytest

pytestmark = pytest.mark.testhost

CMDLINE = "console=ttyS0 quiet panic=-1 pci=off rdinit=/vmm-init"


@pytest.fixture
def initramfs(tmp_path):
    """Our init, for the default kernel."""
    path = tmp_path / "initramfs"
    path.write_bytes(guest.initramfs(guest.debian_guest()))
    return path


def vmm(initramfs: Path, jobs: str, *options: str) -> list[str]:
    """Return the command line of an emulated run."""
    return [
        *(sys.executable, "-m", "vmm_reference", "run", "--host", "emulated"),
        *("--kernel", str(guest.debian_guest().image), "--initramfs", str(initramfs)),
        *("--cmdline", f"{CMDLINE} {jobs}", "--memory", "size=256M", *options),
    ]


def test_files_and_event_fifo_cross(tmp_path, initramfs):
    """What the guest synced is in the image, its console in its file, exits in theirs, events in the FIFO."""
    disk, nonce = tmp_path / "disk.raw", secrets.token_hex(8)
    guest.root_disk(disk, 16 << 20)
    fifo, console = tmp_path / "events", tmp_path / "console.txt"
    os.mkfifo(fifo)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(fifo.read_text().splitlines()))
    reader.start()
    trace = tmp_path / "exits.pftrace"
    options = [f"path={disk}", "--serial", f"file={console}", "--event-monitor", f"path={fifo}"]
    options += ["--trace", str(trace)]
    command = vmm(initramfs, f"vmm.nonce={nonce}", "--disk", *options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    reader.join(60)
    assert done.returncode == 0, done.stderr
    assert guest.read_from_disk(disk, "/vmm-nonce") == nonce.encode()
    assert f"guest: wrote nonce {nonce}" in console.read_text()
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events] == [
        "starting", "booting", "booted", "userspace-reached", "shutdown", "shutdown",
    ]  # fmt: skip
    assert events[0]["properties"]["host"] == "emulated"
    assert sum(one.details.get("port") == 0x600 for one in exits.slices(trace)) == 1  # the power button


def test_serial_socket_is_relayed_both_ways(tmp_path, initramfs):
    """A client of the outer socket talks to the guest; SIGTERM ends it with status 143."""
    path = tmp_path / "serial"
    command = vmm(initramfs, "vmm.challenge=1 vmm.end=halt", "--serial", f"socket={path}")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(200)
            client.connect(str(path))
            seen = read_until(client, b"guest: ready")
            client.sendall(b"abc\n")
            seen += read_until(client, b"guest: answer e71fa2190541574b")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not path.exists()


def read_until(client: socket.socket, wanted: bytes) -> bytes:
    """Return what came up to and with `wanted`."""
    seen = b""
    while wanted not in seen:
        data = client.recv(4096)
        assert data, f"closed after {seen!r}"
        seen += data
    return seen


def test_an_outer_descriptor_is_refused(initramfs):
    """A descriptor of this process means nothing in another machine: status 2, one line, the reason."""
    command = vmm(initramfs, "", "--event-monitor", "fd=1")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    message = "vmm: --event-monitor fd: descriptor 1 does not exist in the emulated host; use path="
    assert done.stderr.strip() == message


def test_ctrl_c_on_make_boot_leaves_nothing(tmp_path):
    """Ctrl-C reaches make's command and the VMM alike: both end, and no scratch folder stays."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    tool = Path(__file__).parents[2] / "tools/boot.py"
    words = ["--host", "emulated", "--cmdline", f"{CMDLINE} vmm.end=halt"]
    process = subprocess.Popen(
        [sys.executable, str(tool), *words],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        while b"guest: userspace reached" not in process.stdout.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert b"Traceback" not in err
        assert b"boot: vmm ended with status 130" in err
        assert list(scratch.iterdir()) == []
    finally:
        process.kill()
