"""What rawpod reports of the objects it keeps: the status halves of Pod, ReplicaSet and Deployment.

Fields without a default are always written, as Kubernetes does, also when they are false or zero.
"""

from __future__ import annotations

import msgspec

from runtime.pod.meta import KubernetesStruct, Timestamp


class Condition(KubernetesStruct):
    """One aspect of an object's state; `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Timestamp | None = None
    last_update_time: Timestamp | None = None
    last_probe_time: Timestamp | None = None
    observed_generation: int | None = None


class ContainerStateWaiting(KubernetesStruct):
    """Not running yet, or between two runs."""

    reason: str = ""
    message: str = ""


class ContainerStateRunning(KubernetesStruct):
    """Running since then."""

    started_at: Timestamp | None = None


class ContainerStateTerminated(KubernetesStruct):
    """Ended; `signal` is set where one ended it, and exitCode is 128 more."""

    exit_code: int
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    container_id: str = msgspec.field(default="", name="containerID")


class ContainerState(KubernetesStruct):
    """Exactly one of these is set."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(KubernetesStruct):
    """A container now, and how its last run ended."""

    name: str
    ready: bool
    restart_count: int
    image: str
    image_id: str = msgspec.field(name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")
    started: bool | None = None
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class PodIP(KubernetesStruct):
    """One of the pod's addresses."""

    ip: str


class PodStatus(KubernetesStruct):
    """`phase` is Pending, Running, Succeeded, Failed or Unknown."""

    phase: str = ""
    conditions: list[Condition] = []
    message: str = ""
    reason: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[PodIP] = msgspec.field(default=[], name="podIPs")
    start_time: Timestamp | None = None
    init_container_statuses: list[ContainerStatus] = []
    container_statuses: list[ContainerStatus] = []
    qos_class: str = ""
    observed_generation: int = 0


class ReplicaSetStatus(KubernetesStruct):
    """Counts of pods; a pod is available when it has been ready for minReadySeconds."""

    replicas: int = msgspec.field(default_factory=lambda: 0)
    ready_replicas: int = 0
    available_replicas: int = 0
    fully_labeled_replicas: int = 0
    observed_generation: int = 0
    conditions: list[Condition] = []


class DeploymentStatus(KubernetesStruct):
    """Counts of pods over all of a Deployment's ReplicaSets."""

    replicas: int = msgspec.field(default_factory=lambda: 0)
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    observed_generation: int = 0
    conditions: list[Condition] = []
    collision_count: int | None = None
