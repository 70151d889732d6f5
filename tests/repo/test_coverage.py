"""What `make coverage` must reach is stated, and high; what it leaves out is listed, and little."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "tools/coverage.toml").read_text())


def test_floors_are_high():
    """Lines and branches of Python and C, for both packages."""
    wanted = {f"{language}_{kind}" for language in ("python", "c") for kind in ("lines", "branches")}
    assert set(CONFIG["floor"]) == {"vmm-memory", "virtio-queue"}
    for name, floors in CONFIG["floor"].items():
        assert set(floors) == wanted, name
        assert all(95 <= floor <= 100 for floor in floors.values()), name


def test_exclusions_are_few_and_explained():
    """At most 20, each with its reason, and each of something that is there."""
    assert len(CONFIG["exclude"]) <= 20
    for entry in CONFIG["exclude"]:
        assert set(entry) in ({"file", "function", "reason"}, {"file", "lines", "reason"})
        assert len(entry["reason"]) > 20
        if "function" in entry:
            assert entry["function"] in (ROOT / "packages" / entry["file"]).read_text()
