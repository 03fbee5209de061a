"""Hooks: programs of the administrator's at six points of a container's life (config.md, "POSIX-platform Hooks").

    kind             when                                      in which namespaces   status told   failure
    prestart         create, mounts made, before pivot_root    the runtime's         created       create fails
    createRuntime    after prestart                            the runtime's         creating      create fails
    createContainer  after createRuntime                       the container's       creating      create fails
    startContainer   start, before the program is executed     the container's       created       start fails
    poststart        start, after it was executed              the runtime's         running       a warning
    poststop         delete, after the container has gone      the runtime's         stopped       a warning

The path of a createContainer hook is looked up before pivot_root, so it names a program of the host; that of a
startContainer hook is looked up in the container, and the hook runs with the identity of the container's process, its
seccomp filter alone not yet in force: a filter need not allow what running hooks takes. A failed poststart hook is a
warning up to version 1.2 of the specification.
"""

from __future__ import annotations

import os
import select
from time import monotonic

from kernel.errors import ContainerError
from kernel.operation import Operation
from kernel.pidfd import pidfd_open
from kernel.record import Record
from kernel.spawn import spawn
from runtime import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kernel.operation import Assembly
    from runtime import spec

_SIGKILL = 9
_OUTPUT_MAX = 16 * 1024
_PIPE_SIZE = 64 * 1024
_POLL_MAX = 3600.0


class Subject(Record):
    """The container as hooks are told of it: `State` of runtime.md without what changes."""

    oci_version: str
    id: str
    bundle: str
    annotations: dict[str, str] = {}

    def state(self, status: str, pid: int) -> bytes:
        """The state for a hook's standard input; `pid` as the hook's own namespace has it, 0 for none."""
        document: dict[str, object] = {"ociVersion": self.oci_version, "id": self.id, "status": status}
        if pid:
            document["pid"] = pid
        return jsontext.dumps(document | {"bundle": self.bundle, "annotations": self.annotations})


class RunHooks(Operation):
    """All hooks of one kind, in order, by the creating process."""

    kind: str
    hooks: tuple[spec.Hook, ...]
    subject: Subject

    def describe(self) -> str:
        return f"run {self.kind} hooks: {', '.join(hook.path for hook in self.hooks)}"

    def execute(self, assembly: Assembly) -> None:
        # The specification's summary has prestart hooks after create, from when there was no other moment.
        status = "created" if self.kind == "prestart" else "creating"
        run_all(self.kind, self.hooks, self.subject.state(status, assembly.pid), self.subject.bundle)


class RunHooksInside(RunHooks):
    """The same in the new process: its namespaces, the host's files, the container's root as working directory."""

    def execute(self, assembly: Assembly) -> None:
        state = self.subject.state("creating", os.getpid())
        run_all(self.kind, self.hooks, state, assembly.root)


class PoststopAfterFailure(RunHooks):
    """The poststop hooks of a container whose creation failed at its hooks: its life ends as every other does."""

    def describe(self) -> str:
        return "undo with the poststop hooks"

    def execute(self, assembly: Assembly) -> None:
        pass

    def undo(self, assembly: Assembly) -> None:
        if warnings := run_and_warn(self.kind, self.hooks, self.subject.state("stopped", 0), self.subject.bundle):
            raise ContainerError("; ".join(warnings))


def run_all(
    kind: str,
    hooks: Sequence[spec.Hook],
    state: bytes,
    directory: str | int | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run hooks in order; raises ContainerError for the first that fails. `directory` is where they begin.

    `environment` is for those that name none of their own, by default ours.
    """
    for index, hook in enumerate(hooks):
        run(f"{kind} hook {index} ({hook.path!r})", hook, state, directory, environment)


def run_and_warn(kind: str, hooks: Sequence[spec.Hook], state: bytes, directory: str | int | None = None) -> list[str]:
    """Run every hook whatever becomes of the others; a line for each that failed."""
    warnings = []
    for index, hook in enumerate(hooks):
        try:
            run(f"{kind} hook {index} ({hook.path!r})", hook, state, directory)
        except ContainerError as error:
            warnings.append(error.message)
    return warnings


def run(
    name: str,
    hook: spec.Hook,
    state: bytes,
    directory: str | int | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run one hook to its end, with the state on its standard input and exactly its own environment.

    One that names none inherits `environment`, or ours: runc and crun agree on it, and hooks count on PATH.

    Raises ContainerError when it cannot be executed, fails, or exceeds its timeout, with what it printed. Past the
    timeout its process group is killed.
    """
    deadline = None if hook.timeout is None else monotonic() + hook.timeout
    stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    output_read, output_write = os.pipe2(os.O_CLOEXEC)
    fds = {stdin_write, output_read}
    try:
        try:
            pid = _spawn_in(directory, hook, environment, stdin_read, output_write)
        except OSError as error:
            raise ContainerError(f"{name}: {os.strerror(error.errno or 0).lower()}") from None
        finally:
            os.close(stdin_read)
            os.close(output_write)
        output, in_time = _converse(pid, stdin_write, output_read, fds, state, deadline)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        for fd in fds:
            os.close(fd)
    if not in_time:
        raise ContainerError(f"{name}: killed after its timeout of {hook.timeout} s{_quoted(output)}")
    if status:
        ended = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        raise ContainerError(f"{name}: {ended}{_quoted(output)}")


def _spawn_in(
    directory: str | int | None, hook: spec.Hook, inherited: Mapping[str, str] | None, stdin: int, stdout: int
) -> int:
    if hook.env is not None:
        environment: Mapping[str, str] = dict(entry.split("=", 1) for entry in hook.env)
    else:
        environment = os.environ if inherited is None else inherited
    args = hook.args or [hook.path]
    if directory is None:
        return spawn(hook.path, args, environment, stdin, stdout)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        return spawn(hook.path, args, environment, stdin, stdout)
    finally:
        os.fchdir(here)
        os.close(here)


def _converse(
    pid: int, stdin: int, output: int, fds: set[int], state: bytes, deadline: float | None
) -> tuple[bytes, bool]:
    """Write the state, read what is printed, until the hook has ended; what it printed and whether it was in time.

    It is the process's end that counts, not that of its output, which a daemon may have inherited.
    """
    printed = bytearray()
    left = memoryview(state)
    in_time = True
    pidfd = pidfd_open(pid)
    fds.add(pidfd)
    os.set_blocking(stdin, False)
    os.set_blocking(output, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output, select.POLLIN)
    poll.register(stdin, select.POLLOUT)
    while True:
        ready = dict(poll.poll(None if deadline is None else min(max(0.0, deadline - monotonic()), _POLL_MAX) * 1000))
        if deadline is not None and not ready and monotonic() >= deadline:
            in_time, deadline = False, None
            _kill_group(pid)
        if output in ready and not _collect(output, printed):
            poll.unregister(output)
        if pidfd in ready:
            _collect(output, printed)
            return bytes(printed), in_time
        if stdin in ready:
            left = _feed(stdin, left)
            if not left:
                # The pipe's end is the end of the state.
                poll.unregister(stdin)
                fds.remove(stdin)
                os.close(stdin)


def _feed(stdin: int, left: memoryview) -> memoryview:
    try:
        return left[os.write(stdin, left) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[len(left) :]  # it does not want to know


def _collect(output: int, printed: bytearray) -> bool:
    """Take a pipe's fill of what is there and keep the beginning; False at the end of the stream."""
    try:
        data = os.read(output, _PIPE_SIZE)
    except BlockingIOError:
        return True
    printed += data[: _OUTPUT_MAX - len(printed)]
    return bool(data)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, _SIGKILL)
    except ProcessLookupError:
        pass


def _quoted(output: bytes) -> str:
    text = " | ".join(line.strip() for line in output.decode(errors="replace").splitlines() if line.strip())
    return f": {text}" if text else ""
