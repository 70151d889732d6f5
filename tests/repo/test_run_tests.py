"""What `make test` says when a whole shard dies, as CI shows no more than the end of its output."""

import os
import signal

import pytest
import run_tests

pytestmark = pytest.mark.pure

DEATHS = {
    "hang": ("import time; time.sleep(60)", ["--timeout=3", "--timeout-method=thread"], 1),
    "kill": ("import os; print('before'); os.kill(os.getpid(), 9)", [], -9),
}


@pytest.fixture(params=DEATHS)
def died(request, tmp_path):
    """(a shard whose only test ends the process, its test file, the status)."""
    body, extra, status = DEATHS[request.param]
    file = tmp_path / f"test_{request.param}.py"
    file.write_text(f"def test_it():\n    {body}\n")
    shard = run_tests.Shard("here", "not nothing", emulated=False)
    run = run_tests.Run(shard, tmp_path, None, [str(file), *extra])
    run.run()
    return run, file, status


def test_a_dead_shard_says_how_it_ended(died, capfd):
    """Status and the last lines; of a test that hung, the file and line too, at the very end."""
    run, file, status = died
    assert run.counts() == (0, 1, 0)
    assert run_tests.summary([run]) == 1
    last = capfd.readouterr().out.splitlines()[-10:]
    assert last[-1].strip() == f"the shard left no report, and status {status}"
    if file.stem == "test_hang":
        assert f'File "{file}", line 2, in test_it' in "\n".join(last)


def test_a_shard_ends_though_it_left_a_process_behind(tmp_path, monkeypatch, capfd):
    """What still holds the shard's output is told of, not waited for."""
    monkeypatch.setattr(run_tests, "STRAGGLERS", 0.5)
    file = tmp_path / "test_leaves.py"
    body = "import subprocess\n\ndef test_it():\n    print('left', subprocess.Popen(['sleep', '600']).pid)\n"
    file.write_text(body)
    shard = run_tests.Shard("here", "not nothing", emulated=False)
    run = run_tests.Run(shard, tmp_path, None, [str(file), "-s"])
    run.run()
    lines = capfd.readouterr().out.splitlines()
    (left,) = [int(words[-1]) for words in map(str.split, lines) if words[-2:-1] == ["left"]]
    os.kill(left, signal.SIGKILL)  # the process that a hang would have waited for
    assert (run.status, run.counts()) == (0, (1, 0, 0))
    assert "still runs and holds its output" in lines[-1]
