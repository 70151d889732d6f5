"""The boot timer."""

from vm_device import BootTimer


def test_marks():
    """Each write to the first port is reported with the time; reads float."""
    marks = []
    timer = BootTimer(lambda when, value: marks.append((when, value)), clock_ns=iter(range(100)).__next__)
    timer.write(0, 1, BootTimer.USERSPACE)
    timer.write(0, 4, 0x12345678)
    timer.write(1, 1, 9)
    assert marks == [(0, 0x7B), (1, 0x12345678)]
    assert timer.read(0, 2) == 0xFFFF
    assert BootTimer.describe().ranges[0].base == 0x5F0
