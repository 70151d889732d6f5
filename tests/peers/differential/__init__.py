"""One script of a driver and a device, played by several implementations of a queue.

`docs/virtio-queue-differences.md` says what for.
"""
