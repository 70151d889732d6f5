"""The address map."""

from linux_loader.arch import x86_64


def test_everything_low_fits_below_the_ebda():
    """The command line's 64 KiB end before low RAM does, and constants are exported sorted."""
    assert x86_64.CMDLINE_ADDR + x86_64.CMDLINE_MAX_SIZE <= x86_64.LOW_RAM_END < x86_64.HIGH_RAM_START
    assert x86_64.SETUP_DATA_ADDR < x86_64.CMDLINE_ADDR
    assert tuple(sorted(x86_64.__all__)) == x86_64.__all__
