"""`make boot`: a stock Debian kernel, booted by our VMM to userspace on a virtio disk.

Fetches a kernel (or takes the caller's), makes a root disk and an initramfs, boots with `vmm run`,
and checks that the guest wrote a nonce made by this run to its ext4 root disk, by reading it back
from the image. See README.md, "The main job".
"""

import argparse
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import guest
from vmm_testhost import SetupError

CMDLINE = f"console={guest.CONSOLE} quiet panic=-1 pci=off rdinit=/vmm-init"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", type=Path, help="your own kernel (bzImage or ELF vmlinux)")
    parser.add_argument("--initrd", type=Path, help="your own initramfs; its /init runs after our check")
    parser.add_argument("--cmdline", default=CMDLINE, help="kernel command line (default: %(default)s)")
    parser.add_argument("--host", default="auto", choices=["auto", "kvm", "emulated"], help="as in `vmm run`")
    parser.add_argument("--memory", default="512M", help="guest RAM (default: %(default)s)")
    parser.add_argument("--cpus", default="1", help="vCPUs (default: %(default)s)")
    parser.add_argument(
        "--irqchip", default="kernel", choices=["kernel", "split"], help="where the I/O APIC is"
    )
    parser.add_argument(
        "--linger",
        type=float,
        default=90.0,
        help="seconds that your init may run where nobody types (default: %(default)s)",
    )
    return parser.parse_args()


def command_line(options: argparse.Namespace, image: Path, folder: Path, nonce: str) -> list[str]:
    end = " vmm.end=exec" if options.initrd else ""
    return [
        *(sys.executable, "-m", "vmm_reference", "run"),
        *("--host", options.host),
        *("--kernel", str(image)),
        *("--initramfs", str(folder / "initramfs")),
        *("--cmdline", f"{options.cmdline} vmm.nonce={nonce}{end}"),
        *("--memory", f"size={options.memory}"),
        *("--cpus", f"boot={options.cpus}"),
        *("--platform", f"irqchip={options.irqchip}"),
        *("--disk", f"path={folder / 'root.raw'},id=root"),
        *("--event-monitor", f"path={folder / 'events.json'}"),
    ]


def run(command: list[str], events: Path, options: argparse.Namespace) -> int:
    """Run the VMM; without a terminal, end a guest whose own init goes on for ever."""
    with subprocess.Popen(command) as vmm:

        def end(_number: int, _frame: FrameType | None) -> None:
            vmm.terminate()

        # A terminal sends Ctrl-C to the VMM too, which ends by it; we stay to clear up behind it.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGHUP, end)
        patience = options.linger if options.initrd and not sys.stdin.isatty() else None
        while patience is not None and vmm.poll() is None:
            time.sleep(0.5)
            if events.exists() and "userspace-reached" in events.read_text():
                patience -= 0.5
            if patience <= 0:
                print(
                    f"boot: your init still runs after {options.linger:.0f} s; ending the machine", flush=True
                )
                vmm.terminate()
                patience = None
        return vmm.wait()


def verdict(folder: Path, nonce: str, status: int) -> tuple[float, str]:
    """Return (seconds to userspace, host) when everything was as it should, else exit with the reason."""
    file = folder / "events.json"
    events = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if not events:
        sys.exit(f"boot: vmm ended with status {status}")
    found = guest.read_from_disk(folder / "root.raw", "/vmm-nonce").decode()
    if found != nonce:
        sys.exit(f"boot: the disk holds the nonce {found!r}, not {nonce!r} (vmm's exit status {status})")
    reached = [event for event in events if event["event"] == "userspace-reached"]
    if not reached:
        sys.exit(f"boot: the guest never wrote to its boot timer (vmm's exit status {status})")
    host = next(event["properties"]["host"] for event in events if event["event"] == "starting")
    return reached[0]["properties"]["seconds"], host


def leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # by way of every `with`: no folder stays behind


def boot(options: argparse.Namespace) -> int:
    chosen = guest.given_guest(options.kernel) if options.kernel else guest.debian_guest()
    nonce = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="vmm-boot-") as scratch:
        folder = Path(scratch)
        (folder / "initramfs").write_bytes(guest.initramfs(chosen, base=options.initrd))
        guest.root_disk(folder / "root.raw")
        print(f"boot: kernel {chosen.version}, nonce {nonce}", flush=True)
        status = run(command_line(options, chosen.image, folder, nonce), folder / "events.json", options)
        if status != 0 and not options.initrd:
            sys.exit(f"boot: vmm ended with status {status}")
        seconds, host = verdict(folder, nonce, status)
    print(f"boot: nonce {nonce} read back from the disk image")
    print(f"vmm: guest reached userspace in {seconds:.3f} s (host: {host}, kernel: {chosen.version})")
    return 0


def main() -> int:
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    try:
        return boot(options)
    except (guest.GuestError, SetupError) as error:
        sys.exit(f"boot: {error}")


if __name__ == "__main__":
    sys.exit(main())
