"""The error tree. Every failure that a user sees is one of these.

    RawpodError               125   rawpod's own failure
    ├── BadInput                2   a manifest, an option or a name is wrong
    ├── NotSupported          125   asked for something rawpod does not do; says which
    ├── SystemCallError       125   the kernel refused; carries call, arguments and errno
    ├── HostError             125   the host lacks something; carries the remedy
    │   └── ControllerMissing 125   a cgroup controller is not on the v2 hierarchy
    ├── NotFound              125   no such pod, container, image or object
    ├── Conflict              125   the object exists, is in use or has changed
    └── ContainerError        125   a container could not be assembled or controlled
        ├── CommandNotExecutable 126
        └── CommandNotFound      127

Messages are lower case, without a full stop, with the value quoted.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class RawpodError(Exception):
    """Anything rawpod reports to its user in one line.

    `remedy` says what would help, where that is known. `exit_code` is the program's exit status.
    """

    exit_code = 125

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class BadInput(RawpodError):
    """What the user wrote is wrong; nothing was changed."""

    exit_code = 2


class NotSupported(RawpodError):
    """A known feature that rawpod refuses because it would otherwise have to ignore it."""


class HostError(RawpodError):
    """The host lacks something; the remedy says how to get it."""


class ControllerMissing(HostError):
    """A limit needs a cgroup controller that is not on the v2 hierarchy."""

    def __init__(self, controller: str, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.controller = controller


class NotFound(RawpodError):
    """No object of that name."""


class Conflict(RawpodError):
    """The object exists already, is in use, or has changed meanwhile."""


class ContainerError(RawpodError):
    """A container could not be assembled or controlled."""


class CommandNotExecutable(ContainerError):
    """The command is there and cannot be executed (POSIX shells' status 126)."""

    exit_code = 126


class CommandNotFound(ContainerError):
    """There is no such command in the container (POSIX shells' status 127)."""

    exit_code = 127


class SystemCallError(RawpodError):
    """A system call failed: `name` with `arguments` gave `errno`."""

    def __init__(self, name: str, arguments: Mapping[str, object], errno: int, *, remedy: str | None = None) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self.errno = errno
        shown = ", ".join(f"{key}={_shown(value)}" for key, value in self.arguments.items())
        super().__init__(f"{name}({shown}): {self.strerror}", remedy=remedy)

    @property
    def strerror(self) -> str:
        """The errno's text, in lower case as in every message."""
        text = os.strerror(self.errno)
        return text[:1].lower() + text[1:]


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 200 else value[:197] + "...")
    return str(value)
