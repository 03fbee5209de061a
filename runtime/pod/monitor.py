"""The monitor: one process a pod, parent of the pod's containers.

It sets up the sandbox, runs the containers, writes their logs, records their ends, restarts them by policy, and takes
everything away when the pod is over. It belongs to no supervisor: it goes on when that is killed, and whoever connects
to its control socket sees the pod's state. `rawpod run` is a monitor in the foreground.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from cgroups import hierarchy as cgroup_hierarchy
from kernel import credentials, operation
from kernel.errors import BadInput, Conflict, NotFound, RawpodError
from kernel.operation import Assembly
from kernel.pidfd import process_start_time
from runtime.pod import directory, phase, sandbox
from runtime.pod.attempt import Prepared, Show
from runtime.pod.backoff import Backoff
from runtime.pod.control import Server
from runtime.pod.logs import LogDirectory
from runtime.pod.loop import Loop, Timer
from runtime.pod.prepare import Blueprint
from runtime.pod.records import Json, PodRecord, Terminated, timestamp
from runtime.pod.runner import Runner
from runtime.pod.volume_limits import LimitWatch
from runtime.settings import Settings

if TYPE_CHECKING:
    from runtime.pod.pulling import Done, Pull

_KILL_REPORTED_AFTER = 1.0
_RETRY_RELEASE = 5.0
_EVICTION_GRACE = 1.0  # kubelet's for an immediate eviction


class Monitor:
    """A pod, from the files in its directory to its end.

    In the `foreground` a set-up that fails is raised instead of tried again. `show` puts the (only) container into the
    caller's terminal. `owner` is "run" or "supervisor": whose pod it is.
    """

    def __init__(
        self,
        settings: Settings,
        uid: str,
        listener: socket.socket,
        *,
        owner: str,
        foreground: bool = False,
        show: Callable[[Loop], Show] | None = None,
    ) -> None:
        self.settings, self.uid, self.owner = settings, uid, owner
        self.loop = Loop()
        self.show = show(self.loop) if show else None
        self.error: Exception | None = None
        self.hierarchy = cgroup_hierarchy.find()
        self.blueprint = Blueprint.read(settings, uid, self.hierarchy)
        self.grace = self.blueprint.grace
        self.pod = PodRecord(self.blueprint.records(), started_at=timestamp(), qos_class=self.blueprint.qos_class)
        self.runners = [
            Runner(
                self,
                index,
                record,
                phase.restart_policy(record.role, self.blueprint.restart_policy),
                self._container_over,
            )
            for index, record in enumerate(self.pod.containers)
        ]
        self._limits = LimitWatch(self.loop, self.blueprint.disk_limits, self._evict)
        self._evicted = False
        self._begun = 0
        self._foreground = foreground
        self._server = Server(self.loop, listener, self)
        self._monitor = {"pid": os.getpid(), "startTime": process_start_time(os.getpid())}
        self._sandbox_backoff = Backoff()
        self._retry: Timer | None = None
        self._dirty = False
        self._stopping = self._releasing = False
        self._on_done: list[Callable[[], None]] = []

    # --- life ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Set up, serve until the pod is over and released. Raises the error that ended it, in the foreground."""
        credentials.set_child_subreaper()
        if self.blueprint.deadline is not None:
            self.loop.call_later(self.blueprint.deadline, self._deadline_exceeded)
        try:
            self._set_up()
            self.loop.run()
        finally:
            self._server.close()
            self.loop.close()
        if self.error is not None:
            raise self.error

    def _deadline_exceeded(self) -> None:
        """The pod has had its time, whatever its containers say when they are ended."""
        if not self._stopping:
            self.pod.failed = True
            self.pod.reason = "DeadlineExceeded"
            self.pod.message = "Pod was active on the node longer than the specified deadline"
            self.changed()
            self.stop(self.blueprint.grace)

    def _set_up(self) -> None:
        self._retry = None
        try:
            operation.run(self.blueprint.sandbox(), Assembly()).disarm()
            self.pod.address = self.blueprint.address()
        except (RawpodError, OSError) as error:
            if self._foreground:
                raise
            self.pod.reason, self.pod.message = "CreatePodSandboxError", str(error)
            self._retry = self.loop.call_later(max(1.0, self._sandbox_backoff.next_delay(0.0)), self._set_up)
            self.changed()
            return
        self.pod.reason = self.pod.message = ""
        self.pod.sandbox_ready = True
        self._limits.start()
        self._advance()
        self.changed()

    def _evict(self, message: str) -> None:
        """End the pod for what it takes of the machine, and give that back, as kubelet does."""
        if self._stopping:
            return
        self._evicted = self.pod.failed = True
        self.pod.reason, self.pod.message = "Evicted", message
        self.changed()
        self.stop(_EVICTION_GRACE)

    def _container_over(self) -> None:
        # Not from within a container's own callback.
        self.loop.call_later(0, self._go_on)

    def _go_on(self) -> None:
        """After the end of a container: the pod's own, once its last has ended, or that of what is of no more use."""
        if all(runner.done for runner in self.runners):
            if not self._releasing:
                self._releasing = True
                self._release()
        elif self._stopping:
            self._stop_in_order()
        elif self._has_no_more_to_do():
            self.stop(self.blueprint.grace)
        else:
            self._advance()

    def _has_no_more_to_do(self) -> bool:
        """Whether all main containers have ended for good, or an init container failed so that they never begin."""
        init = [runner for runner in self.runners if runner.record.role == phase.INIT]
        if any(runner.done and not runner.record.succeeded for runner in init):
            return True
        return all(runner.done for runner in self.runners if runner.record.role == phase.MAIN)

    def _advance(self) -> None:
        """Start the containers that wait for no other one."""
        while not self._stopping and self._begun < phase.startable(self.pod.containers):
            self._begun += 1
            self.runners[self._begun - 1].start()

    def _release(self) -> None:
        """Take the sandbox away, tell everybody, and end."""
        self._limits.stop()
        try:
            if self._evicted:
                self.blueprint.discard_volumes()
            sandbox.release(self.settings, self.uid, network=self.blueprint.network == "pod")
        except (RawpodError, OSError) as error:
            self.pod.reason, self.pod.message = "Terminating", str(error)
            self.changed()
            self.loop.call_later(_RETRY_RELEASE, self._release)
            return
        self.pod.sandbox_ready = False
        self.pod.finished = True
        self._publish()
        for done in self._on_done:
            done()
        self.loop.stop()

    # --- what containers ask (runner.Host) ----------------------------------------------------------------------

    def prepare(self, index: int, attempt: int) -> Prepared:
        prepared, image_id = self.blueprint.prepare(index, attempt)
        self.pod.containers[index].image_id = image_id
        self.warn(self.blueprint.warnings(index))
        return prepared

    def pull(self, index: int, done: Done) -> Pull | None:
        blueprint = self.blueprint
        if not blueprint.wants_pull(index):
            return None
        from runtime.pod.pulling import Pull

        return Pull(self.loop, self.settings, blueprint.containers[index][1], blueprint.registries(), done)

    def pulls_always(self, index: int) -> bool:
        return self.blueprint.pull_policy(index) == "Always"

    def log_directory(self, index: int) -> LogDirectory:
        return self.blueprint.log_directory(index)

    def discard(self, index: int, attempt: int) -> None:
        self.blueprint.discard(index, attempt)

    def keeps_stdin_open(self, index: int) -> bool:
        return self.blueprint.keeps_stdin_open(index)

    def failed(self, error: Exception) -> bool:
        if self._foreground:
            self.error = error
            self.stop(0.0)
        return self._foreground

    def changed(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.loop.call_later(0, self._publish)

    def _publish(self) -> None:
        self._dirty = False
        if self.pod.sandbox_ready:
            self._advance()
        status = self.current_status()
        try:
            directory.write_status(self.blueprint.places.directory, status)
        except OSError as error:  # no space: watchers are told all the same, the payloads run on
            self.pod.message = f"status.json: {error.strerror}"
        self._server.publish()

    def warn(self, warnings: list[str]) -> None:
        new = [warning for warning in warnings if warning not in self.pod.warnings]
        self.pod.warnings += new
        if self._foreground and new:
            os.write(2, "".join(f"rawpod: {warning}\n" for warning in new).encode())

    @property
    def exit_code(self) -> int:
        """That of the first container that failed, 0 if all succeeded."""
        needed = [record.state for record in self.pod.containers if record.role != phase.SIDECAR]
        codes = [state.exit_code for state in needed if isinstance(state, Terminated)]
        return next((code for code in codes if code), 0)

    # --- what clients ask (control.Handler) ---------------------------------------------------------------------

    def current_status(self) -> Json:
        """The PodStatus, and under "rawpod" what only this program cares for."""
        blueprint = self.blueprint
        internal = {
            "metadata": blueprint.metadata,
            "owner": self.owner,
            "network": blueprint.network,
            "monitor": self._monitor,
            "cgroup": blueprint.places.cgroup(self.hierarchy).path,
            "warnings": self.pod.warnings,
            "containers": {record.name: record.to_internal() for record in self.pod.containers},
        }
        return self.pod.to_status() | {"rawpod": internal}

    def stop_requested(self, grace: float | None, done: Callable[[], None]) -> None:
        self._on_done.append(done)
        self.stop(self.blueprint.grace if grace is None else grace)

    def refresh_requested(self) -> None:
        faults = self.blueprint.refresh(files=self.pod.sandbox_ready)
        self.changed()
        if faults:
            raise RawpodError("; ".join(faults))

    def signal_requested(self, container: str | None, signum: int) -> None:
        if not 1 <= signum < signal.NSIG:
            raise BadInput(f"signal {signum} does not exist")
        self._runner(container).signal(signum)

    def attach_requested(self, container: str | None, outputs: list[int], stdin: int) -> Callable[[], None]:
        return self._runner(container).attach(outputs, stdin)

    def resize_requested(self, container: str | None, rows: int, columns: int) -> None:
        if not (0 <= rows < 65536 and 0 <= columns < 65536):
            raise BadInput(f"a terminal of {rows} rows and {columns} columns")
        self._runner(container).resize(rows, columns)

    def _runner(self, container: str | None) -> Runner:
        runners = [runner for runner in self.runners if container in (None, runner.record.name)]
        if not runners:
            raise NotFound(f"no container {container!r}")
        if len(runners) > 1:
            raise Conflict("the pod has several containers", remedy="name one")
        return runners[0]

    def stop(self, grace: float) -> None:
        """End all containers: SIGTERM now, SIGKILL after `grace` seconds. A shorter grace period overrides."""
        self.loop.call_later(max(0.0, grace), self._kill)
        if self._stopping:
            return
        self._stopping = True
        if self._retry is not None:
            self._retry.cancel()
        if grace <= 0:
            self._kill()
        self._stop_in_order()

    def _stop_in_order(self) -> None:
        """Sidecars serve the others to their end: they are asked to end after them, the last one first."""
        for runner in self.runners:
            if runner.record.role == phase.SIDECAR:
                runner.retire()
            else:
                runner.stop()
        left = [runner for runner in self.runners if not runner.done]
        if left and all(runner.record.role == phase.SIDECAR for runner in left):
            left[-1].stop()

    def _kill(self) -> None:
        for runner in self.runners:
            if not runner.done:
                runner.kill()
        if not all(runner.done for runner in self.runners):
            self.loop.call_later(_KILL_REPORTED_AFTER, self._report_unkillable)

    def _report_unkillable(self) -> None:
        """A process in uninterruptible sleep outlives SIGKILL: say so, and keep what it uses until it has ended."""
        names = [runner.record.name for runner in self.runners if not runner.done]
        if names:
            self.pod.reason = "Terminating"
            self.pod.message = f"SIGKILL was sent and has not ended {', '.join(names)}"
            self.changed()

    def reap(self) -> None:
        """Collect children that are no container's first process: orphans where the host's pid namespace is shared."""
        ours = {record.pid for record in self.pod.containers}.union(
            self._limits.workers, *(runner.workers for runner in self.runners)
        )
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            if found.si_pid in ours:
                # Its end comes by its pidfd, in this round or the next; strangers queue behind it.
                self.loop.call_later(0, self.reap)
                return
            os.waitid(os.P_PID, found.si_pid, os.WEXITED)


def serve(settings: Settings, uid: str, listener: socket.socket, owner: str) -> None:
    """The whole life of a monitor in a process of its own."""
    monitor = Monitor(settings, uid, listener, owner=owner)
    grace = monitor.blueprint.grace

    def on_signal(number: int) -> None:
        if number == signal.SIGCHLD:
            monitor.reap()
        else:
            monitor.stop(grace)

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    monitor.loop.on_signals((signal.SIGTERM, signal.SIGINT, signal.SIGCHLD), on_signal)
    monitor.run()
