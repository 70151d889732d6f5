"""Run `mypy --strict` over the shipped code of every package."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    sources = sorted(str(path.parent) for path in ROOT.glob("packages/*/src/*/py.typed"))
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *sources], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
