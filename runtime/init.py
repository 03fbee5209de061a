"""The init stage: what runs in the new process between clone3 and execve.

It works through the plan's operations, tells the parent, waits at the gate for `start`, gives up its privileges and
becomes the payload. It imports nothing and looks nothing up in the new root: every module is loaded before clone3.
The last third (`become`) is shared with processes that join a running container.
"""

from __future__ import annotations

import _signal
import errno
import fcntl
import os
import resource
import stat
import termios

from kernel import credentials, events
from kernel.credentials import CapabilitySets
from kernel.errors import CommandNotExecutable, CommandNotFound, ContainerError
from kernel.operation import Assembly
from kernel.process import CLOSE_RANGE_CLOEXEC, close_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from kernel.operation import Operation
    from runtime import spec
    from runtime.channel import Channel, Gate

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Stage:
    """What the child is doing, for the message should it fail."""

    doing = "begin"


def assemble_and_become(
    operations: Sequence[Operation],
    process: spec.Process,
    stdio: tuple[int, int, int],
    channel: Channel,
    *,
    fds: dict[str, int],
    gate: Gate | None,
    parent_death_signal: int,
    preserve_fds: int,
) -> NoReturn:
    """The child's whole life before the payload. Never returns; ends the process with 125 to 127 on failure.

    `fds` are the descriptors that the parent's operations left in the assembly. With a `gate` whoever comes there
    starts the payload, otherwise the parent does.
    """
    stage = Stage()
    try:
        channel.forward_events()
        assembly = Assembly(channel.ask)
        assembly.fds.update(fds)
        own_session(stdio)
        for operation in operations:
            stage.doing = operation.describe()
            operation.execute(assembly)
        if process.terminal:
            stage.doing = "take the terminal"
            channel.send("console", fds=(assembly.fds["console"],))
            take_terminal(assembly.fds["terminal"], process.user.uid)
        stage.doing = "wait for start"
        channel.send("created")
        if gate is not None:
            channel.close()
            channel = gate.wait()
        message, _ = channel.receive()
        if message is None or message["kind"] != "start":
            os._exit(125)
        become(process, stage, parent_death_signal=parent_death_signal, preserve_fds=preserve_fds)
    except BaseException as error:
        _fail(channel, error, stage.doing)


def _fail(channel: Channel, error: BaseException, doing: str) -> NoReturn:
    try:
        channel.send_error(error, doing)
    finally:
        os._exit(getattr(error, "exit_code", 125))


def own_session(stdio: tuple[int, int, int]) -> None:
    """A session of its own, so that the host's terminal is nobody's to push input to, and the given stdio."""
    os.setsid()
    # First out of the way, then into place: a target may be another one's source.
    copies = [os.dup(fd) if fd < 3 else fd for fd in stdio]
    for target, fd in enumerate(copies):
        os.dup2(fd, target)
    # What is ignored stays so across execve (Python ignores SIGPIPE, a monitor more); the rest goes back by itself.
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def take_terminal(terminal: int, uid: int) -> None:
    """Make an open terminal the session's controlling one and stdio, owned by the process's user."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    os.fchown(terminal, uid, -1)
    for target in range(3):
        os.dup2(terminal, target)


def become(process: spec.Process, stage: Stage, *, parent_death_signal: int = 0, preserve_fds: int = 0) -> NoReturn:
    """Take on the process's identity and execute it. Descriptors 3 to 2 + `preserve_fds` stay open."""
    stage.doing = "set resource limits"
    set_rlimits(process.rlimits)
    stage.doing = "take on the identity"
    set_identity(process)
    if parent_death_signal:
        # After the change of user, which clears it (prctl(2)).
        credentials.set_parent_death_signal(parent_death_signal)
    stage.doing = f"change into {process.cwd!r}"
    change_directory(process.cwd)
    if process.no_new_privileges:
        credentials.set_no_new_privs()
    # The channel among them: its end is the parent's news of success.
    close_range(3 + preserve_fds, flags=CLOSE_RANGE_CLOEXEC)
    stage.doing = f"execute {process.args[0]!r}"
    execute(process.args, process.env)


def set_rlimits(rlimits: Sequence[spec.Rlimit]) -> None:
    """setrlimit(2) of each. Raising a hard limit needs CAP_SYS_RESOURCE."""
    for limit in rlimits:
        number = getattr(resource, limit.type)
        soft, hard = (value if value < 2**63 else resource.RLIM_INFINITY for value in (limit.soft, limit.hard))
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as error:
            raise ContainerError(
                f"{limit.type} soft {limit.soft} hard {limit.hard}: {error}",
                remedy="raising a hard limit needs CAP_SYS_RESOURCE",
            ) from error


def set_identity(process: spec.Process) -> None:
    """Groups, user and the five capability sets, in the order that capabilities(7) leaves possible."""
    user, wanted = process.user, process.capabilities
    present = host_bounding_set()
    sets = _capability_masks(wanted, present)
    if user.umask is not None:
        os.umask(user.umask)
    credentials.drop_bounding(sets["bounding"], present)
    credentials.set_keep_capabilities(True)
    # Always, also for none: the groups would be those of whoever started rawpod.
    os.setgroups(user.additional_gids)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    credentials.set_keep_capabilities(False)
    credentials.capset(CapabilitySets(sets["effective"], sets["permitted"], sets["inheritable"]))
    credentials.clear_ambient()
    credentials.raise_ambient(sets["ambient"])


_bounding: list[int] = []


def host_bounding_set() -> int:
    """The bounding set that rawpod itself runs with. Asked once, before clone3: 41 calls that no child has to make."""
    if not _bounding:
        _bounding.append(credentials.bounding_set())
    return _bounding[0]


def forget_bounding_set() -> None:
    """Ask anew next time: another user namespace comes with a full set."""
    _bounding.clear()


def _capability_masks(wanted: spec.Capabilities | None, present: int) -> dict[str, int]:
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    if wanted is None:
        return dict.fromkeys(kinds, 0)
    # What the host's bounding set lacks cannot be given (DESIGN: intersected; `rawpod doctor` tells).
    sets = {kind: credentials.mask(getattr(wanted, kind)) & present for kind in kinds}
    # The kernel takes no others (capabilities(7)); `runc spec` writes ambient ones that are not inheritable.
    sets["ambient"] &= sets["permitted"] & sets["inheritable"]
    return sets


def change_directory(path: str) -> None:
    """chdir(2), and proof that the directory lies inside the root (CVE-2024-21626)."""
    try:
        os.chdir(path)
    except FileNotFoundError:
        raise ContainerError(f"no directory {path!r} in the container") from None
    try:
        os.getcwd()
    except FileNotFoundError:
        # getcwd(3) answers so where the kernel says "(unreachable)": no way leads there from the root.
        raise ContainerError(f"the working directory {path!r} is outside the container's root") from None


def execute(args: Sequence[str], env: Sequence[str]) -> NoReturn:
    """execve(2), looking a bare name up in the environment's PATH as execvp(3) does."""
    environment = dict(entry.split("=", 1) for entry in env)
    name = args[0]
    if "/" in name:
        candidates = [name]
    else:
        path = environment.get("PATH", DEFAULT_PATH)
        candidates = [os.path.join(directory or ".", name) for directory in path.split(":")]
    refused: OSError | None = None
    for candidate in candidates:
        events.emit("execve", {"path": candidate, "args": list(args)})
        try:
            os.execve(candidate, list(args), environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) or os.path.lexists(candidate):
                refused = refused or _named(error, candidate)
    if refused is None:
        raise CommandNotFound(f"no such command in the container: {name!r}")
    raise _refusal(refused)


def _named(error: OSError, candidate: str) -> OSError:
    error.filename = candidate
    return error


def _refusal(error: OSError) -> ContainerError:
    name = error.filename
    if error.errno == errno.ENOENT:
        return CommandNotFound(f"{name!r} is there, but the interpreter or loader it names is not")
    if error.errno == errno.ENOEXEC:
        return CommandNotExecutable(
            f"{name!r} is not for this machine ({os.uname().machine}): wrong architecture, or a script without #!"
        )
    if error.errno == errno.EACCES and stat.S_ISDIR(os.stat(name).st_mode):
        return CommandNotExecutable(f"{name!r} is a directory")
    if error.errno == errno.E2BIG:
        return CommandNotExecutable(f"the arguments and environment of {name!r} are too long")
    return CommandNotExecutable(f"{name!r} cannot be executed: {os.strerror(error.errno or 0).lower()}")
