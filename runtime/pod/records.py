"""What is known of a pod's containers, and the Kubernetes PodStatus made of it."""

import time
from typing import Any

from kernel.record import Record, Struct
from runtime.pod import phase

Json = dict[str, Any]


POD_INITIALIZING = "PodInitializing"
"""Reason of a container that waits for the init containers before it."""


def timestamp() -> str:
    """Now, in the form of Kubernetes' metav1.Time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Waiting(Record):
    """Not running yet, or not running again yet."""

    reason: str
    message: str = ""

    def to_json(self) -> Json:
        return {"waiting": {"reason": self.reason} | ({"message": self.message} if self.message else {})}


class Running(Record):
    """Running since `started_at`."""

    started_at: str

    def to_json(self) -> Json:
        return {"running": {"startedAt": self.started_at}}


class Terminated(Record):
    """Ended: `exit_code` as shells put it (128 + signal), reason Completed, Error or OOMKilled, or why it never ran."""

    exit_code: int
    reason: str
    started_at: str
    finished_at: str
    container_id: str
    signal: int = 0
    message: str = ""

    def to_json(self) -> Json:
        fields: Json = {
            "exitCode": self.exit_code,
            "reason": self.reason,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
            "containerID": self.container_id,
        }
        if self.signal:
            fields["signal"] = self.signal
        if self.message:
            fields["message"] = self.message
        return {"terminated": fields}


State = Waiting | Running | Terminated


class ContainerRecord(Struct):
    """One container of a pod: its present state, the one before, and the figures rawpod keeps beside.

    `died` and `started` are CLOCK_MONOTONIC seconds of the last end of a payload and of the last first instruction.
    `unstarted` and `unready` are what its probes say while it runs.
    """

    name: str
    image: str
    role: str = phase.MAIN
    image_id: str = ""
    command: list[str] = []
    cgroup: str = ""
    state: State = Waiting("ContainerCreating")
    last: Terminated | None = None
    restarts: int = 0
    id: str = ""
    pid: int = 0
    start_time: int = 0
    started: float = 0.0
    died: float = 0.0
    health: Json | None = None
    unstarted: bool = False
    unready: bool = False
    probes: Json | None = None

    @property
    def running(self) -> bool:
        return isinstance(self.state, Running)

    @property
    def has_started(self) -> bool:
        """Whether what waits for this container may start; for a container without a startup probe, that it runs."""
        return self.running and not self.unstarted

    @property
    def ready(self) -> bool:
        """A container is ready while it runs and no probe says otherwise, an init container when it has succeeded."""
        return self.succeeded if self.role == phase.INIT else self.running and not self.unready

    @property
    def succeeded(self) -> bool:
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    @property
    def ran(self) -> bool:
        """Whether it runs or has run."""
        return not isinstance(self.state, Waiting) or self.last is not None

    def wait(self, reason: str, message: str = "") -> None:
        """Enter the waiting state; the end of the last attempt, if there was one, stays visible as lastState."""
        if isinstance(self.state, Terminated):
            self.last = self.state
        self.state = Waiting(reason, message)
        self.pid = self.start_time = 0

    def to_status(self) -> Json:
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            "containerID": f"rawpod://{self.id}" if self.id else "",
            "state": self.state.to_json(),
            "lastState": self.last.to_json() if self.last else {},
            "ready": self.ready,
            "started": self.has_started,
            "restartCount": self.restarts,
        }

    def to_internal(self) -> Json:
        return {
            "id": self.id,
            "pid": self.pid,
            "startTime": self.start_time,
            "cgroup": self.cgroup,
            "command": self.command,
            "started": self.started,
            "died": self.died,
            **({"health": self.health} if self.health else {}),
            **({"probes": self.probes} if self.probes else {}),
        }


class PodRecord(Struct):
    """A pod as its monitor sees it."""

    containers: list[ContainerRecord]
    started_at: str
    address: str = ""
    qos_class: str = ""
    sandbox_ready: bool = False
    finished: bool = False
    failed: bool = False
    reason: str = ""
    message: str = ""
    warnings: list[str] = []
    conditions: dict[str, tuple[bool, str]] = {}

    def to_status(self) -> Json:
        """The PodStatus of the Kubernetes API."""
        now = phase.phase(self.containers, finished=self.finished, failed=self.failed)
        init = [record.to_status() for record in self.containers if record.role != phase.MAIN]
        status: Json = {
            "phase": now,
            "startTime": self.started_at,
            "conditions": self._conditions(now),
            **({"initContainerStatuses": init} if init else {}),
            "containerStatuses": [record.to_status() for record in self.containers if record.role == phase.MAIN],
        }
        if self.address:
            status |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        if self.qos_class:
            status["qosClass"] = self.qos_class
        for key in ("reason", "message"):
            if value := getattr(self, key):
                status[key] = value
        return status

    def _conditions(self, now: str) -> list[Json]:
        found = []
        for name, (value, reason, message) in phase.conditions(
            self.containers, now, sandbox_ready=self.sandbox_ready
        ).items():
            if self.conditions.get(name, (None, ""))[0] is not value:
                self.conditions[name] = (value, timestamp())
            told = {"reason": reason, "message": message}
            found.append(
                {
                    "type": name,
                    "status": "True" if value else "False",
                    "lastTransitionTime": self.conditions[name][1],
                    **{key: text for key, text in told.items() if text},
                }
            )
        return found
