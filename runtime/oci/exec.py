"""`exec`: run a further process in a container."""

from __future__ import annotations

import os

from kernel.errors import BadInput, Conflict, NotFound
from kernel.pidfd import wait_pidfd
from runtime import spec, spec_codec, state
from runtime.checks.config import check_process
from runtime.exec import exec_in
from runtime.oci import bundle, create
from runtime.oci.options import Option, integer
from runtime.oci.run import forward_signals
from runtime.oci.state import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgroups.cgroup import Cgroup
    from runtime.oci.main import Invocation
    from runtime.oci.options import Parsed

OPTIONS = (
    Option("--process -p", "FILE", "the process as JSON, instead of a command"),
    Option("--detach -d", help="return once it executes"),
    Option("--tty -t", help="with a terminal of its own"),
    Option("--console-socket", "SOCKET", "unix socket that the terminal's descriptor is sent to"),
    Option("--pid-file", "FILE", "where the process's id is written"),
    Option("--pidfd-socket", "SOCKET", "unix socket that a pidfd of the process is sent to"),
    Option("--preserve-fds", "N", "descriptors 3 to 2 + N go to the process"),
    Option("--cwd", "DIR", "directory to run in"),
    Option("--env -e", "K=V", "a variable more", many=True),
    Option("--user -u", "UID[:GID]", "who the process runs as"),
    Option("--additional-gids -g", "GID", "a supplementary group", many=True),
    Option("--cap -c", "NAME", "a capability more", many=True),
    Option("--no-new-privs", help="execve never grants more privileges"),
    Option("--process-label", "LABEL", "SELinux label"),
    Option("--apparmor", "PROFILE", "AppArmor profile"),
    Option("--cgroup", "PATH", "a cgroup below the container's"),
    Option("--ignore-paused", help="run it in a paused container, too: it starts when the container goes on"),
)
WORDS = "[OPTIONS] ID COMMAND [ARGUMENT…]"
IN_ORDER = True


def run(invocation: Invocation) -> int:
    """Run the process; the exit status is its, 128 + n after signal n, and 255 when it could not be run."""
    parsed = invocation.parsed
    container_id = invocation.container_id()
    directory = invocation.directory(container_id)
    record = current(directory)
    _check_status(record, parsed)
    config = bundle.kept_config(directory)
    process = _process(parsed, config)
    console_socket = parsed.text("--console-socket")
    detach = parsed.flag("--detach")
    if console_socket and not process.terminal:
        raise BadInput("--console-socket is given and the process has no terminal", remedy="--tty")
    if process.terminal and detach and not console_socket:
        raise BadInput("a terminal and nobody to take it", remedy="use --console-socket")
    child, console = exec_in(
        record,
        _cgroup(record, parsed.text("--cgroup")),
        process,
        (0, 1, 2),
        linux=config.linux,
        preserve_fds=create.preserved(parsed.number("--preserve-fds")),
    )
    if console is not None and console_socket:
        create.send_console(console_socket, console)
        console = None
    if pidfd_socket := parsed.text("--pidfd-socket"):
        from runtime.oci.console import send_descriptor

        send_descriptor(pidfd_socket, os.dup(child.pidfd), b"pidfd")
    if pid_file := parsed.text("--pid-file"):
        state.replace_file(pid_file, str(child.pid).encode())
    if detach:
        return 0
    forward_signals(child.pidfd)
    if console is not None:
        from runtime.oci.console import keep_line_ends, relay

        keep_line_ends(console)
        relay(console, child.pidfd)
    return wait_pidfd(child.pidfd).shell


def _check_status(record: state.State, parsed: Parsed) -> None:
    if record.status == "paused":
        if not parsed.flag("--ignore-paused"):
            raise Conflict(f"cannot exec in a paused container: {record.id!r}", remedy="resume it, or --ignore-paused")
    elif not record.status.can_kill:
        raise NotFound(f"container {record.id!r} is {record.status}: not running")


def _process(parsed: Parsed, config: spec.Config) -> spec.Process:
    """What is to run: the container's own process with what was given changed, or the one in --process."""
    own = config.process
    if own is None:
        raise BadInput("the container's configuration has no process")
    command = parsed.words[1:]
    if path := parsed.text("--process"):
        if command:
            raise BadInput("--process and a command are given")
        process = _from_file(path, own)
    else:
        if not command:
            raise BadInput("a command is needed, or --process")
        process = own.replace(args=command, terminal=parsed.flag("--tty"), env=[*own.env, *parsed.many("--env")])
        process.cwd = parsed.text("--cwd", own.cwd)
        _change_user(process, parsed)
        if extra := parsed.many("--cap"):
            process.capabilities = _more_capabilities(own.capabilities or spec.Capabilities(), extra)
        process.apparmor_profile = parsed.text("--apparmor", own.apparmor_profile)
        process.selinux_label = parsed.text("--process-label", own.selinux_label)
    if parsed.flag("--no-new-privs"):
        process.no_new_privileges = True
    if parsed.flag("--tty"):
        process.terminal = True
    check_process(process)
    return process


def _from_file(path: str, own: spec.Process) -> spec.Process:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise BadInput(f"no process file {path!r}") from None
    process = spec_codec.loads(spec.Process, data, "process")
    # What a caller leaves out is as in the container: runc has it so, and callers count on it.
    if process.capabilities is None:
        process.capabilities = own.capabilities
    process.no_new_privileges = process.no_new_privileges or own.no_new_privileges
    process.apparmor_profile = process.apparmor_profile or own.apparmor_profile
    process.selinux_label = process.selinux_label or own.selinux_label
    process.rlimits = process.rlimits or own.rlimits
    return process


def _change_user(process: spec.Process, parsed: Parsed) -> None:
    user = process.user.replace()
    if text := parsed.text("--user"):
        uid, colon, gid = text.partition(":")
        user.uid = integer("--user", uid)
        user.gid = integer("--user", gid) if colon else user.gid
    if groups := parsed.many("--additional-gids"):
        user.additional_gids = [*user.additional_gids, *(integer("--additional-gids", group) for group in groups)]
    process.user = user


def _more_capabilities(own: spec.Capabilities, names: list[str]) -> spec.Capabilities:
    """With these as well in the sets that count at once; ambient only what is inheritable, as the kernel has it."""
    wanted = [name if name.startswith("CAP_") else f"CAP_{name}" for name in (name.upper() for name in names)]
    changed = own.replace()
    for kind in ("bounding", "effective", "permitted"):
        setattr(changed, kind, list(dict.fromkeys([*getattr(own, kind), *wanted])))
    changed.ambient = [*own.ambient, *(name for name in wanted if name in own.inheritable and name not in own.ambient)]
    return changed


def _cgroup(record: state.State, below: str) -> Cgroup | None:
    from cgroups.cgroup import Cgroup

    if not record.cgroup:
        if below:
            raise BadInput("--cgroup: the container has no cgroup of its own")
        return None
    own = Cgroup(record.cgroup)
    if below:
        if ".." in below.split("/"):
            raise BadInput(f"--cgroup {below!r} leaves the container's cgroup")
        wanted = Cgroup(os.path.normpath(f"{record.cgroup}/{below.strip('/')}"))
        if not wanted.exists():
            raise NotFound(f"--cgroup {below!r}: no such cgroup in the container")
        return wanted
    if own.children() and own.enabled():
        # An init in the container made cgroups of its own: no process can be born beside them, so it goes to where
        # the container's first process went, as with runc and crun.
        from cgroups import hierarchy

        with open(f"/proc/{record.pid}/cgroup") as file:
            membership = next(line for line in file if line.startswith("0::"))
        return Cgroup(hierarchy.find().at(membership.strip()[3:]))
    return own
