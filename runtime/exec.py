"""A further process in a running container: it joins the namespaces, then becomes what it is to run."""

from __future__ import annotations

import os

from kernel import credentials
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
from rootfs.devices import open_terminal
from runtime import spec, state
from runtime.channel import Channel, error_from
from runtime.init import Stage, become, own_session, take_terminal
from runtime.user_namespace import BecomeRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cgroups.cgroup import Cgroup

_ALWAYS_JOINED = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP


def exec_in(
    record: state.State,
    cgroup: Cgroup | None,
    process: spec.Process,
    stdio: tuple[int, int, int],
    *,
    preserve_fds: int = 0,
) -> tuple[Child, int | None]:
    """Run `process` in the container that `record` tells of; the child and, for a terminal, its master's descriptor.

    The caller becomes the parent. From here on its own new children would be born in the container's pid namespace:
    it is for a process that does nothing else. Raises NotFound when the container has ended, CommandNotFound,
    CommandNotExecutable and ContainerError as `Container.start` does.
    """
    target = state.open_process(record)
    joined = _ALWAYS_JOINED | _foreign(record.pid)
    cgroup_fd = cgroup.open() if cgroup else -1
    # While the child has the host's memory and descriptors and is visible inside, nobody there may look into it
    # (CVE-2016-9962); execve makes it dumpable again.
    credentials.set_dumpable(False)
    ours, theirs = Channel.pair()
    try:
        setns(target, CLONE_NEWPID)
        child = clone3(0, cgroup_fd=cgroup_fd)
        if child.pid == 0:
            ours.close()
            _join_and_become(target, joined, process, stdio, theirs, preserve_fds)
        theirs.close()
        try:
            return child, _started(ours)
        except BaseException:
            # Not to be left as a zombie: the container's own end would wait for it (pid_namespaces(7)).
            wait_pidfd(child.pidfd)
            os.close(child.pidfd)
            raise
    finally:
        ours.close()
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


def _join_and_become(
    target: int,
    joined: int,
    process: spec.Process,
    stdio: tuple[int, int, int],
    channel: Channel,
    preserve_fds: int,
) -> NoReturn:
    stage = Stage()
    try:
        channel.forward_events()
        own_session(stdio)
        stage.doing = "join the container's namespaces"
        setns(target, joined)
        if joined & CLONE_NEWUSER:
            BecomeRoot().execute(Assembly())
        if process.terminal:
            stage.doing = "open a terminal"
            size = process.console_size or spec.ConsoleSize(0, 0)
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            master, terminal = open_terminal(root, size.width, size.height)
            channel.send("console", fds=(master,))
            take_terminal(terminal, process.user.uid)
        become(process, stage, preserve_fds=preserve_fds)
    except BaseException as error:
        channel.send_error(error, stage.doing)
        os._exit(getattr(error, "exit_code", 125))


def _started(channel: Channel) -> int | None:
    console: int | None = None
    while True:
        message, fds = channel.receive()
        if message is None:
            return console
        if message["kind"] == "console":
            (console,) = fds
        else:
            raise error_from(message)
