"""``python -m vmm_testhost`` is the command ``vmm-testhost``."""

import sys

from ._cli import main

sys.exit(main())
