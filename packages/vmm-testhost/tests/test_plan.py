"""What passes into the host."""

from pathlib import Path

import pytest
from vmm_testhost._initramfs import shell_setup
from vmm_testhost._plan import inner_environment, plan_shares


def test_session_variables_stay_outside():
    """Variables that steer programs pass, those of the session (and its secrets) do not."""
    outer = {
        "TMPDIR": "/tmp/somebody",
        "PATH": "/bin",
        "PYTHONPATH": "x",
        "SSH_AUTH_SOCK": "s",
        "VMM_X": "1",
        "API_TOKEN": "t",
        "LC_ALL": "C",
    }
    passed = {"PATH": "/bin", "PYTHONPATH": "x", "VMM_X": "1", "LC_ALL": "C"}
    assert inner_environment(outer) == {**passed, "TMPDIR": "/run/vmm-testhost/tmp"}


def test_files_of_one_folder_share_it(tmp_path):
    """Two files and their folder need one share; the folder is bound before the files."""
    for name in ("a", "b"):
        (tmp_path / name).touch()
    shares, binds = plan_shares([tmp_path / "b", tmp_path / "a", tmp_path])
    tag = "vmm-share0"
    assert shares == [(tag, tmp_path)]
    assert binds == [(tag, "", tmp_path), (tag, "a", tmp_path / "a"), (tag, "b", tmp_path / "b")]


@pytest.mark.parametrize("path", ["/", "/dev/shm", "/proc", "/run/vmm-testhost"])
def test_the_hosts_own_file_systems_are_refused(path):
    """A path that would be hidden inside is refused at once."""
    with pytest.raises(ValueError, match=f"writable {path}: the emulated host has its own there"):
        plan_shares([Path(path)])


def test_shell_setup_quotes_hostile_names():
    """A path with quotes and spaces stays one word of the init script."""
    text = shell_setup("/opt/my py", Path("/m"), [("vmm-share0", "it's", Path("/a b/it's"))])
    assert "PYTHON='/opt/my py'" in text
    assert """mount --bind "$H/vmm-share0"'/it'"'"'s' /new'/a b/it'"'"'s'""" in text
