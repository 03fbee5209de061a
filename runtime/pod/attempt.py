"""One run of a container: its process, its pipes or terminal, its log."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from cgroups.cgroup import Cgroup
from cgroups.hierarchy import Hierarchy
from kernel.errors import Conflict
from kernel.pidfd import ExitStatus
from kernel.record import Record, Struct
from runtime import spec
from runtime.create import create
from runtime.pod.image_config import Health
from runtime.pod.logs import LogWriter
from runtime.pod.loop import Loop
from runtime.pod.probe_socket import Place
from runtime.pod.probes import Rule
from runtime.pod.streams import InputPump, OutputPump, Sink
from runtime.pod.termination import TerminationMessage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.pod.attaching import Attached

# A payload may write this much while its monitor is busy; the default is 64 KiB (pipe(7)).
_PIPE_SIZE = 256 * 1024


class Prepared(Record):
    """All that an attempt needs, made before the attempt before it has ended.

    `message` is where it may leave a last word, `stop_signal` asks it to end, `health` and `probes` are how it is
    tested while it runs, at `place`.
    """

    id: str
    config: spec.Config
    encoded: bytes
    hierarchy: Hierarchy
    missing_controllers: str
    bundle: Path
    cgroup: Cgroup
    message: TerminationMessage
    stop_signal: int = 15
    health: Health | None = None
    probes: tuple[Rule, ...] = ()
    place: Place = Place("127.0.0.1")


class Show(Struct):
    """How `rawpod run` puts a container into its caller's terminal: what it reads and where output is shown, too."""

    stdin: int | None
    stdout: Sink
    stderr: Sink
    on_console: Callable[[int], None]


class Ended(Record):
    """How an attempt ended. `died` is CLOCK_MONOTONIC when the monitor noticed, `ran` seconds from its start."""

    status: ExitStatus
    oom_killed: bool
    died: float
    ran: float


class Attempt:
    """A running payload. `ended` is called from the loop once it has ended and all of its output is logged."""

    def __init__(
        self,
        loop: Loop,
        prepared: Prepared,
        log: Callable[[], LogWriter],
        *,
        keep_stdin_open: bool,
        show: Show | None,
        ended: Callable[[Ended], None],
    ) -> None:
        self._loop, self._ended, self._cgroup = loop, ended, prepared.cgroup
        self.stop_signal = prepared.stop_signal
        self._pumps: list[OutputPump] = []
        self._input: InputPump | None = None
        self._held_stdin = -1
        self._attached: list[Attached] = []
        process = prepared.config.process
        with ExitStack() as on_failure:
            ours, theirs = _stdio(terminal=process is not None and process.terminal, stdin=keep_stdin_open)
            try:
                self.container = create(
                    prepared.id,
                    prepared.config,
                    prepared.bundle,
                    cgroup=prepared.cgroup,
                    hierarchy=prepared.hierarchy,
                    missing_controllers=prepared.missing_controllers,
                    stdio=(theirs[0], theirs[1], theirs[2]),
                    state_dir=prepared.bundle,
                    # A payload without its monitor would write into pipes that nobody reads.
                    parent_death_signal=9,
                )
            except BaseException:
                _close(ours)
                raise
            finally:
                _close(theirs)
            on_failure.callback(self._abandon)
            self._log = log()
            on_failure.callback(self._log.close)
            self._connect(ours, show)
            self.container.start()
            on_failure.pop_all()
        loop.add(self.container.pidfd, self._exited)

    def _connect(self, ours: list[int], show: Show | None) -> None:
        """Start copying between the payload and the log, and the caller's terminal where there is one."""
        console = self.container.console_fd
        if console is not None:
            _close(ours)
            sink = show.stdout if show else None
            # The pump closes what it reads, the container its console: one descriptor each.
            fd = fcntl.fcntl(console, fcntl.F_DUPFD_CLOEXEC, 3)
            self._pump("stdout", fd, sink)
            if show:
                show.on_console(console)
                if show.stdin is not None:
                    target = fcntl.fcntl(console, fcntl.F_DUPFD_CLOEXEC, 3)
                    self._input = InputPump(self._loop, show.stdin, target, close_at_end=False)
            return
        stdin, stdout, stderr = ours
        self._pump("stdout", stdout, show.stdout if show else None)
        self._pump("stderr", stderr, show.stderr if show else None)
        if show and show.stdin is not None and stdin >= 0:
            self._input = InputPump(self._loop, show.stdin, stdin)
        else:
            # stdin: true and nobody attached: reading blocks, as it does in Kubernetes.
            self._held_stdin = stdin

    def _pump(self, stream: str, fd: int, sink: Sink | None) -> None:
        self._pumps.append(OutputPump(self._loop, fd, partial(self._wrote, stream), sink, _nothing))

    def _wrote(self, stream: str, data: bytes) -> None:
        self._log.write(stream, data)
        for attached in self._attached:
            attached.write(stream, data)

    def attach(self, outputs: list[int], stdin: int) -> Attached:
        """Copy what is written from now on to `outputs`, and what comes from `stdin` (-1: nothing) to the payload.

        Takes the descriptors over. Raises Conflict, which leaves them, for input where the payload reads none.
        """
        from runtime.pod.attaching import Attached

        self._attached = [one for one in self._attached if one.open]
        target = -1
        if stdin >= 0:
            source = self._held_stdin if self.container.console_fd is None else self.container.console_fd
            if source < 0:
                raise Conflict("the container's standard input is not open", remedy="`stdin: true` opens it")
            target = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 3)
        attached = Attached(self._loop, outputs, stdin, target)
        self._attached.append(attached)
        return attached

    def _exited(self) -> None:
        died = time.monotonic()
        container = self.container
        self._loop.remove(container.pidfd)
        status = container.wait()
        oom_killed = self._cgroup.oom_kills() > 0
        # Ends what a shared pid namespace left running, and with it the last writers of the pipes.
        container.delete()
        self._close_streams()
        self._log.close()
        self._ended(Ended(status, oom_killed, died, died - container.started))

    def _close_streams(self) -> None:
        if self._input is not None:
            self._input.close()
        for pump in self._pumps:
            pump.drain()
            pump.close()
        for attached in self._attached:
            attached.end()
        self._attached = []
        if self._held_stdin >= 0:
            os.close(self._held_stdin)
            self._held_stdin = -1

    def _abandon(self) -> None:
        """The container was made but did not start."""
        self.container.kill()
        self.container.wait()
        self.container.delete()
        self._close_streams()


def _nothing() -> None:
    """The end of a stream asks for nothing: the end of the process does."""


def _stdio(*, terminal: bool, stdin: bool) -> tuple[list[int], list[int]]:
    """Our ends and the payload's ends of its standard input, output and error; -1 where we have none."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    if terminal:
        return [], [null, os.dup(null), os.dup(null)]
    ours, theirs = [-1], [null]
    if stdin:
        os.close(null)
        theirs[0], ours[0] = os.pipe2(os.O_CLOEXEC)
    for _ in ("stdout", "stderr"):
        reader, writer = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        ours.append(reader)
        theirs.append(writer)
    return ours, theirs


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
