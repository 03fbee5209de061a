"""`create`: assemble a container from a bundle; its process waits until `start`."""

from __future__ import annotations

import fcntl
import os

from cgroups import hierarchy
from kernel.cleanup import OnFailure
from kernel.errors import BadInput, Conflict, NotSupported
from runtime import state
from runtime.create import create
from runtime.limits import add_default_devices
from runtime.oci import bundle, placement
from runtime.oci.options import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgroups.cgroup import Cgroup
    from runtime import spec
    from runtime.container import Container
    from runtime.oci.main import Invocation
    from runtime.oci.options import Parsed

OPTIONS = (
    Option("--bundle -b", "DIR", "the bundle (the current directory)"),
    Option("--config -f", "FILE", "another configuration than the bundle's config.json"),
    Option("--console-socket", "SOCKET", "unix socket that the terminal's descriptor is sent to"),
    Option("--pid-file", "FILE", "where the process's id is written"),
    Option("--pidfd-socket", "SOCKET", "unix socket that a pidfd of the process is sent to"),
    Option("--preserve-fds", "N", "descriptors 3 to 2 + N go to the process"),
    Option("--no-new-keyring", help="leave the process in the caller's session keyring"),
    Option("--no-pivot", help="chroot(2) in place of pivot_root(2), for hosts that run in an initramfs: less safe"),
)
WORDS = "[OPTIONS] ID"
IN_ORDER = False


def run(invocation: Invocation) -> int:
    """Create the container."""
    invocation.no_more_words(1)
    container = created(invocation)
    os.close(container.pidfd)
    return 0


def created(invocation: Invocation, *, own_terminal: bool = False) -> Container:
    """Create the container that the invocation describes and tell its caller what it asked to be told.

    With `own_terminal` the caller keeps the terminal's descriptor, otherwise a terminal needs --console-socket. What
    was made is gone again after a failure.
    """
    parsed = invocation.parsed
    container_id = invocation.container_id()
    directory = invocation.directory(container_id)
    where, data, config = bundle.load(parsed)
    add_default_devices(config)
    pivot = not parsed.flag("--no-pivot")
    if not pivot:
        _check_chroot(config)
    _check_terminal(config, parsed.text("--console-socket"), own_terminal)
    listening = listen_fds()
    if listening and config.process is not None:
        config.process.env += [f"LISTEN_FDS={listening}", "LISTEN_PID=1"]
    preserve = preserved(listening + parsed.number("--preserve-fds"))
    found = hierarchy.find()
    with OnFailure() as on_failure:
        _claim(invocation.root, directory, container_id)
        on_failure.call(forget, directory)
        with open(os.path.join(directory, bundle.CONFIG), "wb") as file:
            file.write(data)
        if "NOTIFY_SOCKET" in os.environ:
            from runtime.oci import notify

            notify.prepare(config, directory)
        scope = placement.scope_of(config, container_id, invocation.cgroup_manager)
        if scope is not None:
            cgroup: Cgroup | None = scope.cgroup(found)
        else:
            cgroup = placement.cgroup_of(config, container_id, invocation.cgroup_manager, found)
        on_failure.call(placement.forget_parent, cgroup)
        container = create(
            container_id,
            config,
            where,
            cgroup=cgroup,
            scope=scope,
            hierarchy=found,
            stdio=(0, 1, 2),
            state_dir=directory,
            detached=True,
            preserve_fds=preserve,
            new_keyring=not parsed.flag("--no-new-keyring"),
            pivot=pivot,
        )
        on_failure.call(end, container)
        if not pivot:
            container.warnings.append("--no-pivot: whoever has CAP_SYS_ADMIN in the container gets at the host's files")
        _tell(container, parsed)
    invocation.warn(container)
    return container


def _check_chroot(config: spec.Config) -> None:
    """The mounts of the host stay below the root: those of a user namespace cannot be taken out of its reach."""
    kinds = {namespace.type: namespace.path for namespace in config.linux.namespaces} if config.linux else {}
    if "user" in kinds:
        raise NotSupported("--no-pivot with a user namespace: it would find the host's /proc without masks")
    if kinds.get("mount"):
        raise NotSupported("--no-pivot with a mount namespace that is joined: its root would stay the host's")


def _check_terminal(config: spec.Config, console_socket: str, own_terminal: bool) -> None:
    terminal = config.process is not None and config.process.terminal
    if terminal and not console_socket and not own_terminal:
        raise BadInput("process.terminal is set and nobody takes the terminal", remedy="use --console-socket")
    if console_socket and not terminal:
        raise BadInput("--console-socket is given and process.terminal is not set")


def _tell(container: Container, parsed: Parsed) -> None:
    """What the caller asked to be told: the terminal, a pidfd, the pid."""
    console_socket = parsed.text("--console-socket")
    if container.console_fd is not None and console_socket:
        send_console(console_socket, container.console_fd)
        container.console_fd = None
    if pidfd_socket := parsed.text("--pidfd-socket"):
        from runtime.oci.console import send_descriptor

        send_descriptor(pidfd_socket, os.dup(container.pidfd), b"pidfd")
    if pid_file := parsed.text("--pid-file"):
        state.replace_file(pid_file, str(container.pid).encode())


def send_console(path: str, master: int) -> None:
    """Send a terminal's descriptor where the caller listens, and close ours."""
    from runtime.oci.console import send_descriptor

    send_descriptor(path, master, b"/dev/ptmx")


def listen_fds() -> int:
    """How many sockets systemd passed to us for the container, as runc takes them (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    count = os.environ.get("LISTEN_FDS", "")
    return int(count) if count.isascii() and count.isdigit() else 0


def preserved(count: int) -> int:
    """`count` after a look at the descriptors: one that is not open would be one of our own. Raises BadInput."""
    if count < 0:
        raise BadInput(f"--preserve-fds {count} is negative")
    for fd in range(3, 3 + count):
        try:
            fcntl.fcntl(fd, fcntl.F_SETFD, 0)
        except OSError:
            raise BadInput(f"--preserve-fds {count}: descriptor {fd} is not open") from None
    return count


def end(container: Container) -> None:
    """Kill and delete a container that was just made."""
    container.kill()
    container.wait()
    container.delete()
    placement.forget_parent(container.cgroup)


def forget(directory: str) -> None:
    """Remove a container's directory."""
    from runtime.oci.delete import remove_directory

    remove_directory(directory)


def _claim(root: str, directory: str, container_id: str) -> None:
    os.makedirs(root, mode=0o700, exist_ok=True)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        raise Conflict(f"container {container_id!r} exists", remedy="delete it first, or take another id") from None
