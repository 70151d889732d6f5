"""The benchmarks' modules are scripts of one folder, not a package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
