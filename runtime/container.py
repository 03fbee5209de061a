"""The life of one container: create, start, signal, delete. Everything that runs goes through here.

create   the cgroup, the namespaces, the root filesystem; the process waits at a gate
start    the gate opens, the process executes what the description names
delete   the cgroup and the state go; the mounts went with the namespace
"""

from __future__ import annotations

import os
from time import monotonic

from kernel import operation
from kernel.cleanup import OnFailure
from kernel.errors import Conflict, ContainerError, RawpodError, SystemCallError
from kernel.operation import Assembly, Undo
from kernel.process import (
    CLONE_NEWPID,
    Child,
    ExitStatus,
    clone3,
    pidfd_send_signal,
    process_start_time,
    setns,
    wait_pidfd,
)
from runtime import plan, spec, state
from runtime.channel import Channel, Gate, error_from
from runtime.init import assemble_and_become, host_bounding_set
from runtime.limits import settable_limits
from runtime.spec import State, Status
from runtime.spec_check import check_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgroups.cgroup import Cgroup
    from cgroups.hierarchy import Hierarchy

    Directory = str | os.PathLike[str]

_SIGKILL = 9
_ESRCH = 3


class Container:
    """A container made by this process, which is the parent of its first process.

    `pidfd` becomes readable when the process ends. `console_fd` is the terminal's master where one was asked for.
    `started` is CLOCK_MONOTONIC in seconds just after execve succeeded, `warnings` names the limits left out.
    """

    def __init__(
        self, record: State, directory: str, cgroup: Cgroup, pidfd: int = -1, channel: Channel | None = None
    ) -> None:
        self._state = record
        self._directory = directory
        self._channel = channel
        self.cgroup = cgroup
        self.pidfd = pidfd
        self.console_fd: int | None = None
        self.started = 0.0
        self.warnings: list[str] = []

    @property
    def id(self) -> str:
        return self._state.id

    @property
    def pid(self) -> int:
        """The first process, as its parent sees it."""
        return self._state.pid

    @classmethod
    def create(
        cls,
        container_id: str,
        config: spec.Config,
        bundle: Directory,
        *,
        cgroup: Cgroup,
        hierarchy: Hierarchy,
        stdio: tuple[int, int, int],
        state_dir: Directory,
        missing_controllers: str = "refuse",
        parent_death_signal: int = 0,
        detached: bool = False,
    ) -> Container:
        """Assemble the container up to the gate. What was begun is undone when a step fails.

        Raises NotSupported or BadInput for a description that cannot be built, ContainerError with the step that
        failed, ControllerMissing for a limit that the host cannot set. With `missing_controllers` "warn" such limits
        are left out and named in `warnings`. `parent_death_signal` ends the payload when the calling process ends. A
        `detached` container waits at a gate in `state_dir`, where any process can start it, others for their creator.
        """
        check_id(container_id)
        spec.check(config)
        process = config.process
        if process is None or not process.args:
            raise ContainerError(f"container {container_id!r} has no process to run")
        limits, warnings = settable_limits(config, hierarchy, missing_controllers)
        directory = os.fspath(state_dir)
        steps = plan.build(config, os.fspath(bundle), cgroup, limits)
        _claim(directory, container_id)
        host_bounding_set()
        ours, theirs = Channel.pair()
        with OnFailure() as on_failure:
            on_failure.call(ours.close)
            on_failure.call(theirs.close)
            on_failure.call(_forget, directory)
            gate = Gate(directory) if detached else None
            assembly = Assembly()
            done = operation.run(steps.parent, assembly)
            on_failure.call(done.undo)
            child = _clone(steps, assembly.fds["cgroup"])
            if child.pid == 0:
                # Its copy of our end would keep the channel open after our death.
                ours.close()
                assemble_and_become(
                    steps.child,
                    process,
                    stdio,
                    theirs,
                    fds=assembly.fds,
                    gate=gate,
                    parent_death_signal=parent_death_signal,
                )
            theirs.close()
            if gate is not None:
                gate.close()
            on_failure.call(_end, child.pidfd)
            assembly.pid = child.pid
            record = State(
                oci_version=spec.OCI_VERSION,
                id=container_id,
                status=Status.CREATING,
                bundle=os.fspath(bundle),
                pid=child.pid,
                annotations=config.annotations,
                process_start_time=process_start_time(child.pid),
            )
            container = cls(record, directory, cgroup, child.pidfd, ours)
            container.warnings = warnings
            container._wait_created(steps, done)
            while assembly.fds:
                os.close(assembly.fds.popitem()[1])
            container._save(Status.CREATED)
        return container

    def start(self) -> None:
        """Let the process execute; returns once it has. Raises CommandNotFound, CommandNotExecutable, ContainerError.

        After a failure the process has ended and its status can be collected with `wait`.
        """
        if self._channel is None or not self._state.status.can_start:
            raise Conflict(f"container {self.id!r} is {self._state.status}, not created")
        channel, self._channel = self._channel, None
        try:
            try:
                channel.send("start")
            except BrokenPipeError:
                raise ContainerError(f"container {self.id!r} ended before it was started") from None
            message, _ = channel.receive()
        finally:
            channel.close()
        if message is not None:
            raise error_from(message)
        self.started = monotonic()
        self._save(Status.RUNNING)

    def signal(self, signum: int) -> bool:
        """Signal the first process; False when it has ended already."""
        try:
            pidfd_send_signal(self.pidfd, signum)
        except SystemCallError as error:
            if error.errno != _ESRCH:
                raise
            return False
        return True

    def kill(self) -> None:
        """End every process of the container, frozen ones too."""
        self.cgroup.kill()

    def wait(self) -> ExitStatus:
        """Wait for the first process's end and collect it. Call once."""
        status = wait_pidfd(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        self._save(Status.STOPPED)
        return status

    def delete(self) -> None:
        """Remove cgroup and state of a container that has ended and was collected."""
        if not self._state.status.can_delete:
            raise Conflict(f"container {self.id!r} is {self._state.status}, not stopped")
        if self.console_fd is not None:
            os.close(self.console_fd)
            self.console_fd = None
        if self.cgroup.exists():
            if self.cgroup.populated():
                # A process that joined from outside is no child of the container's first one.
                self.cgroup.kill()
            self.cgroup.delete()
        _forget(self._directory)

    def _wait_created(self, steps: plan.Plan, done: Undo) -> None:
        assert self._channel is not None
        while True:
            message, fds = self._channel.receive()
            if message is None:
                raise ContainerError(f"container {self.id!r} ended while it was assembled")
            if message["kind"] == "ask":
                for step in steps.asked[message["what"]]:
                    done.execute(step)
                self._channel.send("done")
            elif message["kind"] == "console":
                (self.console_fd,) = fds
            elif message["kind"] == "created":
                return
            else:
                raise error_from(message)

    def _save(self, status: Status) -> None:
        self._state.status = status
        state.save(self._directory, self._state)


def _claim(directory: str, container_id: str) -> None:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        present = state.load(directory)
    except RawpodError:
        return
    if present.status.can_kill:
        raise Conflict(f"container {container_id!r} exists and is {present.status}")


def _forget(directory: str) -> None:
    for name in (state.FILE, Gate.FILE):
        try:
            os.unlink(os.path.join(directory, name))
        except FileNotFoundError:
            pass


def _end(pidfd: int) -> None:
    try:
        pidfd_send_signal(pidfd, _SIGKILL)
    except SystemCallError as error:
        if error.errno != _ESRCH:
            raise
    wait_pidfd(pidfd)
    os.close(pidfd)


def _clone(steps: plan.Plan, cgroup_fd: int) -> Child:
    if steps.pid_namespace is None:
        return clone3(steps.clone_flags, cgroup_fd=cgroup_fd)
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
