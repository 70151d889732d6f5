"""The README's first example runs as it stands, and its threat table is there."""

import ast
import re
from pathlib import Path

import vm_device

HERE = Path(__file__).parent
README = (HERE.parent / "README.md").read_text()


def test_first_example(capsys):
    """What a newcomer copies works."""
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert "hello from the guest" in capsys.readouterr().out


def test_threat_table():
    """The table has the columns all packages share."""
    table = README.split("## Threat model", 1)[1]
    for column in ("trusted", "untrusted", "threat", "mitigation", "left to the caller"):
        assert column in table.split("|---")[0].lower()


def test_threats_of_each_device():
    """A row for every class with a node of its own, and each test that a row names is there."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", README.split("Device by device", 1)[1], re.MULTILINE)
    described = {name for name in vm_device.__all__ if hasattr(getattr(vm_device, name), "describe")}
    assert {name for name, _ in rows} == described
    for device, shown in rows:
        named = re.findall(r"`(\w+\.py)::(\w+)`", shown)
        assert named, device
        for file, name in named:
            body = ast.parse((HERE / file).read_text()).body
            targets = {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
            targets |= {
                target.id for node in body if isinstance(node, ast.Assign) for target in node.targets
                if isinstance(target, ast.Name)
            }  # fmt: skip
            assert name in targets, f"{device}: {file}::{name}"
