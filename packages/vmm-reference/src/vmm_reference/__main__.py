"""`python -m vmm_reference` is the command `vmm`."""

import sys

from vmm_reference._cli import main

sys.exit(main())
