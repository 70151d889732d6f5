"""What a device sees of the world: descriptors it watches."""

import os
import threading

from vm_device import EventManager


class Watcher:
    """A device that watches one descriptor and fails whenever it is readable."""

    id, device_id, features, queue_sizes = "watcher", 99, 0, (4,)

    def __init__(self, fd):
        self.fd = fd

    def read_config(self, offset, size):
        return b""

    def write_config(self, offset, data):
        raise ValueError("no such field")

    def activate(self, context):
        context.watch(self.fd, self.ready)

    def ready(self):
        raise RuntimeError("this device has a bug")

    def reset(self):
        pass

    def describe(self):
        return {}

    def state(self):
        return {}

    def restore(self, state):
        pass

    def close(self):
        pass


def test_reset_after_the_loop_dropped_a_watch(rig):
    """A descriptor that the loop gave up on cannot make the driver's reset raise on its vCPU thread."""
    dropped = threading.Event()

    def note(error, _source):
        if "no longer watched" in str(error):
            dropped.set()

    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    with EventManager(on_error=note) as loop:
        loop.start()
        made = rig(Watcher(read_end), loop=loop)
        made.driver.initialise()
        assert dropped.wait(60)
        made.mmio.write(0x70, 4, 0)
        assert made.mmio.read(0x70, 4) == 0
    os.close(read_end)
    os.close(write_end)
