"""The doubles other packages rely on."""

import pytest
from vm_device.testing import RamDevice, UartDriver


def test_ram_device_is_little_endian():
    """Values and bytes agree."""
    ram = RamDevice(4)
    ram.write(0, 4, 0x04030201)
    assert ram.data == b"\1\2\3\4"
    assert ram.read(1, 2) == 0x0302


def test_driver_notices_an_interrupt_storm():
    """A chip that interrupts for ever fails the test instead of hanging it."""

    def read(register):
        driver.raise_irq()
        return 1

    driver = UartDriver(read, lambda register, value: None)
    driver.raise_irq()
    with pytest.raises(AssertionError, match="interrupt storm"):
        driver.run()
