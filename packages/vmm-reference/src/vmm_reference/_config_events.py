"""What `--event-monitor` says."""

from pathlib import Path

import attrs

from vmm_reference._config_keys import EVENT_MONITOR_KEYS
from vmm_reference._errors import ConfigError
from vmm_reference._grammar import Options, parse_count


@attrs.frozen
class EventMonitorConfig:
    """Where events are written as JSON: exactly one of `path` and `fd` (open); else ConfigError."""

    path: Path | None = None
    fd: int | None = None

    @classmethod
    def parse(cls, text: str) -> "EventMonitorConfig":
        """Read "path=events.json" or "fd=3"; raises `ConfigError`."""
        options = Options("--event-monitor", text)
        path = Path(options.require("path")) if options.has("path") else None
        config = cls(path, options.take("fd", parse_count, None))
        options.finish(EVENT_MONITOR_KEYS)
        return config

    def __attrs_post_init__(self) -> None:
        if (self.path is None) == (self.fd is None):
            given = "neither" if self.path is None else f"path={self.path} and fd={self.fd}"
            raise ConfigError("--event-monitor", f"{given} was given; give exactly one of path= and fd=")
