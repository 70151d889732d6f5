"""Where the public C header is."""

from __future__ import annotations

from pathlib import Path

__all__ = ("get_include",)


def get_include() -> str:
    """The folder that holds vmm_access.h, for a compiler's -I.

    Returns:
        An absolute path.
    """
    return str(Path(__file__).resolve().parent / "include")
