"""The command `vmm`, also as `python -m vmm_reference`: what comes before its own code is loaded."""

import gc
import sys


def main() -> int:
    """Run the command with this process's arguments and return its exit status."""
    # Imports and the machine's construction leave next to no garbage to collect; looking for it again and
    # again is a twelfth of their time. On again when the guest starts.
    gc.disable()
    try:
        from vmm_reference._cli import main as command  # noqa: PLC0415 - now, that is the point

        return command()
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
