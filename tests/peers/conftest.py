"""The modules of the differential test are one package beside its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
