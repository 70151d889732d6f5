"""What the reference VMM tells its user.

```
VmmError                 every error of this package; its text is the one line a user sees
├── ConfigError          an option is wrong: names option, key, value and the cure (exit status 2)
├── HostError            this host cannot do it: names what is missing and the cure (exit status 2)
└── StateError           a call that the machine's state forbids; nothing changed
```

Errors of the packages below pass through unchanged; the command line prints them the same way.
"""


class VmmError(Exception):
    """Root of this package's errors."""


class ConfigError(VmmError):
    """An option that cannot be: nothing was created."""

    def __init__(self, option: str, problem: str) -> None:
        """Name the option as the user wrote it ("--disk path") and the problem with its cure."""
        self.option, self.problem = option, problem
        super().__init__(f"{option}: {problem}")


class HostError(VmmError):
    """This host lacks something that was asked for."""


class StateError(VmmError):
    """The machine's state forbids the call; nothing changed."""
