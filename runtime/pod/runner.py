"""One container of a pod over its attempts: started, recorded, restarted by policy with back-off, stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from kernel.errors import BadInput, CommandNotExecutable, CommandNotFound, NotFound, RawpodError
from kernel.pidfd import process_start_time
from runtime.pod import backoff, pullpolicy
from runtime.pod.attempt import Attempt, Ended, Prepared, Show
from runtime.pod.backoff import Backoff
from runtime.pod.directory import replace_file
from runtime.pod.logs import LogDirectory, LogWriter
from runtime.pod.loop import Loop, Timer
from runtime.pod.records import POD_INITIALIZING, ContainerRecord, Running, Terminated, Waiting, timestamp

if TYPE_CHECKING:
    from runtime.pod.health import Checker
    from runtime.pod.prober import Prober
    from runtime.pod.pulling import Done, Pull
    from runtime.pod.termination import TerminationMessage

# How long the reason of a failure stands alone, before the wait for the next attempt is told of.
_ERROR_SHOWN = 1.0


class ImageMissing(NotFound):
    """The container's image is not in the store."""


def _why_not_made(error: RawpodError | OSError) -> str:
    """The reason of a container that could not be made, in kubelet's words."""
    if isinstance(error, ImageMissing):
        return "ErrImageNeverPull"
    from runtime.pod.compile import RootRefused
    from runtime.pod.environment import MissingReference

    refused = isinstance(error, (RootRefused, MissingReference))
    return "CreateContainerConfigError" if refused else "CreateContainerError"


class Host(Protocol):
    """What a container asks of its pod."""

    loop: Loop
    show: Show | None
    grace: float

    def pull(self, index: int, done: Done) -> Pull | None:
        """Begin to bring the container's image, if there is cause to; None if there is none.

        Raises BadInput for a name that is none.
        """

    def pulls_always(self, index: int) -> bool:
        """Whether each start of the container is to see what its registry has by then."""

    def prepare(self, index: int, attempt: int) -> Prepared:
        """Everything the attempt needs. Raises ImageMissing, or another RawpodError for what cannot be made."""

    def log_directory(self, index: int) -> LogDirectory:
        """Where the container's logs go."""

    def discard(self, index: int, attempt: int) -> None:
        """The attempt is over and its upper layer is of no more use."""

    def keeps_stdin_open(self, index: int) -> bool:
        """Whether the container was asked for with an open standard input."""

    def warn(self, warnings: list[str]) -> None:
        """Limits that this host could not set."""

    def changed(self) -> None:
        """The record has changed."""

    def failed(self, error: Exception) -> bool:
        """A container could not be started. True when the pod gives up, so that nothing is to be tried again."""


class Runner:
    """Keeps one container running as its policy says. `ended` is called once, when it will not run again."""

    def __init__(
        self, host: Host, index: int, record: ContainerRecord, restart_policy: str, ended: Callable[[], None]
    ) -> None:
        self.record = record
        self.done = False
        self._policy = restart_policy
        self._host, self._index, self._ended = host, index, ended
        self._backoff, self._pull_backoff = Backoff(first=backoff.FIRST_RESTART_DELAY), pullpolicy.backoff()
        self._make_backoff = Backoff()
        self._message: TerminationMessage | None = None
        self._pull: Pull | None = None
        self._pull_delay = 0.0
        self._checker: Checker | None = None
        self._prober: Prober | None = None
        self._unwell = ""
        self._unwell_kill: Timer | None = None
        self._attempt: Attempt | None = None
        self._following: Prepared | None = None
        self._timer: Timer | None = None
        self._stopping = self._asked = False
        self._started_at = ""

    def start(self) -> None:
        """Begin the first attempt."""
        self._run()

    @property
    def workers(self) -> set[int]:
        """The pids of processes that do something for the container beside it."""
        own = {self._pull.pid if self._pull else 0, self._checker.worker if self._checker else 0}
        return own | self._prober.workers if self._prober else own

    def _run(self) -> None:
        """The next attempt, once its image is there."""
        self._timer = None
        if self._following is None:
            try:
                self._pull = self._host.pull(self._index, self._pulled)
            except BadInput as error:
                self._could_not_pull("InvalidImageName", error)
                return
            except (RawpodError, OSError) as error:
                self._could_not_pull("ErrImagePull", error)
                return
            if self._pull is not None:
                self.record.wait("ContainerCreating", f"pulling image {self.record.image!r}")
                self._host.changed()
                return
        self._run_now()

    def _pulled(self, error: RawpodError | None) -> None:
        self._pull = None
        if error is not None:
            self._could_not_pull("ErrImagePull", error)
        else:
            self._pull_backoff = pullpolicy.backoff()
            self._run_now()

    def _could_not_pull(self, reason: str, error: RawpodError | OSError) -> None:
        if self._host.failed(error):
            return  # which has stopped us
        self.record.wait(reason, str(error))
        delay = self._pull_delay = self._pull_backoff.next_delay(0.0)
        shown = min(_ERROR_SHOWN, delay / 2)
        self._timer = self._host.loop.call_later(shown, lambda: self._wait_to_pull(reason, delay - shown))
        self._host.changed()

    def _wait_to_pull(self, reason: str, left: float) -> None:
        if reason != "InvalidImageName":
            waiting = self.record.state
            assert isinstance(waiting, Waiting)
            told = f"back-off {self._pull_delay:g}s pulling image {self.record.image!r}: {waiting.message}"
            self.record.wait("ImagePullBackOff", told)
        self._timer = self._host.loop.call_later(left, self._run)
        self._host.changed()

    def _run_now(self) -> None:
        number = self.record.restarts
        prepared: Prepared | None = None
        try:
            prepared = self._following or self._host.prepare(self._index, number)
            self._following = None
            replace_file(prepared.bundle / "config.json", prepared.encoded)
            self._attempt = Attempt(
                self._host.loop,
                prepared,
                lambda: LogWriter(self._host.log_directory(self._index), number),
                keep_stdin_open=self._host.keeps_stdin_open(self._index),
                show=self._host.show,
                ended=self._attempt_ended,
            )
        except (RawpodError, OSError) as error:
            if prepared is not None:
                self._host.discard(self._index, number)
            self._could_not_start(error)
        else:
            self._is_running(prepared, self._attempt)

    def _is_running(self, prepared: Prepared, attempt: Attempt) -> None:
        container, record = attempt.container, self.record
        self._started_at, self._message = timestamp(), prepared.message
        if isinstance(record.state, Terminated):
            record.last = record.state
        record.state = Running(self._started_at)
        record.id, record.pid, record.started = container.id, container.pid, container.started
        record.start_time = process_start_time(container.pid)
        record.cgroup = prepared.cgroup.path
        record.command = prepared.config.process.args if prepared.config.process else []
        if prepared.health is not None:
            from runtime.pod.health import Checker

            self._checker = Checker(
                self._host.loop, prepared.health, prepared.bundle, prepared.cgroup, prepared.encoded, self._checked
            )
            record.health = self._checker.verdict.to_json()
        if prepared.probes:
            from runtime.pod.prober import Prober, Subject

            subject = Subject(prepared.place, prepared.bundle, prepared.cgroup, prepared.encoded)
            self._prober = Prober(self._host.loop, prepared.probes, subject, self._probed)
        self._show_probes()
        self._host.warn(container.warnings)
        self._host.changed()
        if self._policy != "Never" and not self._host.pulls_always(self._index):
            # In idle time, so that a replacement has nothing to wait for.
            self._host.loop.call_later(0, self._prepare_following)

    def _checked(self) -> None:
        if self._checker is not None:
            self.record.health = self._checker.verdict.to_json()
            self._host.changed()

    def _show_probes(self) -> None:
        record, prober = self.record, self._prober
        record.unstarted = prober is not None and not prober.judge.started
        record.unready = prober is not None and not prober.judge.ready
        record.probes = prober.to_json() if prober else None

    def _probed(self) -> None:
        self._show_probes()
        if self._prober is not None and self._prober.judge.failed and not self._unwell:
            self._end_unwell(self._prober)
        self._host.changed()

    def _end_unwell(self, prober: Prober) -> None:
        """Its startup or liveness probe has failed: it is asked to end, and ended when its time is over."""
        kind, attempt = prober.judge.failed, self._attempt
        assert attempt is not None
        intent = "" if self._policy == "Never" else ", will be restarted"
        _, message = prober.messages[kind]
        self._unwell = f"Container {self.record.name} failed {kind} probe{intent}" + (f": {message}" if message else "")
        grace = prober.judge.rules[kind].grace
        attempt.container.signal(attempt.stop_signal)
        self._unwell_kill = self._host.loop.call_later(self._host.grace if grace is None else grace, self.kill)

    def _end_probes(self) -> str:
        """No more of them; why they ended the container, if they did."""
        if self._prober is not None:
            self._prober.close()
            self._prober = None
        if self._unwell_kill is not None:
            self._unwell_kill.cancel()
            self._unwell_kill = None
        self._show_probes()
        unwell, self._unwell = self._unwell, ""
        return unwell

    def _prepare_following(self) -> None:
        if self._stopping or self.done or self._following is not None:
            return
        try:
            self._following = self._host.prepare(self._index, self.record.restarts + 1)
        except (RawpodError, OSError):
            self._following = None  # asked for again, and reported, when it is needed

    def _could_not_start(self, error: RawpodError | OSError) -> None:
        """The command is wrong: an end like any other. Anything else may pass: tried again whatever the policy says."""
        gives_up = self._host.failed(error)
        if gives_up or self._stopping or isinstance(error, (CommandNotFound, CommandNotExecutable)):
            now = timestamp()
            code = error.exit_code if isinstance(error, RawpodError) else RawpodError.exit_code
            self._record_end(Terminated(code, "StartError", now, now, self.record.id, message=str(error)))
            self._over() if gives_up else self._restart_or_over(0.0, "RunContainerError", str(error))
            return
        self.record.wait(_why_not_made(error), str(error))
        self._timer = self._host.loop.call_later(max(1.0, self._make_backoff.next_delay(0.0)), self._run)
        self._host.changed()

    def _attempt_ended(self, ended: Ended) -> None:
        self._attempt = None
        if self._checker is not None:
            self._checker.close()
            self._checker = None
        self.record.health = None
        unwell = self._end_probes()
        status = ended.status
        reason = "OOMKilled" if ended.oom_killed and status.shell else "Error" if status.shell else "Completed"
        self.record.died = ended.died
        message = self._last_words(failed=status.shell != 0)
        self._record_end(
            Terminated(
                status.shell,
                reason,
                self._started_at,
                timestamp(),
                self.record.id,
                signal=status.signal,
                message=": ".join(filter(None, (unwell, message))),
            )
        )
        number = self.record.restarts
        self._restart_or_over(ended.ran, failed=bool(unwell))
        # After the restart, which is waited for by somebody; this is not. What the last one wrote stays with the pod.
        if not self.done:
            self._host.discard(self._index, number)

    def _last_words(self, *, failed: bool) -> str:
        if self._message is None:
            return ""
        return self._message.read(failed=failed, logs=self._host.log_directory(self._index).path)

    def _record_end(self, end: Terminated) -> None:
        self.record.state = end
        self.record.pid = self.record.start_time = 0
        self._host.changed()

    def _restart_or_over(self, ran: float, reason: str = "", message: str = "", *, failed: bool = False) -> None:
        """By the policy. What a probe has ended has `failed` whatever its exit code is.

        A `reason` beside the end itself is shown before the back-off is.
        """
        state = self.record.state
        assert isinstance(state, Terminated)
        policy = self._policy
        if self._stopping or policy == "Never" or (policy == "OnFailure" and state.exit_code == 0 and not failed):
            self._over()
            return
        delay = self._backoff.next_delay(ran)
        if delay == 0:
            self._restart()
            return
        if not reason:
            self._back_off(delay, delay)
            return
        self.record.wait(reason, message)
        shown = min(_ERROR_SHOWN, delay / 2)
        self._timer = self._host.loop.call_later(shown, lambda: self._back_off(delay, delay - shown))
        self._host.changed()

    def _back_off(self, delay: float, left: float) -> None:
        self.record.wait("CrashLoopBackOff", f"back-off {delay:g}s restarting container {self.record.name!r}")
        self._timer = self._host.loop.call_later(left, self._restart)
        self._host.changed()

    def _restart(self) -> None:
        self.record.restarts += 1
        self._run()

    def _over(self) -> None:
        self.done = True
        if self._following is not None:
            self._following = None
            self._host.discard(self._index, self.record.restarts + 1)
        self._host.changed()
        self._ended()

    def stop(self) -> None:
        """No restarts from now on; a running payload is asked to end, as its image wants it (SIGTERM)."""
        self.retire()
        if self._attempt is not None and not self._asked:
            self._asked = True
            self._attempt.container.signal(self._attempt.stop_signal)

    def retire(self) -> None:
        """No restarts from now on; a payload that runs goes on."""
        if self.done or self._stopping:
            return
        self._stopping = True
        if self._prober is not None:
            self._prober.is_ending()
        if self._attempt is not None:
            return
        if self._pull is not None:
            self._pull.cancel()
            self._pull = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.record.last is not None:
            self.record.state = self.record.last
        elif not isinstance(self.record.state, Terminated) and not self._awaits_init_containers:
            now = timestamp()
            self.record.state = Terminated(137, "ContainerStatusUnknown", now, now, "", message="it was never started")
        self._over()

    @property
    def _awaits_init_containers(self) -> bool:
        return isinstance(self.record.state, Waiting) and self.record.state.reason == POD_INITIALIZING

    def kill(self) -> None:
        """End the payload now, frozen or not."""
        if self._attempt is not None:
            self._attempt.container.kill()

    def signal(self, signum: int) -> None:
        """Signal the payload's first process. Raises NotFound when it is not running."""
        if self._attempt is None or not self._attempt.container.signal(signum):
            raise NotFound(f"container {self.record.name!r} is not running")

    def copy_size(self, source: int) -> None:
        """Give the payload's terminal the size of another one."""
        if self._attempt is not None and self._attempt.container.console_fd is not None:
            from runtime.pod.terminal import copy_size

            copy_size(source, self._attempt.container.console_fd)

    def attach(self, outputs: list[int], stdin: int) -> Callable[[], None]:
        """Copy the payload's output, and input to it; what ends that. Raises NotFound when it is not running."""
        if self._attempt is None:
            raise NotFound(f"container {self.record.name!r} is not running")
        return self._attempt.attach(outputs, stdin).close

    def resize(self, rows: int, columns: int) -> None:
        """Give the payload's terminal that size. Raises NotFound when there is none."""
        if self._attempt is None or self._attempt.container.console_fd is None:
            raise NotFound(f"container {self.record.name!r} has no terminal")
        from runtime.pod.terminal import set_size

        set_size(self._attempt.container.console_fd, rows, columns)
