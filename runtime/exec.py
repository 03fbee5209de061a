"""A further process in a running container: it joins the namespaces, then becomes what it is to run."""

from __future__ import annotations

import os

from kernel import credentials, relay
from kernel.names import parse_list
from kernel.operation import Assembly
from kernel.pidfd import wait_pidfd
from kernel.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    Child,
    clone3,
    setns,
)
from kernel.scheduling import sched_setaffinity
from rootfs.devices import open_terminal
from runtime import labels, spec, state
from runtime.attributes import JoinSessionKeyring, ResetAffinity, SetAffinity, from_process
from runtime.capabilities import ALL
from runtime.channel import Channel, error_from
from runtime.checks.config import check_process
from runtime.init import (
    Extras,
    Stage,
    become,
    host_bounding_set,
    keeps_groups,
    own_session,
    seccomp_filter,
    take_terminal,
)
from runtime.ownership import own_pipes
from runtime.user_namespace import BecomeRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from cgroups.cgroup import Cgroup
    from kernel.operation import Operation

_ALWAYS_JOINED = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP


def exec_in(
    record: state.State,
    cgroup: Cgroup | None,
    process: spec.Process,
    stdio: tuple[int, int, int],
    *,
    linux: spec.Linux | None,
    preserve_fds: int = 0,
) -> tuple[Child, int | None]:
    """Run `process` in the container that `record` tells of; the child and, for a terminal, its master's descriptor.

    The caller becomes the parent. From here on its own new children would be born in the container's pid namespace:
    it is for a process that does nothing else. Raises NotFound when the container has ended, CommandNotFound,
    CommandNotExecutable and ContainerError as `Container.start` does. `linux` is the container's own, of which the
    process has personality, memory policy and seccomp filter too; `preserve_fds` is as for create.
    """
    check_process(process)
    labels.check(process)
    filter, keep_groups = seccomp_filter(linux, process), keeps_groups(record.annotations)
    target = state.open_process(record)
    joined = _ALWAYS_JOINED | _foreign(record.pid)
    cgroup_fd = cgroup.open() if cgroup else -1
    # While the child has the host's memory and descriptors and is visible inside, nobody there may look into it
    # (CVE-2016-9962); execve makes it dumpable again.
    credentials.set_dumpable(False)
    available = ALL if joined & CLONE_NEWUSER else host_bounding_set()
    extras = Extras(relay.make(), available, preserve_fds, linux=linux, filter=filter, keep_groups=keep_groups)
    ours, theirs = Channel.pair()
    try:
        own_pipes(stdio, linux, process)
        setns(target, CLONE_NEWPID)
        child = _clone(process.exec_cpu_affinity, cgroup_fd)
        if child.pid == 0:
            ours.close()
            _join_and_become(target, joined, process, stdio, theirs, extras, record.keyring)
        theirs.close()
        try:
            return child, _started(ours, record, child.pid)
        except BaseException:
            # It may wait for an answer, which the end of the channel is.
            ours.close()
            # Not to be left as a zombie: the container's own end would wait for it (pid_namespaces(7)).
            wait_pidfd(child.pidfd)
            os.close(child.pidfd)
            raise
    finally:
        ours.close()
        os.close(extras.relay)
        if cgroup_fd >= 0:
            os.close(cgroup_fd)
        os.close(target)


def _foreign(pid: int) -> int:
    """CLONE_NEW* of the namespaces that a container need not have: the kernel takes no user namespace twice."""
    flags = 0
    for name, flag in (("user", CLONE_NEWUSER), ("time", CLONE_NEWTIME)):
        if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
            flags |= flag
    return flags


def _clone(affinity: spec.ExecCPUAffinity | None, cgroup_fd: int) -> Child:
    """The child, which begins on the processors of `affinity.initial`: before it is in the cgroup, its parent's are."""
    if affinity is None or not affinity.initial:
        return clone3(0, cgroup_fd=cgroup_fd)
    before = os.sched_getaffinity(0)
    sched_setaffinity(0, parse_list(affinity.initial))
    child = Child(0, -1)
    try:
        child = clone3(0, cgroup_fd=cgroup_fd)
    finally:
        if child.pid:
            sched_setaffinity(0, before)
    return child


def _before_joining(process: spec.Process) -> Iterator[Operation]:
    """What asks for the privileges and the files of the host."""
    final = process.exec_cpu_affinity.final if process.exec_cpu_affinity else ""
    yield SetAffinity(parse_list(final)) if final else ResetAffinity()
    yield from from_process(process)
    if process.apparmor_profile or process.selinux_label:
        yield labels.PinAttributes()


def _join_and_become(
    target: int,
    joined: int,
    process: spec.Process,
    stdio: tuple[int, int, int],
    channel: Channel,
    extras: Extras,
    keyring: str,
) -> NoReturn:
    stage = Stage()
    try:
        channel.forward_events()
        own_session(stdio)
        assembly = Assembly()
        for operation in _before_joining(process):
            stage.doing = operation.describe()
            operation.execute(assembly)
        stage.doing = "join the container's namespaces"
        setns(target, joined)
        if joined & CLONE_NEWUSER:
            BecomeRoot().execute(assembly)
        if keyring:
            # By its name it is the one that the container's first process has.
            JoinSessionKeyring(keyring).execute(assembly)
        if process.terminal:
            stage.doing = "open a terminal"
            size = process.console_size or spec.ConsoleSize(0, 0)
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            master, terminal = open_terminal(root, size.width, size.height)
            channel.send("console", fds=(master,))
            take_terminal(terminal, process.user.uid)
        become(process, stage, channel, extras, assembly.fds.get("attr", -1))
    except BaseException as error:
        channel.send_error(error, stage.doing)
        os._exit(getattr(error, "exit_code", 125))


def _started(channel: Channel, record: state.State, pid: int) -> int | None:
    """The terminal, once the process executes; none is kept open of one that does not (CVE-2022-23471)."""
    console: int | None = None
    try:
        while True:
            message, fds = channel.receive()
            if message is None:
                return console
            if message["kind"] == "console":
                (console,) = fds
            elif message["kind"] == "listener":
                from runtime.confinement import hand_over

                hand_over(message, fds, record, pid)
                channel.send("done")
            else:
                raise error_from(message)
    except BaseException:
        if console is not None:
            os.close(console)
        raise
