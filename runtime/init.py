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
import termios

from kernel import credentials, names, rlimits
from kernel.credentials import CapabilitySets
from kernel.errors import ContainerError
from kernel.operation import Assembly
from kernel.process import CLOSE_RANGE_CLOEXEC, close_range
from kernel.record import Record
from kernel.relay import make as make_relay
from kernel.scheduling import personality, set_mempolicy
from runtime import labels, program
from runtime.capabilities import grant
from runtime.channel import INIT_NAME
from runtime.home import home_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from kernel.operation import Operation
    from runtime import spec
    from runtime.channel import Channel, Gate
    from runtime.hooks import Subject
    from runtime.seccomp.compiler import Filter


class Extras(Record):
    """What becoming the payload takes beside the process's description; all of it is made ready before clone3.

    `relay` is a descriptor of what payloads are executed through. `capabilities` are those that can be granted.
    Descriptors from 3 on, `preserve_fds` of them, are passed on. `hooks` are run last before the payload is executed.
    `filter` is that of `linux.seccomp`. `keep_groups` leaves it the supplementary groups of whoever started rawpod.
    """

    relay: int
    capabilities: int
    preserve_fds: int = 0
    parent_death_signal: int = 0
    linux: spec.Linux | None = None
    hooks: tuple[spec.Hook, ...] = ()
    subject: Subject | None = None
    filter: Filter | None = None
    keep_groups: bool = False


def keeps_groups(annotations: Mapping[str, str]) -> bool:
    """Whether the payload has its creator's groups, as `podman run --group-add keep-groups` asks and crun has it."""
    return annotations.get("run.oci.keep_original_groups") == "1"


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
    extras: Extras,
) -> NoReturn:
    """The child's whole life before the payload. Never returns; ends the process with 125 to 127 on failure.

    `fds` are the descriptors that the parent's operations left in the assembly. With a `gate` whoever comes there
    starts the payload, otherwise the parent does.
    """
    stage = Stage()
    try:
        credentials.set_name(INIT_NAME)
        channel.forward_events()
        close_inherited(3 + extras.preserve_fds)
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
            kept, _ = channel.receive()
            if kept is None:
                os._exit(125)
            channel.close()
            channel = gate.wait()
            channel.forward_events()
        message, _ = channel.receive()
        if message is None or message["kind"] != "start":
            os._exit(125)
        become(process, stage, channel, extras, assembly.fds.get("attr", -1))
    except BaseException as error:
        _fail(channel, error, stage.doing)


def _fail(channel: Channel, error: BaseException, doing: str) -> NoReturn:
    try:
        channel.send_error(error, doing)
    finally:
        os._exit(getattr(error, "exit_code", 125))


def close_inherited(first: int) -> None:
    """Close what our caller left open to us from `first` on: a container that waits for its start would keep it open.

    Whoever reads a caller's pipe to its end would wait for the container. All of ours are closed by execve.
    """
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd >= first and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            pass  # the one by which the directory was read


def own_session(stdio: tuple[int, int, int]) -> None:
    """A session of its own, so that the host's terminal is nobody's to push input to, and the given stdio."""
    os.setsid()
    # First out of the way, then into place: a target may be another one's source.
    copies = [os.dup(fd) if fd < 3 else fd for fd in stdio]
    for target, fd in enumerate(copies):
        os.dup2(fd, target)
        if fd != stdio[target]:
            # Not until execve: whoever reads the creator's output waits for its end, and with a terminal it is over.
            os.close(fd)
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


def become(process: spec.Process, stage: Stage, channel: Channel, extras: Extras, attributes: int = -1) -> NoReturn:
    """Take on the process's attributes and identity and execute it. `attributes` is what PinAttributes opened.

    What needs privileges comes before the identity; what would hinder the rest, limits first of all, comes last.
    """
    if not process.args:
        raise ContainerError("config.json has no process to run (config.md: required when start is called)")
    stage.doing = "take on the attributes"
    environment = complete_environment(process)
    relay = program.relay_path(extras.relay)
    set_attributes(process, extras.linux, attributes)
    stage.doing = f"change into {process.cwd!r}"
    entered = enter_directory(process.cwd)
    stage.doing = "take on the identity"
    confine = seccomp_loader(process, channel, extras)
    until_loaded = confine is not None and not process.no_new_privileges
    set_identity(process, extras.capabilities, until_loaded=until_loaded, keep_groups=extras.keep_groups)
    if extras.parent_death_signal:
        # After the change of user, which clears it (prctl(2)).
        credentials.set_parent_death_signal(extras.parent_death_signal)
    if not entered:
        stage.doing = f"change into {process.cwd!r}"
        change_directory(process.cwd)
    stage.doing = "execute"
    found = program.find(process.args[0], environment.get("PATH", program.DEFAULT_PATH))
    channel.tell_program(found)
    granted, _ = grant(process.capabilities, extras.capabilities)
    carried = program.carried(found, process.user.uid, granted)
    if carried is not None:
        relay = program.relay_path(make_relay(carried.afterwards))
    # The channel among them: its end is the parent's news of success.
    close_range(3 + extras.preserve_fds, flags=CLOSE_RANGE_CLOEXEC)
    stage.doing = "set resource limits"
    set_rlimits(process.rlimits)
    if process.no_new_privileges:
        credentials.set_no_new_privs()
    if extras.hooks and extras.subject is not None:
        if confine is not None:
            # They are programs of the container's: what it is not allowed to call, neither are they.
            stage.doing = "load the seccomp filter"
            confine()
            confine = None
        stage.doing = "run hooks"
        run_start_hooks(extras.hooks, extras.subject, environment)
    stage.doing = "execute"
    program.execute(relay, channel.fileno(), found, process.args, environment, confine, carried)


def complete_environment(process: spec.Process) -> dict[str, str]:
    """The environment, of which a later entry wins over an earlier one, and HOME where it is not given or empty."""
    environment = dict(entry.split("=", 1) for entry in process.env)
    if not environment.get("HOME"):
        environment["HOME"] = home_of(process.user.uid)
    return environment


def set_attributes(process: spec.Process, linux: spec.Linux | None, attributes: int) -> None:
    """What the process has from `linux` and is set by itself: personality, memory policy; and its labels."""
    if linux is not None and linux.personality is not None:
        personality(names.PERSONALITIES[linux.personality.domain])
    if linux is not None and (policy := linux.memory_policy) is not None:
        mode = names.MEMORY_POLICIES[policy.mode]
        for flag in policy.flags:
            mode |= names.MEMORY_POLICY_FLAGS[flag]
        set_mempolicy(mode, names.parse_list(policy.nodes) if policy.nodes else ())
    if attributes >= 0:
        labels.apply(process, attributes)


def set_rlimits(limits: Sequence[spec.Rlimit]) -> None:
    """The limits as they are asked for; hard limits that go up were raised by RaiseRlimit."""
    for limit in limits:
        rlimits.set_rlimit(0, names.RLIMITS[limit.type], limit.soft, limit.hard)


def seccomp_filter(linux: spec.Linux | None, process: spec.Process) -> Filter | None:
    """The filter for a container's processes, made before clone3; None without a profile."""
    if linux is None or linux.seccomp is None:
        return None
    from runtime import confinement

    return confinement.prepare(linux.seccomp, no_new_privileges=process.no_new_privileges)


def seccomp_loader(process: spec.Process, channel: Channel, extras: Extras) -> Callable[[], None] | None:
    """What puts the seccomp filter in force, to be called last of all; None without a profile."""
    filter, profile = extras.filter, extras.linux.seccomp if extras.linux else None
    if filter is None or profile is None:
        return None
    from runtime import confinement  # loaded already, by whoever made `filter`

    granted, _ = grant(process.capabilities, extras.capabilities)
    sets = CapabilitySets(granted.effective, granted.permitted, granted.inheritable)
    kept = None if process.no_new_privileges else sets
    return lambda: confinement.load(filter, profile, channel, kept)


def set_identity(
    process: spec.Process, available: int, *, until_loaded: bool = False, keep_groups: bool = False
) -> None:
    """Groups, user and the five capability sets, in the order that capabilities(7) leaves possible.

    With `until_loaded` the capability to load a seccomp filter is kept as well.
    """
    user = process.user
    granted, _ = grant(process.capabilities, available)
    if user.umask is not None:
        os.umask(user.umask)
    credentials.drop_bounding(granted.bounding, available)
    credentials.set_keep_capabilities(True)
    if not keep_groups:
        # Also for none: the groups would be those of whoever started rawpod.
        os.setgroups(user.additional_gids)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    credentials.set_keep_capabilities(False)
    sets = CapabilitySets(granted.effective, granted.permitted, granted.inheritable)
    if until_loaded:
        from runtime.confinement import keep_until_loaded

        sets = keep_until_loaded(sets)
    credentials.capset(sets)
    credentials.clear_ambient()
    credentials.raise_ambient(granted.ambient)


def run_start_hooks(hooks: Sequence[spec.Hook], subject: Subject, environment: Mapping[str, str]) -> None:
    """The startContainer hooks: the container's own programs, with the identity of its process, and never our
    environment."""
    from runtime.hooks import run_all  # loaded already, by whoever made `subject`

    run_all("startContainer", hooks, subject.state("created", os.getpid()), environment=environment)


_bounding: list[int] = []


def host_bounding_set() -> int:
    """The bounding set that rawpod itself runs with. Asked once, before clone3: 41 calls that no child has to make."""
    if not _bounding:
        _bounding.append(credentials.bounding_set())
    return _bounding[0]


def enter_directory(path: str) -> bool:
    """change_directory() while privileged, as the process's user may not be let in; False if root is not either."""
    try:
        change_directory(path)
    except PermissionError:
        return False
    return True


def change_directory(path: str) -> None:
    """chdir(2), and proof that the directory lies inside the root (CVE-2024-21626)."""
    try:
        os.chdir(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = os.strerror(error.errno or errno.ENOENT).lower()
        raise ContainerError(f"no directory {path!r} in the container: {problem}") from None
    try:
        os.getcwd()
    except FileNotFoundError:
        # getcwd(3) answers so where the kernel says "(unreachable)": no way leads there from the root.
        raise ContainerError(f"the working directory {path!r} is outside the container's root") from None
