"""The command line without a host."""

import os
import subprocess
import sys

import pytest
from vmm_testhost import SetupError, _cli


def test_help_teaches():
    """--help shows examples, what happens to files, and the exit statuses."""
    done = subprocess.run(
        [sys.executable, "-m", "vmm_testhost", "--help"], capture_output=True, check=True, text=True
    )
    assert "vmm-testhost -- uname -a" in done.stdout
    assert "exit status: the command's own; 124 after --timeout; 125" in done.stdout


def test_options_after_the_command_are_its_own(monkeypatch):
    """What follows the command is never taken for our options."""
    seen = {}

    def fake(argv, **settings):
        seen.update(settings, argv=argv)
        raise SetupError("stop here", "sudo true")

    monkeypatch.setattr(_cli, "run", fake)
    assert _cli.main(["--memory", "1024", "--env", "A=b=c", "--", "ls", "--cpus", "-1"]) == 125
    assert seen["argv"] == ["ls", "--cpus", "-1"]
    assert seen["memory"] == 1024
    assert seen["env"] == {"A": "b=c"}
    assert seen["forward_signals"] is True


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--cpus", "0", "cpus 0 is not in 1..64"),
        ("--memory", "64", "memory 64 MiB: the host needs at least 512 MiB"),
    ],
)
def test_impossible_sizes_are_refused(capsys, option, value, message):
    """A size out of range is refused before anything is fetched."""
    assert _cli.main([option, value, "--", "true"]) == 125
    assert message in capsys.readouterr().err


def test_missing_writable_path_is_named(capsys, tmp_path):
    """A writable path that does not exist is named."""
    assert _cli.main(["--writable", os.fspath(tmp_path / "absent"), "--", "true"]) == 125
    assert "absent" in capsys.readouterr().err
