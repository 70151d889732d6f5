"""What a device sees of the world: descriptors it watches."""

import os
import threading

from vm_device import EventManager


def test_reset_after_the_loop_dropped_a_watch(rig, scripted):
    """A descriptor that the loop gave up on cannot make the driver's reset raise on its vCPU thread."""
    dropped = threading.Event()

    def note(error, _source):
        if "no longer watched" in str(error):
            dropped.set()

    def ready():
        raise RuntimeError("this device has a bug")

    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    with EventManager(on_error=note) as loop:
        loop.start()
        device = scripted(None)
        device.activate = lambda context: context.watch(read_end, ready)
        made = rig(device, loop=loop)
        made.driver.initialise()
        assert dropped.wait(60)
        made.mmio.write(0x70, 4, 0)
        assert made.mmio.read(0x70, 4) == 0
    os.close(read_end)
    os.close(write_end)
