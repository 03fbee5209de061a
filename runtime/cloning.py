"""The new process of a container, in the namespaces that its plan says."""

from __future__ import annotations

import os

from kernel.errors import ContainerError, RawpodError, SystemCallError
from kernel.memory import take_own_copies
from kernel.pidfd import pidfd_open, wait_pidfd
from kernel.process import CLONE_NEWPID, CLONE_NEWUSER, CLONE_PARENT, Child, clone3, setns
from rootfs.idmap import too_many_namespaces
from runtime.operations import NAMESPACE_FLAGS, check_not_ours

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan import Plan


def clone(steps: Plan, cgroup_fd: int) -> Child:
    """clone3(2) as the plan says; returns twice, as it does. The caller is the parent in any case."""
    if steps.joined_first:
        return _clone_from_within(steps, cgroup_fd)
    if steps.pid_namespace is None:
        try:
            return clone3(steps.clone_flags, cgroup_fd=cgroup_fd)
        except SystemCallError as error:
            raise (too_many_namespaces(error) if steps.clone_flags & CLONE_NEWUSER else error) from None
    # setns(2) to a pid namespace is for children to come: the caller itself never moves.
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(steps.pid_namespace, os.O_RDONLY | os.O_CLOEXEC)
    setns(other, CLONE_NEWPID)
    child = Child(0, -1)
    try:
        child = clone3(steps.clone_flags, cgroup_fd=cgroup_fd)
    finally:
        if child.pid:
            setns(own, CLONE_NEWPID)
        os.close(other)
        os.close(own)
    return child


def clone_apart(steps: Plan, cgroup_fd: int) -> Child:
    """The same, where the cgroup's memory is so little that our own, copied page by page, would fill it.

    The child waits until its parent has copies of what both share: then the writes of either cost the child nothing.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        child = clone(steps, cgroup_fd)
        if child.pid:
            take_own_copies()
        else:
            os.close(writing)
            writing = -1
            os.read(reading, 1)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    return child


def _clone_from_within(steps: Plan, cgroup_fd: int) -> Child:
    """By way of a helper, which joins namespaces and then clones a sibling of its own (CLONE_PARENT).

    A process that is in the container's user namespace has no right to join what belongs to the host's, and what is
    made outside of it does not belong to it; and the way back out is closed to the caller. So the helper goes in.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    helper = clone3(0, cgroup_fd=cgroup_fd)
    if helper.pid == 0:
        os.close(reading)
        try:
            _join(steps.joined_first)
            # Its end is reported as the helper's would be; a signal of its own is not for CLONE_PARENT (clone(2)).
            child = clone3(steps.clone_flags | CLONE_PARENT, exit_signal=0)
        except (RawpodError, OSError) as error:
            os.write(writing, str(error).encode())
            os._exit(1)
        if child.pid:
            os.write(writing, b"%d" % child.pid)
            os._exit(0)
        os.close(writing)
        return child
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    wait_pidfd(helper.pidfd)
    os.close(helper.pidfd)
    if not answer.isdecimal():
        raise ContainerError(answer or "the process that joins namespaces was killed")
    # It is our child and not reaped: the pid is still its own.
    return Child(int(answer), pidfd_open(int(answer)))


def _join(namespaces: tuple[tuple[str, str], ...]) -> None:
    # All are opened first: behind the user namespace's door the paths may be out of reach.
    opened = [(kind, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for kind, path in namespaces]
    for kind, path, fd in opened:
        if kind == "mount":
            check_not_ours(fd, path)
        try:
            setns(fd, NAMESPACE_FLAGS[kind])
        except RawpodError as error:
            raise ContainerError(f"join {kind} namespace {path}: {error}") from None
        os.close(fd)
