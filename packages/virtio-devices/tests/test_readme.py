"""The examples of the README run as they stand."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("index", range(3), ids=["first-example", "network-card", "fourth-device"])
def test_examples_run(index):
    """Each python block is complete and does what it asserts."""
    namespace = {"__name__": "readme"}
    exec(compile(BLOCKS[index], f"README.md block {index}", "exec"), namespace)
    assert len(BLOCKS) == 3


def test_the_example_device_is_short():
    """A fourth device takes about forty lines."""
    device = BLOCKS[2].split("class Upper")[1].split("def test_upper")[0]
    assert len([line for line in device.splitlines() if line.strip()]) <= 40


def test_the_threat_model_is_there():
    """Reviewers look for this heading."""
    assert "\n## Threat model\n" in README
