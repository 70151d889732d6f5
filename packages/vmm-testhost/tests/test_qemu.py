"""QEMU's command line."""

from pathlib import Path

from vmm_testhost._qemu import Machine, command_line


def test_command_line_keeps_odd_paths_whole():
    """Commas in paths are doubled; the root share is read-only, the others are not."""
    machine = Machine(
        kernel=Path("/k"),
        initramfs=Path("/i"),
        console=Path("/c,d"),
        memory=1024,
        cpus=3,
        shares=[("tag0", Path("/a,b"))],
        kernel_args="x=1",
        extra=("-device", "edu"),
    )
    argv = command_line(machine, "qemu", 7, None)
    shares = [argv[index + 1] for index, arg in enumerate(argv) if arg == "-virtfs"]
    assert "readonly=on" in shares[0]
    assert shares[1].startswith("local,path=/a,,b,mount_tag=tag0,")
    assert "readonly" not in shares[1]
    assert "file,id=con,path=/c,,d" in argv
    assert argv[argv.index("-append") + 1].endswith(" x=1")
    assert argv[-2:] == ["-device", "edu"]
    assert not any("fd=None" in arg or "name=stdin" in arg for arg in argv)
