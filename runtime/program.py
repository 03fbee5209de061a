"""The program that a container executes: found by the container's own PATH, executed through the relay.

Callers look for the words of the shell and of Go in what goes wrong, so the messages keep them: "executable file not
found in $PATH" and "no such file or directory" go with exit status 127, "permission denied" with 126.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from kernel import events
from kernel.credentials import capget, capset, raise_ambient
from kernel.errors import CommandNotExecutable, CommandNotFound, ContainerError
from kernel.mounts import PROC_SUPER_MAGIC, statfs_type
from kernel.names import CAPABILITIES
from kernel.operation import Operation
from kernel.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from kernel.operation import Assembly
    from runtime.capabilities import Granted

_LOOK_UP = 1 << CAPABILITIES["CAP_DAC_OVERRIDE"] | 1 << CAPABILITIES["CAP_DAC_READ_SEARCH"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class FindProgram(Operation):
    """See that the program is there before the container counts as created: so callers of `create` learn of it."""

    name: str
    path: str
    directory: str

    def describe(self) -> str:
        return "find the program"

    def execute(self, assembly: Assembly) -> None:
        find(self.name, self.path, self.directory)


def search_path(env: Sequence[str]) -> str:
    """The PATH of a container's environment; the last one counts."""
    for entry in reversed(env):
        if entry.startswith("PATH="):
            return entry[5:]
    return DEFAULT_PATH


def find(name: str, path: str, directory: str = "") -> str:
    """The file that `name` stands for, as execvp(3) looks: by `path` unless there is a slash in it.

    Relative paths begin at `directory`. Raises CommandNotFound, or CommandNotExecutable for the first that is there
    and cannot be executed by the caller.
    """
    refused: ContainerError | None = None
    places = [""] if "/" in name else [entry or "." for entry in path.split(":")]
    for candidate in (os.path.join(place, name) for place in places):
        problem = _problem(os.path.join(directory, candidate))
        if problem == 0:
            return candidate
        if problem not in (errno.ENOENT, errno.ENOTDIR):
            refused = refused or refusal(candidate, problem, directory)
    if refused is not None:
        raise refused
    if "/" in name:
        raise CommandNotFound(f"{name!r}: no such file or directory")
    raise CommandNotFound(f"{name!r}: executable file not found in $PATH ({path!r})")


def _problem(path: str) -> int:
    """0 where the caller may execute the file, or the errno that execve(2) would give."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return errno.EISDIR
    except OSError as error:
        return error.errno or errno.EIO
    except ValueError:
        return errno.ENOENT
    return 0 if os.access(path, os.X_OK, effective_ids=True) else errno.EACCES


class Carried(Record):
    """Capabilities that the program is looked up with though its user has them for this one execve alone.

    The relay's own would take them away (capabilities(7), "Transformation of capabilities during execve()"): they are
    made ambient and inheritable for it, and `afterwards` is what it sets before the second: effective, permitted and
    inheritable sets, one or two times.
    """

    bits: int
    afterwards: tuple[tuple[int, int, int], ...]

    def raise_ambient(self) -> None:
        """Make them outlast an execve."""
        now = capget()
        capset(now.replace(inheritable=now.inheritable | self.bits))
        raise_ambient(self.bits)


def carried(program: str, user: int, granted: Granted) -> Carried | None:
    """What it takes to execute `program` as `user`; None where it is executable to him anyway, as for root."""
    # access(2) asks for the user himself, without the capabilities that he has.
    if user == 0 or os.access(program, os.X_OK):
        return None
    bits = granted.effective & granted.bounding & ~granted.ambient & _LOOK_UP
    if not bits:
        return None
    left = granted.ambient | bits
    inheritable = granted.inheritable
    # What leaves the inheritable set leaves the ambient one, and does not come back with it.
    first = (left, left, inheritable & ~bits)
    return Carried(bits, (first,) if not inheritable & bits else (first, (left, left, inheritable)))


def refusal(program: str, number: int, directory: str = "") -> ContainerError:
    """The error for a program that is there and that execve(2) refused."""
    name = repr(program)
    if number == errno.ENOENT:
        return CommandNotFound(f"{name}: no such file or directory: the interpreter or loader it names is missing")
    if number == errno.ENOEXEC:
        return CommandNotExecutable(
            f"{name}: exec format error: not for this machine ({os.uname().machine}), or a script without #!"
        )
    if number == errno.EISDIR:
        return CommandNotExecutable(f"{name}: permission denied: is a directory")
    if number == errno.E2BIG:
        return CommandNotExecutable(f"{name}: argument list too long: the arguments and the environment together")
    if number == errno.EACCES:
        return CommandNotExecutable(
            f"{name}: permission denied", remedy="chmod +x, or a mount without noexec, or another user"
        )
    return CommandNotExecutable(f"{name}: {os.strerror(number).lower()}")


def relay_path(relay: int) -> str | int:
    """How to execute the relay: by name where there is a real /proc, for filters that know execve(2) alone."""
    try:
        proc = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return relay
    try:
        return f"/proc/self/fd/{relay}" if statfs_type(proc) == PROC_SUPER_MAGIC else relay
    finally:
        os.close(proc)


def execute(
    relay: str | int,
    status: int,
    program: str,
    args: Sequence[str],
    environment: Mapping[str, str],
    confine: Callable[[], None] | None = None,
    carried: Carried | None = None,
) -> NoReturn:
    """Become `program`, by way of the relay, which writes the errno to descriptor `status` should that fail.

    `confine` is called last before: what it forbids is not needed any more, but for prctl(2) and capset(2) to raise
    capabilities that are `carried`.
    """
    events.emit("execve", {"path": program, "args": list(args)})
    # The relay closes it again, at the moment of its own execve.
    fcntl.fcntl(status, fcntl.F_SETFD, 0)
    if confine is not None:
        confine()
    if carried is not None:
        carried.raise_ambient()
    try:
        os.execve(relay, [str(status), program, *args], environment)
    except OSError as error:
        fcntl.fcntl(status, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        raise refusal(program, error.errno or 0) from None
