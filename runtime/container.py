"""The life of one container: create, start, signal, delete. Everything that runs goes through here.

create   the cgroup, the namespaces, the root filesystem; the process waits at a gate (runtime/create.py)
start    the gate opens, the process executes what the description names
delete   the cgroup and the state go; the mounts went with the namespace
"""

from __future__ import annotations

import os
import select
from time import monotonic

from cgroups.cgroup import Cgroup
from kernel.errors import Conflict, ContainerError, NotFound, SystemCallError
from kernel.pidfd import ExitStatus, pidfd_send_signal, wait_pidfd
from runtime import state
from runtime.channel import INIT_NAME, Channel, Gate, error_from
from runtime.state import State, Status

TYPE_CHECKING = False
if TYPE_CHECKING:
    Directory = str | os.PathLike[str]

_SIGKILL = 9
_ESRCH = 3
_DYING_MS = 5000


def out_of_memory(container_id: str, cgroup: Cgroup | None) -> ContainerError | None:
    """The error for a container that was not made because the kernel killed it for want of memory, None if not so."""
    if cgroup is None or not cgroup.oom_kills():
        return None
    return ContainerError(
        f"container {container_id!r} ran out of memory before its process was executed (memory.events: oom_kill)",
        remedy="raise linux.resources.memory.limit; 2 MiB are enough to be assembled in",
    )


class Container:
    """A container, made by this process (runtime.create) or by another one (`load`).

    `pidfd` becomes readable when the process ends. `console_fd` is the terminal's master where one was asked for.
    `started` is CLOCK_MONOTONIC in seconds just after execve succeeded. `warnings` names what was left
    out, as limits and capabilities that cannot be had, and hooks that failed.
    """

    def __init__(
        self, record: State, directory: str, cgroup: Cgroup | None, pidfd: int = -1, channel: Channel | None = None
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
    def status(self) -> Status:
        return self._state.status

    @property
    def pid(self) -> int:
        """The first process, as its parent sees it."""
        return self._state.pid

    @classmethod
    def load(cls, state_dir: Directory) -> Container:
        """A container made by another process. Raises NotFound, or BadInput for a damaged state."""
        directory = os.fspath(state_dir)
        record = state.load(directory)
        pidfd = -1
        if record.status.can_kill:
            try:
                pidfd = state.open_process(record)
            except NotFound:
                record.status = Status.STOPPED
        return cls(record, directory, Cgroup(record.cgroup) if record.cgroup else None, pidfd)

    def start(self) -> None:
        """Let the process execute; returns once it has. Raises CommandNotFound, CommandNotExecutable, ContainerError.

        After a failure the process has ended and its status can be collected with `wait`.
        """
        if not self._state.status.can_start:
            raise Conflict(f"container {self.id!r} is {self._state.status}, not created")
        channel, self._channel = self._channel or Gate.connect(self._directory), None
        try:
            try:
                channel.send("start")
            except BrokenPipeError:
                raise ContainerError(f"container {self.id!r} ended before it was started") from None
            message, fds = channel.receive()
            if message is not None and message["kind"] == "listener":
                from runtime.confinement import hand_over

                hand_over(message, fds, self._state, self.pid)
                channel.send("done")
                message, _ = channel.receive()
        finally:
            channel.close()
        if message is not None:
            raise error_from(message)
        if self._killed_before_execve():
            raise out_of_memory(self.id, self.cgroup) or ContainerError(
                f"container {self.id!r} was killed at its start"
            )
        self.started = monotonic()
        self.save(Status.RUNNING)
        self._run_hooks("poststart", Status.RUNNING, self.pid)

    def _killed_before_execve(self) -> bool:
        """Whether the end of the channel was that of the init stage, whose name execve(2) would have changed."""
        try:
            with open(f"/proc/{self.pid}/comm") as file:
                if file.read() != f"{INIT_NAME}\n":
                    return False
        except OSError:
            return False  # collected already, by its parent
        # A process that dies closes its descriptors before it counts as ended. A payload may take the same name.
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(_DYING_MS))

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
        if self.cgroup is not None and self.cgroup.exists():
            self.cgroup.kill()
        elif self.pidfd >= 0:
            # The cgroup of a process that lives is out of sight where another mount namespace has no such mount.
            self.signal(_SIGKILL)

    def processes(self) -> list[int]:
        """The pids of all its processes that are known: those of its cgroup and below, or the first one."""
        if self.cgroup is not None and self.cgroup.exists():
            return self.cgroup.all_processes()
        return [self.pid] if self.pidfd >= 0 else []

    def wait_end(self) -> None:
        """Wait until its first process has ended, of which another process may be the parent."""
        if self.pidfd >= 0:
            poller = select.poll()
            poller.register(self.pidfd, select.POLLIN)
            poller.poll()
        self.save(Status.STOPPED)

    def wait(self) -> ExitStatus:
        """Wait for the first process's end and collect it. Call once."""
        status = wait_pidfd(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        self.save(Status.STOPPED)
        return status

    def delete(self) -> None:
        """Remove cgroup and state of a container that has ended and was collected."""
        if not self._state.status.can_delete:
            raise Conflict(f"container {self.id!r} is {self._state.status}, not stopped")
        if self.console_fd is not None:
            os.close(self.console_fd)
            self.console_fd = None
        if self.cgroup is not None and self.cgroup.exists():
            if self.cgroup.populated():
                # A process that joined from outside is no child of the container's first one.
                self.cgroup.kill()
            if self._state.scope:
                from cgroups.systemd import stop_scope

                # Before the directory goes: systemd waits for its cgroup.events to say that it is empty.
                stop_scope(self._state.scope)
            self.cgroup.delete()
        state.forget(self._directory)
        self._run_hooks("poststop", Status.STOPPED, 0)

    def _run_hooks(self, kind: str, status: Status, pid: int) -> None:
        """Hooks whose failure is a warning (runtime.md, "Lifecycle")."""
        record = self._state
        if kind not in record.hooks:
            return
        from runtime import hooks
        from runtime.spec import Hooks
        from runtime.spec_codec import struct

        asked = getattr(struct(Hooks, record.hooks), kind)
        subject = hooks.Subject(record.oci_version, record.id, record.bundle, record.annotations)
        self.warnings += hooks.run_and_warn(kind, asked, subject.state(status, pid), record.bundle)

    def save(self, status: Status) -> None:
        """Record a change of status."""
        self._state.status = status
        state.save(self._directory, self._state)
