"""Pack one program as /init of a newc cpio archive: mkcpio.py PROGRAM ARCHIVE."""

import sys
from pathlib import Path


def entry(name: bytes, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """Return one newc member (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name + b"\0"
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)


if __name__ == "__main__":
    program, archive = sys.argv[1:]
    members = (
        entry(b"dev", 0o040755),
        entry(b"dev/console", 0o020600, device=(5, 1)),
        entry(b"init", 0o100755, Path(program).read_bytes()),
        entry(b"TRAILER!!!", 0),
    )
    Path(archive).write_bytes(b"".join(members))
